//! What Kubernetes, Istio and the Gateway API promise, kept for pods that Orlop carries: shown by their traffic in a real cluster.
//!
//! One cluster for all topics, each in namespaces of its own beside the others. The cluster's network plug-in enforces no
//! `NetworkPolicy`, so that Orlop leaves these alone is not shown here.

#![expect(clippy::indexing_slicing, reason = "a manifest or a status that is not as expected fails the test")]

mod gateway_api;
mod gateway_filters;
mod istio;
mod istio_security;
mod jobs;
mod pod_tokens;
mod probes;
mod scene;
mod services;
mod workstation;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use orlop_integration::Cluster;
use orlop_integration::cluster::Programs;

type Topic = fn(&Cluster) -> Result<()>;

const TOPICS: [(&str, Topic); 8] = [
    ("services", services::every_kind_of_service_is_reached),
    ("probes", probes::every_kind_of_probe_succeeds_under_strict),
    ("jobs", jobs::what_runs_before_an_application_and_what_ends_is_in_the_mesh),
    ("the workstation", workstation::reaches_the_agent_of_a_node_and_of_a_pod),
    ("Istio's routes", istio::edits_take_effect),
    ("Istio's security", istio_security::edits_take_effect),
    ("Gateway API's routes", gateway_api::requests_go_where_routes_say),
    ("Gateway API's filters", gateway_filters::requests_and_answers_are_changed_as_routes_say),
];

#[test]
fn pods_find_their_cluster_as_it_was() -> Result<()> {
    let cluster = Cluster::start(Programs::prepared()?.with_gateway_api()?)?;
    cluster.install_gateway_api()?;
    cluster.install_istio()?;
    cluster.install_orlop()?;
    let failures = thread::scope(|scope| {
        let topics = TOPICS.map(|(name, topic)| {
            let cluster = &cluster;
            let run = move || {
                catch_unwind(AssertUnwindSafe(|| topic(cluster)))
                    .unwrap_or_else(|panic| Err(anyhow!("{panic:?}")))
                    .context(name)
            };
            scope.spawn(run)
        });
        topics.map(|topic| topic.join().unwrap_or_else(|panic| Err(anyhow!("{panic:?}"))))
    });
    let failures: Vec<_> =
        failures.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    pod_tokens::stand_in_for_a_node_that_is_not_trusted(&cluster)
}
