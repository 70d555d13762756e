//! Questions from a workstation: to the agent of a node, in its pod, by `kubectl exec`.
//!
//! The agent answers on a Unix socket of the node to root alone, and stays so: nothing of it listens on the network, and who may
//! ask is who may `exec` into its pod. `kubectl` is whatever the operator reaches the cluster with already, with its contexts, its
//! plug-ins that log in, and its proxies.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Which agent of a cluster is asked.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Remote {
    /// Ask the agent of this node of the cluster, by kubectl.
    #[arg(long, conflicts_with_all = ["socket", "pod"])]
    node: Option<String>,
    /// Ask the agent of the node where this pod runs, NAMESPACE/NAME, by kubectl.
    #[arg(long, value_parser = parse_pod, conflicts_with = "socket")]
    pod: Option<Pod>,
    /// The namespace of the agents.
    #[arg(long, default_value = "istio-system")]
    agents: String,
}

#[derive(Debug, Clone)]
struct Pod {
    namespace: String,
    name: String,
}

fn parse_pod(text: &str) -> Result<Pod, String> {
    let (namespace, name) = text.split_once('/').ok_or("not NAMESPACE/NAME")?;
    Ok(Pod { namespace: namespace.to_owned(), name: name.to_owned() })
}

impl Remote {
    /// Becomes the question in the agent's pod, where one is to be asked: then this returns only why it cannot.
    pub(super) fn ask(&self, question: &[&str]) -> anyhow::Result<()> {
        let node = match (&self.node, &self.pod) {
            (Some(node), _) => node.clone(),
            (None, Some(pod)) => node_of(pod)?,
            (None, None) => return Ok(()),
        };
        let agent = self.agent_of(&node)?;
        let mut command = Command::new("kubectl");
        command.args(["--namespace", &self.agents, "exec", &agent, "--", "orlop"]).args(question);
        Err(command.exec()).context("cannot run kubectl, by which the agent of another machine is asked")
    }

    fn agent_of(&self, node: &str) -> anyhow::Result<String> {
        let on_node = format!("spec.nodeName={node}");
        let namespace = ["--namespace", &self.agents];
        let pods: Value =
            get(&[&["pods", "--selector", "app=orlop", "--field-selector", &on_node][..], &namespace]
                .concat())?;
        // While it is replaced there are two, and the one that goes does not answer any more.
        let stays = |pod: &&Value| pod.pointer("/metadata/deletionTimestamp").is_none();
        let name = items(&pods).iter().find(stays).and_then(|pod| pod.pointer("/metadata/name")?.as_str());
        name.map(str::to_owned).with_context(|| {
            format!(
                "no agent runs on node {node:?} (pods of namespace {:?} with the label app=orlop)",
                self.agents
            )
        })
    }
}

fn node_of(Pod { namespace, name }: &Pod) -> anyhow::Result<String> {
    let pod: Value = get(&["pod", "--namespace", namespace, name])?;
    match pod.pointer("/spec/nodeName").and_then(Value::as_str) {
        Some(node) => Ok(node.to_owned()),
        None => bail!("pod {namespace}/{name} runs on no node yet"),
    }
}

/// What `kubectl get` says.
pub(super) fn get<T: DeserializeOwned>(what: &[&str]) -> anyhow::Result<T> {
    let output = Command::new("kubectl")
        .args(["get", "--output", "json"])
        .args(what)
        .output()
        .context("cannot run kubectl, by which the cluster is asked")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl get {}: {}", what.join(" "), said.trim());
    serde_json::from_slice(&output.stdout).with_context(|| format!("kubectl get {}", what.join(" ")))
}

/// What a list lists.
pub(super) fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A field that is text; empty where there is none.
pub(super) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}
