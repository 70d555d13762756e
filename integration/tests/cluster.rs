//! A namespace of a real cluster joins the mesh by a label, while its pods run, and leaves it again.
//!
//! Two nodes, istiod and charts as Istio ships them, Orlop by its own chart. One cluster for the whole story.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::{ISTIO_SYSTEM, Programs};
use orlop_integration::{Call, Cluster, Reply, until};
use serde_json::Value;

const WEB: &str = "10.96.0.80:80";
const PATIENCE: Duration = Duration::from_mins(1);

/// A client and a stranger on the first node; `web` in two versions on the second.
const SHOP: &str = include_str!("cluster/shop.yaml");
const V2_FOR_TESTERS: &str = include_str!("cluster/v2-for-testers.yaml");
const STRICT_AND_FOR_THE_CLIENT_ONLY: &str = include_str!("cluster/strict.yaml");

#[test]
fn a_label_takes_running_pods_into_the_mesh_and_out_of_it() -> Result<()> {
    let cluster = Cluster::start(Programs::prepared()?)?;
    cluster.install_istio()?;
    cluster.install_orlop()?;
    cluster.apply(SHOP)?;
    cluster.kubectl(&["-n", "shop", "rollout", "status", "deployment/caller", "--timeout=60s"])?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
    let before = pods(&cluster)?;
    until("the service to answer without a mesh", PATIENCE, || {
        answered(&cluster, "client", &Call::new(web()?))
    })?;

    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode=orlop"])?;
    until("all pods to be carried", PATIENCE, || {
        let carried = carried(&cluster, 1)? + carried(&cluster, 2)?;
        Ok((carried == before.len()).then_some(()))
    })
    .with_context(|| cluster.orlop(1, &["status"]).unwrap_or_default())?;
    ensure!(identities(&pods(&cluster)?) == identities(&before), "a pod was restarted");
    until("peers to be told that they speak mutual TLS", PATIENCE, || {
        let all = pods(&cluster)?;
        let labelled = all.iter().all(|pod| tls_mode(pod) == Some("istio"));
        Ok(labelled.then_some(()))
    })?;
    istiod_has_synced_each_pod(&cluster, &before)?;
    until("the service to answer in the mesh", PATIENCE, || {
        answered(&cluster, "client", &Call::new(web()?))
    })?;

    a_route_by_header_takes_effect(&cluster)?;
    metrics_name_the_deployment(&cluster, &before)?;
    a_policy_by_principal_takes_effect_across_nodes(&cluster)?;
    the_kubelet_still_probes(&cluster)?;

    cluster.kubectl(&["delete", "namespace", "outside"])?;
    cluster.kubectl(&[
        "-n",
        "shop",
        "delete",
        "peerauthentication,authorizationpolicy,virtualservice",
        "--all",
    ])?;
    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode-"])?;
    until("the nodes to carry nothing", PATIENCE, || {
        Ok((carried(&cluster, 1)? + carried(&cluster, 2)? == 0).then_some(()))
    })?;
    until("the service to answer without a mesh again", PATIENCE, || {
        answered(&cluster, "client", &Call::new(web()?))
    })?;
    for pod in pods(&cluster)? {
        ensure!(tls_mode(&pod).is_none(), "a label is left: {pod}");
    }
    ensure!(identities(&pods(&cluster)?) == identities(&before), "a pod was restarted");
    Ok(())
}

fn istiod_has_synced_each_pod(cluster: &Cluster, pods: &[Value]) -> Result<()> {
    until("istiod to list every pod as in sync", PATIENCE, || {
        let listed = cluster.istioctl(&["proxy-status", "--istioNamespace", ISTIO_SYSTEM])?;
        let synced = pods.iter().all(|pod| {
            let name = text(pod, "/metadata/name").unwrap_or_default();
            let mut lines = listed.lines().filter(|line| line.contains(name));
            lines.next().is_some_and(|line| !line.contains("STALE") && !line.contains("NOT SENT"))
        });
        ensure!(synced, "{listed}");
        Ok(Some(()))
    })
}

fn a_route_by_header_takes_effect(cluster: &Cluster) -> Result<()> {
    cluster.apply(V2_FOR_TESTERS)?;
    let mut as_tester = Call { times: 10, ..Call::new(web()?) };
    as_tester.headers.insert("x-tester".to_owned(), "yes".to_owned());
    until("the route by header to take effect", PATIENCE, || {
        let replies = cluster.http("shop/client", &as_tester)?;
        Ok(replies.iter().all(|reply| reply.server.as_deref() == Some("v2")).then_some(()))
    })?;
    let replies = cluster.http("shop/client", &Call { times: 10, ..Call::new(web()?) })?;
    ensure!(replies.iter().all(|reply| reply.server.as_deref() == Some("v1")), "{replies:?}");
    Ok(())
}

