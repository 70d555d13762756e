//! A pod's first process finds the mesh there: the CNI plug-in holds the pod until it is carried.
//!
//! In a namespace under STRICT, pods whose only process connects at once, and does nothing else. What it is answered shows
//! whether it was captured: plaintext is refused.

#![expect(clippy::indexing_slicing, reason = "a manifest that is not as expected fails the test")]

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::{ISTIO_SYSTEM, Programs, objects};
use orlop_integration::{Call, Cluster, Reply, until};
use serde_json::{Value, json};

const WEB: &str = "10.96.0.80:80";
const PATIENCE: Duration = Duration::from_mins(1);
const MESH: &str = include_str!("cluster_start/mesh.yaml");
const PLUGIN: &str = "orlop-cni";
/// Where agents run, as a patch of their `DaemonSet`.
const NOT_HERE: &str =
    r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":"node2"}}}}}"#;
const EVERYWHERE: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":{"kubernetes.io/hostname":null}}}}}"#;

#[test]
fn a_pod_is_carried_before_its_first_process_runs() -> Result<()> {
    let cluster = Cluster::start(Programs::prepared()?)?;
    cluster.install_istio()?;
    cluster.install_orlop()?;
    until("the plug-in to be in the chains", PATIENCE, || Ok(is_installed(&cluster)?.then_some(())))?;
    cluster.apply(MESH)?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
    until("the service to answer in the mesh", PATIENCE, || {
        let replies = cluster.http("shop/client", &Call::new(WEB.parse()?))?;
        Ok(replies.iter().all(|reply| reply.status == 200).then_some(()))
    })?;

    for n in 0..10 {
        let name = format!("hasty-{n}");
        start_hasty(&cluster, &name, &json!({}))?;
        let reply = what_came_of(&cluster, &name)?;
        ensure!(reply.status == 200, "{name} was not captured: {reply:?}");
    }

    what_is_wrong_with_a_pod_is_said_on_it(&cluster)?;
    another_writer_of_the_chain_does_not_drop_the_plug_in(&cluster)?;
    while_the_agent_is_away_a_pod_waits_for_it(&cluster)?;
    where_the_operator_says_so_a_pod_goes_on_without_the_agent(&cluster)?;

    cluster.uninstall_orlop()?;
    until("the nodes to be clean", PATIENCE, || {
        let [chains, programs] = cluster.cni_folders(1);
        ensure!(!fs::read_to_string(chain(&chains)?)?.contains(PLUGIN), "the chain still names the plug-in");
        ensure!(!programs.join(PLUGIN).exists(), "the program is still there");
        Ok((!is_installed(&cluster)?).then_some(()))
    })?;
    start_hasty(&cluster, "after", &json!({}))?;
    let reply = what_came_of(&cluster, "after")?;
    ensure!(reply.error.is_none(), "without a mesh there is nothing to hold a pod back: {reply:?}");
    Ok(())
}

fn what_is_wrong_with_a_pod_is_said_on_it(cluster: &Cluster) -> Result<()> {
    let pod = pod("mistaken", &json!({"istio.io/dataplane-mode": "orlob"}), &["pause"]);
    cluster.apply(&pod.to_string())?;
    let event = event(cluster, "mistaken", "NotCarried")?;
    ensure!(event.contains("\"orlob\" is not known"), "{event}");
    Ok(())
}

/// What the only event of that kind on a pod says.
fn event(cluster: &Cluster, pod: &str, reason: &str) -> Result<String> {
    until(&format!("an event on {pod}"), PATIENCE, || {
        let regarding = format!("involvedObject.name={pod},reason={reason}");
        let events = cluster.get(&["events", "-n", "shop", "--field-selector", &regarding])?;
        let events = events.get("items").and_then(Value::as_array).context("no list of events")?;
        ensure!(events.len() < 2, "the same is said several times: {events:?}");
        let message = events.first().and_then(|event| event.get("message")?.as_str());
        Ok(message.map(str::to_owned))
    })
}

fn another_writer_of_the_chain_does_not_drop_the_plug_in(cluster: &Cluster) -> Result<()> {
    let [chains, _] = cluster.cni_folders(1);
    let path = chain(&chains)?;
    let mut list: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let plugins = list.get_mut("plugins").and_then(Value::as_array_mut).context("no plugins")?;
    plugins.retain(|plugin| plugin.get("type").and_then(Value::as_str) != Some(PLUGIN));
    fs::write(&path, list.to_string())?;
    until("the plug-in to be back in the chain", PATIENCE, || Ok(is_installed(cluster)?.then_some(())))
}

