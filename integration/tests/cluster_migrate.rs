//! A namespace goes from real sidecars to Orlop and back, and no request fails meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::Programs;
use orlop_integration::{Call, Cluster, until};
use serde_json::Value;

const WEB: &str = "10.96.0.80:80";
const PATIENCE: Duration = Duration::from_mins(2);
/// Under STRICT, with a client in a namespace of its own that stays with its sidecar.
const SHOP: &str = include_str!("cluster_migrate/shop.yaml");

#[test]
fn a_namespace_is_migrated_and_back_under_load() -> Result<()> {
    let cluster = Cluster::start(Programs::prepared()?.with_sidecars()?)?;
    cluster.install_istio_with_sidecars()?;
    cluster.install_orlop()?;
    cluster.apply(SHOP)?;
    for (namespace, what) in [("shop", "deployment/web"), ("clients", "deployment/client")] {
        cluster.kubectl(&["-n", namespace, "rollout", "status", what, "--timeout=180s"])?;
    }
    let clients = cluster.get(&["pods", "-n", "clients"])?;
    let client = clients.pointer("/items/0/metadata/name").and_then(Value::as_str).context("no client")?;
    let client = format!("clients/{client}");
    let call = Call::new(WEB.parse()?);
    until("the service to answer", PATIENCE, || {
        let replies = cluster.http(&client, &call)?;
        Ok(replies.iter().all(|reply| reply.status == 200).then_some(()))
    })?;
    ensure!(sidecars(&cluster)? == 2, "the pods have no sidecars to begin with");

    let load = cluster.load("load-http", &client, &call)?;
    let said = cluster.orlop_on_workstation(&["migrate", "shop"])?;
    ensure!(said.contains("2 pods of shop are in the mesh by the node's agent"), "{said}");
    ensure!(sidecars(&cluster)? == 0, "a sidecar is left: {said}");
    let report = load.stop()?;
    ensure!(report.failures() == 0 && report.ok > 100, "there: {report:?}");

    let load = cluster.load("load-http", &client, &call)?;
    let said = cluster.orlop_on_workstation(&["migrate", "shop", "--undo"])?;
    ensure!(said.contains("2 pods of shop are in the mesh by a sidecar"), "{said}");
    ensure!(sidecars(&cluster)? == 2, "not all have a sidecar again: {said}");
    let report = load.stop()?;
    ensure!(report.failures() == 0 && report.ok > 100, "and back: {report:?}");

    let namespace = cluster.get(&["namespace", "shop"])?;
    let labels = namespace.pointer("/metadata/labels").context("no labels")?;
    ensure!(
        labels.get("istio-injection").is_some() && labels.get("istio.io/dataplane-mode").is_none(),
        "{labels}"
    );
    Ok(())
}

/// How many pods of the shop that are to stay have one.
fn sidecars(cluster: &Cluster) -> Result<usize> {
    let pods = cluster.get(&["pods", "-n", "shop"])?;
    let pods = pods.get("items").and_then(Value::as_array).context("no list of pods")?;
    let stays = |pod: &&Value| pod.pointer("/metadata/deletionTimestamp").is_none();
    let spec = |pod: &Value| pod.get("spec").map(Value::to_string).unwrap_or_default();
    Ok(pods.iter().filter(stays).filter(|pod| spec(pod).contains("\"istio-proxy\"")).count())
}