/// Both ends count the requests of a pod as its Deployment's.
fn metrics_name_the_deployment(cluster: &Cluster, pods: &[Value]) -> Result<()> {
    const STATS: &str = "127.0.0.1:15000";
    let names = pods.iter().filter_map(|pod| text(pod, "/metadata/name"));
    let caller =
        names.clone().find(|name| name.starts_with("caller-")).context("no pod of the Deployment")?;
    answered(cluster, caller, &Call::new(web()?))?;
    for (pod, reporter) in [(caller, "source"), ("web-v1", "destination")] {
        until(&format!("the {reporter} to count the requests"), PATIENCE, || {
            let call = Call { path: "/stats/prometheus".to_owned(), ..Call::new(STATS.parse()?) };
            let replies = cluster.http(&format!("shop/{pod}"), &call)?;
            let stats = replies.first().map(|reply| reply.body.as_str()).unwrap_or_default();
            let (reporter, workload) = (format!("reporter=\"{reporter}\""), "source_workload=\"caller\"");
            let counted = |line: &&str| line.starts_with("istio_requests_total{") && line.contains(&reporter);
            let lines: Vec<_> = stats.lines().filter(counted).collect();
            ensure!(lines.iter().any(|line| line.contains(workload)), "{lines:#?}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

fn a_policy_by_principal_takes_effect_across_nodes(cluster: &Cluster) -> Result<()> {
    cluster.apply(STRICT_AND_FOR_THE_CLIENT_ONLY)?;
    until("the stranger to be denied", PATIENCE, || {
        let replies = cluster.http("shop/stranger", &Call::new(web()?))?;
        Ok(replies.iter().all(|reply| reply.status == 403).then_some(()))
    })?;
    until("the client to be let in", PATIENCE, || answered(cluster, "client", &Call::new(web()?)))?;
    // A pod that the label does not name speaks plaintext.
    cluster.kubectl(&["-n", "outside", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
    let replies = cluster.http("outside/visitor", &Call::new(web()?))?;
    ensure!(replies.iter().all(|reply| reply.error.is_some()), "plaintext was let in: {replies:?}");
    Ok(())
}

/// Though it shows no identity, and the policy lets one client in alone.
fn the_kubelet_still_probes(cluster: &Cluster) -> Result<()> {
    let before = probes_of_web(cluster)?;
    until("more probes than would have made it unready, or restarted it", PATIENCE, || {
        Ok((probes_of_web(cluster)? >= before + 6).then_some(()))
    })
    .with_context(|| cluster.orlop(2, &["status"]).unwrap_or_default())?;
    let web = cluster.get(&["pod", "-n", "shop", "web-v1"])?;
    ensure!(web.pointer("/status/containerStatuses/0/ready") == Some(&Value::Bool(true)), "{web}");
    ensure!(web.pointer("/status/containerStatuses/0/restartCount") == Some(&0.into()), "{web}");
    Ok(())
}

fn probes_of_web(cluster: &Cluster) -> Result<u64> {
    let status = cluster.status(2)?;
    let workloads =
        status.get("workloads").and_then(Value::as_array).context("no workloads in the status")?;
    let web = workloads.iter().find(|workload| text(workload, "/name") == Some("web-v1"));
    let probes = web.and_then(|web| web.pointer("/kernel/inbound_probes")).and_then(Value::as_u64);
    probes.with_context(|| format!("no probes of web-v1 in {status}"))
}

fn web() -> Result<SocketAddr> {
    let address = WEB.parse()?;
    Ok(address)
}

/// Whether a pod of the shop has an answer from the service.
fn answered(cluster: &Cluster, pod: &str, call: &Call) -> Result<Option<()>> {
    let replies: Vec<Reply> = cluster.http(&format!("shop/{pod}"), call)?;
    ensure!(replies.iter().all(|reply| reply.status == 200), "{replies:?}");
    Ok(Some(()))
}

fn pods(cluster: &Cluster) -> Result<Vec<Value>> {
    let list = cluster.get(&["pods", "-n", "shop"])?;
    list.get("items").and_then(Value::as_array).cloned().context("no list of pods")
}

fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}

fn tls_mode(pod: &Value) -> Option<&str> {
    text(pod, "/metadata/labels/security.istio.io~1tlsMode")
}

/// By what a pod that was replaced or restarted would be told apart.
fn identities(pods: &[Value]) -> Vec<[Option<Value>; 2]> {
    let of = |pod: &Value| {
        ["/metadata/uid", "/status/containerStatuses/0/restartCount"].map(|path| pod.pointer(path).cloned())
    };
    pods.iter().map(of).collect()
}

/// How many workloads are carried on a node, and all that there are.
fn carried(cluster: &Cluster, node: u8) -> Result<usize> {
    let status = cluster.status(node)?;
    let workloads =
        status.get("workloads").and_then(Value::as_array).context("no workloads in the status")?;
    let ready = |workload: &Value| workload.get("ready").and_then(Value::as_bool) == Some(true);
    ensure!(workloads.iter().all(ready), "not all are carried: {status}");
    Ok(workloads.len())
}