/// The plug-in stays when an agent goes and the `DaemonSet` does not, as in an upgrade that goes wrong.
fn while_the_agent_is_away_a_pod_waits_for_it(cluster: &Cluster) -> Result<()> {
    take_the_agent_away(cluster)?;
    start_hasty(cluster, "patient", &json!({}))?;
    std::thread::sleep(Duration::from_secs(3));
    let phase = cluster.get(&["pod", "-n", "shop", "patient"])?;
    let phase = phase.pointer("/status/phase").and_then(Value::as_str);
    ensure!(phase == Some("Pending"), "it runs though nothing could capture it: {phase:?}");
    patch(cluster, EVERYWHERE)?;
    let reply = what_came_of(cluster, "patient")?;
    ensure!(reply.status == 200, "it was not captured: {reply:?}");
    Ok(())
}

fn where_the_operator_says_so_a_pod_goes_on_without_the_agent(cluster: &Cluster) -> Result<()> {
    cluster.configure_orlop("cni.whenAway=direct,cni.timeoutSeconds=1")?;
    until("the chain to say so", PATIENCE, || {
        let [chains, _] = cluster.cni_folders(1);
        Ok(fs::read_to_string(chain(&chains)?)?.contains("direct").then_some(()))
    })?;
    take_the_agent_away(cluster)?;
    start_hasty(cluster, "impatient", &json!({}))?;
    let reply = what_came_of(cluster, "impatient")?;
    ensure!(reply.error.is_some(), "plaintext was let in: {reply:?}");
    patch(cluster, EVERYWHERE)?;
    let event = event(cluster, "impatient", "StartedDirect")?;
    ensure!(event.contains("no agent answers"), "{event}");
    Ok(())
}

fn take_the_agent_away(cluster: &Cluster) -> Result<()> {
    patch(cluster, NOT_HERE)?;
    let here = ["-l", "app=orlop", "--field-selector", "spec.nodeName=node1", "--timeout=60s"];
    cluster.kubectl(&[&["-n", ISTIO_SYSTEM, "wait", "--for=delete", "pod"], &here[..]].concat()).map(drop)
}

fn patch(cluster: &Cluster, patch: &str) -> Result<()> {
    cluster.kubectl(&["-n", ISTIO_SYSTEM, "patch", "daemonset", "orlop", "-p", patch]).map(drop)
}

fn is_installed(cluster: &Cluster) -> Result<bool> {
    let mut installed = true;
    for node in [1, 2] {
        let [chains, programs] = cluster.cni_folders(node);
        let text = fs::read_to_string(chain(&chains)?)?;
        installed &= text.contains(PLUGIN) && programs.join(PLUGIN).exists();
    }
    Ok(installed)
}

fn chain(folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let entry = fs::read_dir(folder)?.next().context("no chain")??;
    Ok(entry.path())
}

/// A pod whose only process sends one request and ends.
fn start_hasty(cluster: &Cluster, name: &str, labels: &Value) -> Result<()> {
    let to: SocketAddr = WEB.parse()?;
    let call = serde_json::to_string(&Call { timeout_ms: 5000, ..Call::new(to) })?;
    cluster.apply(&pod(name, labels, &["http", &call]).to_string())
}

fn pod(name: &str, labels: &Value, arguments: &[&str]) -> Value {
    let mut pod = objects::pod(name, labels, 1, arguments);
    pod["metadata"]["namespace"] = json!("shop");
    pod["spec"]["restartPolicy"] = json!("Never");
    pod
}

fn what_came_of(cluster: &Cluster, name: &str) -> Result<Reply> {
    until(&format!("{name} to end"), PATIENCE * 2, || {
        let pod = cluster.get(&["pod", "-n", "shop", name])?;
        let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
        Ok(matches!(phase, "Succeeded" | "Failed").then_some(()))
    })
    .with_context(|| cluster.orlop(1, &["status"]).unwrap_or_default())?;
    let replies: Vec<Reply> = serde_json::from_str(&cluster.kubectl(&["-n", "shop", "logs", name])?)?;
    replies.into_iter().next().context("no reply")
}
