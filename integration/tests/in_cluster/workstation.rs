//! Agents asked, and the cluster looked at, from the workstation of whoever operates it.

use anyhow::{Result, ensure};
use orlop_integration::Cluster;
use serde_json::Value;

use crate::scene::{Scene, is_from};

pub(crate) fn reaches_the_agent_of_a_node_and_of_a_pod(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "workstation")?.with_web()?;
    let call = scene.to("web")?;
    scene.eventually("the service to answer in the mesh", "client", &call, |reply| is_from(reply, "web"))?;

    for (asked, pod) in [(["--node", "node1"], "client"), (["--pod", "workstation/web"], "web")] {
        let status = cluster.orlop_on_workstation(&[&["status", "--json"], &asked[..]].concat())?;
        let status: Value = serde_json::from_str(&status)?;
        let mut workloads = status["workloads"].as_array().into_iter().flatten();
        let found = workloads.any(|it| it["namespace"] == "workstation" && it["name"] == pod);
        ensure!(found, "{pod} is not in the status of {asked:?}: {status}");
    }
    let destination = "web.workstation.svc.cluster.local:80";
    let explained = cluster.orlop_on_workstation(&[
        "explain",
        "workstation/client",
        destination,
        "--pod",
        "workstation/client",
    ])?;
    ensure!(explained.contains("outbound|80||web.workstation.svc.cluster.local"), "{explained}");

    let answer =
        cluster.orlop_on_workstation(&["status", "--node", "node9"]).map_err(|error| error.to_string());
    let refused = answer.as_ref().is_err_and(|error| error.contains("no agent runs on node \"node9\""));
    ensure!(refused, "{answer:?}");
    the_cluster_is_found_ready(cluster)
}

fn the_cluster_is_found_ready(cluster: &Cluster) -> Result<()> {
    let found = cluster.orlop_on_workstation(&["check", "--cluster"])?;
    for expected in ["node node1: kernel ", "node node2: kernel ", "istiod trusts istio-system/ztunnel"] {
        ensure!(found.contains(expected), "no {expected:?} in {found}");
    }
    ensure!(!found.contains("MISSING"), "{found}");
    Ok(())
}
