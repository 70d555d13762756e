//! What happens to a cluster in its life: pods come and go, istiod and the API server are away for a while, a node loses its
//! power and is drained. No request fails that Kubernetes alone would not fail, and nothing is left behind. kube-proxy is in its
//! iptables mode.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::{ISTIO_SYSTEM, Programs};
use orlop_integration::{Call, Cluster, Load, until};
use serde_json::Value;

const WEB: &str = "10.96.0.80:80";
const PATIENCE: Duration = Duration::from_mins(2);
const OUTAGE: Duration = Duration::from_secs(8);
/// Under STRICT: everything goes through the proxies.
const SHOP: &str = include_str!("cluster_life/shop.yaml");

#[test]
fn pods_that_go_leave_nothing_and_outages_fail_no_request() -> Result<()> {
    let mut cluster = Cluster::start(Programs::prepared()?.with_iptables())?;
    cluster.install_istio()?;
    cluster.install_orlop()?;
    cluster.apply(SHOP)?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s"])?;
    until("the service to answer in the mesh", PATIENCE, || {
        let replies = cluster.http("shop/client", &call()?)?;
        Ok(replies.iter().all(|reply| reply.status == 200).then_some(()))
    })?;

    let load = load(&cluster)?;
    a_hundred_pods_come_and_go(&cluster)?;
    nothing_failed(load, "while pods came and went")?;
    istiod_is_away(&cluster)?;
    the_api_server_is_away(&cluster)?;
    a_node_comes_back(&mut cluster)?;
    a_node_is_drained(&cluster)
}

fn a_hundred_pods_come_and_go(cluster: &Cluster) -> Result<()> {
    let before = traces(cluster)?;
    for _ in 0..4 {
        scale(cluster, "shop", "deployment/mayfly", 25)?;
        scale(cluster, "shop", "deployment/mayfly", 0)?;
        let gone = ["wait", "--for=delete", "pod", "-l", "app=mayfly", "--timeout=120s"];
        cluster.kubectl(&[&["-n", "shop"], &gone[..]].concat())?;
    }
    until("nothing of them to be left", PATIENCE, || {
        let after = traces(cluster)?;
        let left: Vec<_> = after.difference(&before).collect();
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(Some(()))
    })
}

/// What the agent of the first node has made there: workloads, pinned objects, files.
fn traces(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let status = cluster.status(1)?;
    let workloads = status.get("workloads").and_then(Value::as_array).context("no workloads")?;
    let names = workloads.iter().filter_map(|workload| workload.get("name")?.as_str());
    let mut traces: BTreeSet<_> = names.map(str::to_owned).collect();
    let find = ["find", "/sys/fs/bpf", "/run/orlop", "/run/netns", "-mindepth", "1"];
    let found = cluster.node_command(1)?.args(find).output()?;
    ensure!(!found.stdout.is_empty(), "{found:?}");
    traces.extend(String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned));
    Ok(traces)
}

fn istiod_is_away(cluster: &Cluster) -> Result<()> {
    let load = load(cluster)?;
    scale(cluster, ISTIO_SYSTEM, "deployment/istiod", 0)?;
    sleep(OUTAGE);
    scale(cluster, ISTIO_SYSTEM, "deployment/istiod", 1)?;
    // What is asked of the mesh when it is back has an effect.
    let fault = serde_json::json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "web"},
        "spec": {"hosts": ["web"], "http": [
            {"match": [{"uri": {"exact": "/teapot"}}], "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100}}},
             "route": [{"destination": {"host": "web"}}]},
            {"route": [{"destination": {"host": "web"}}]},
        ]},
    });
    until("an edit to be taken", PATIENCE, || cluster.apply_in("shop", &fault.to_string()).map(Some))?;
    until("the edit to take effect", PATIENCE, || {
        let replies = cluster.http("shop/client", &Call { path: "/teapot".to_owned(), ..call()? })?;
        Ok(replies.iter().all(|reply| reply.status == 418).then_some(()))
    })?;
    nothing_failed(load, "while istiod was away")
}

fn the_api_server_is_away(cluster: &Cluster) -> Result<()> {
    let load = load(cluster)?;
    for signal in ["-STOP", "-CONT"] {
        let command = format!("pkill {signal} -f '^[^ ]*kubernetes kube-apiserver '");
        let sent = cluster.node_command(1)?.args(["sh", "-c", &command]).output()?;
        ensure!(sent.status.success(), "{command}: {sent:?}");
        sleep(OUTAGE);
    }
    scale(cluster, "shop", "deployment/mayfly", 1)?;
    let ready = ["rollout", "status", "deployment/mayfly", "--timeout=120s"];
    cluster.kubectl(&[&["-n", "shop"], &ready[..]].concat())?;
    nothing_failed(load, "while the API server was away")
}

/// As after a power cut, with pods that were there before.
fn a_node_comes_back(cluster: &mut Cluster) -> Result<()> {
    cluster.restart_node(2)?;
    let call = Call { times: 20, fresh: true, ..call()? };
    until("the servers of both nodes to answer in the mesh", PATIENCE, || {
        let mut servers = BTreeSet::new();
        for reply in cluster.http("shop/client", &call)? {
            let echo = reply.echo()?;
            ensure!(echo.headers.contains_key("x-forwarded-client-cert"), "{echo:?}");
            servers.insert(echo.local.ip());
        }
        Ok((servers.len() == 2).then_some(()))
    })?;
    let load = load(cluster)?;
    until("the agent to carry what is there, and nothing else", PATIENCE, || {
        let on_node = ["pods", "-n", "shop", "--field-selector", "spec.nodeName=node2"];
        let pods = cluster.get(&on_node)?;
        let names = |list: Option<&Value>, name: &str| -> BTreeSet<String> {
            let all = list.and_then(Value::as_array).into_iter().flatten();
            all.filter_map(|one| Some(one.pointer(name)?.as_str()?.to_owned())).collect()
        };
        let status = cluster.status(2)?;
        let (carried, there) = (status.get("workloads"), pods.get("items"));
        Ok((names(carried, "/name") == names(there, "/metadata/name")).then_some(()))
    })?;
    sleep(OUTAGE);
    nothing_failed(load, "after a node came back")
}

/// The client's is not, so that it can tell.
fn a_node_is_drained(cluster: &Cluster) -> Result<()> {
    let load = load(cluster)?;
    // There is one istiod alone, which may not be evicted.
    cluster.kubectl(&["-n", ISTIO_SYSTEM, "delete", "poddisruptionbudget", "--all"])?;
    cluster.kubectl(&[
        "drain",
        "node2",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=180s",
    ])?;
    let left = cluster.status(2)?;
    ensure!(left.pointer("/workloads").and_then(Value::as_array).is_some_and(Vec::is_empty), "{left}");
    cluster.kubectl(&["uncordon", "node2"])?;
    nothing_failed(load, "while the node was drained")
}

fn scale(cluster: &Cluster, namespace: &str, what: &str, replicas: u8) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl(&["-n", namespace, "scale", what, &replicas])?;
    cluster.kubectl(&["-n", namespace, "rollout", "status", what, "--timeout=180s"]).map(drop)
}

fn load(cluster: &Cluster) -> Result<Load> {
    cluster.load("load-http", "shop/client", &call()?)
}

fn nothing_failed(load: Load, when: &str) -> Result<()> {
    let report = load.stop()?;
    ensure!(report.failures() == 0 && report.ok > 100, "{when}: {report:?}");
    Ok(())
}

fn call() -> Result<Call> {
    Ok(Call::new(WEB.parse()?))
}
