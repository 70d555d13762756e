//! An upgrade of the agents under load: no request fails, and connections that were open stay open.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::{ISTIO_SYSTEM, Programs};
use orlop_integration::{Call, Cluster, until};
use serde_json::Value;

const HTTP: &str = "10.96.0.80:80";
const TCP: &str = "10.96.0.80:90";
const PATIENCE: Duration = Duration::from_mins(1);
/// Under STRICT: everything goes through the proxies of both nodes.
const SHOP: &str = include_str!("cluster_upgrade/shop.yaml");

#[test]
fn no_request_fails_while_the_agents_are_replaced() -> Result<()> {
    let cluster = Cluster::start(Programs::prepared()?)?;
    cluster.install_istio()?;
    cluster.install_orlop()?;
    cluster.apply(SHOP)?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
    until("the service to answer in the mesh", PATIENCE, || {
        let replies = cluster.http("shop/client", &call(HTTP)?)?;
        Ok(replies.iter().all(|reply| reply.status == 200).then_some(()))
    })?;

    let loads = [
        ("HTTP", cluster.load("load-http", "shop/client", &call(HTTP)?)?),
        ("TCP, one connection", cluster.load("load-tcp", "shop/client", &call(TCP)?)?),
        ("TCP", cluster.load("load-tcp", "shop/client", &Call { fresh: true, ..call(TCP)? })?),
    ];
    let before = agents(&cluster)?;
    cluster.kubectl(&["-n", ISTIO_SYSTEM, "rollout", "restart", "daemonset/orlop"])?;
    until("other agents to be ready", PATIENCE, || {
        let now = agents(&cluster)?;
        Ok((now.len() == before.len() && now.is_disjoint(&before)).then_some(()))
    })?;
    // Longer than the agents tell their clients to go on with new connections.
    std::thread::sleep(Duration::from_secs(35));
    for (kind, load) in loads {
        let report = load.stop()?;
        ensure!(report.failures() == 0 && report.ok > 100, "{kind}: {report:?}");
    }
    Ok(())
}

/// Those that are ready and to stay.
fn agents(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let pods = cluster.get(&["pods", "-n", ISTIO_SYSTEM, "-l", "app=orlop"])?;
    let pods = pods.get("items").and_then(Value::as_array).context("no list of pods")?;
    let stays = |pod: &&Value| {
        pod.pointer("/metadata/deletionTimestamp").is_none()
            && pod.pointer("/status/containerStatuses/0/ready").and_then(Value::as_bool) == Some(true)
    };
    let name = |pod: &Value| pod.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    Ok(pods.iter().filter(stays).filter_map(name).collect())
}

fn call(to: &str) -> Result<Call> {
    let to: SocketAddr = to.parse()?;
    Ok(Call { body: "ahoy".to_owned(), ..Call::new(to) })
}
