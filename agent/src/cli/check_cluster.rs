//! `orlop check --cluster`: what of a cluster is ready for the agents, asked by kubectl before they are installed.
//!
//! What each node's kernel can do in fact, `orlop check` says there; from here its release is known.

use std::fmt;
use std::process::{Command, ExitCode};

use serde::Serialize;
use serde_json::Value;

use super::kubectl::{self, items, text};

/// The first kernel that has all that is needed.
const FIRST_KERNEL: (u32, u32) = (5, 18);
/// Runtimes whose sandboxes the agent can read.
const RUNTIMES: [&str; 2] = ["containerd", "cri-o"];
/// Whom a stock istiod trusts to ask for its node's certificates.
const ACCOUNT: &str = "ztunnel";
/// Its setting for that.
const TRUSTED: &str = "CA_TRUSTED_NODE_ACCOUNTS";
/// What the chart makes.
const MADE: [(&str, bool); 7] = [
    ("daemonsets.apps", true),
    ("configmaps", true),
    ("serviceaccounts", true),
    ("roles.rbac.authorization.k8s.io", true),
    ("rolebindings.rbac.authorization.k8s.io", true),
    ("clusterroles.rbac.authorization.k8s.io", false),
    ("clusterrolebindings.rbac.authorization.k8s.io", false),
];
/// `DaemonSet`s that tell what else is on the nodes, by a part of their names, and what to know of it.
const NEIGHBOURS: [(&str, &str); 4] = [
    (
        "ztunnel",
        "Istio's ambient mode is there: its pods are left alone; its service account is the one that the chart wants, so give the chart another (serviceAccount.name) and istiod its name (trustedZtunnelName)",
    ),
    (
        "istio-cni",
        "Istio's CNI plug-in is there: it redirects pods with sidecars, and those of ambient; Orlop leaves both alone",
    ),
    (
        "cilium",
        "Cilium is there: where it balances services at the socket (bpf-lb-sock), it has to leave pods' own connections alone (socketLB.hostNamespaceOnly: true)",
    ),
    ("linkerd", "Linkerd is there: keep it and Orlop off the same namespaces"),
];

/// How much is in a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Weight {
    Good,
    /// To be known before.
    Note,
    /// It will not work.
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    weight: Weight,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.weight {
            Weight::Good => "yes    ",
            Weight::Note => "note   ",
            Weight::Missing => "MISSING",
        };
        write!(f, "{mark}  {}", self.what)
    }
}

fn finding(weight: Weight, what: impl Into<String>) -> Finding {
    Finding { weight, what: what.into() }
}

pub(super) fn run(namespace: &str, json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = Vec::new();
    findings.extend(items(&kubectl::get(&["nodes"])?).iter().map(node));
    findings.extend(items(&kubectl::get(&["daemonsets", "--all-namespaces"])?).iter().filter_map(neighbour));
    let istiods = kubectl::get(&["deployments", "--namespace", namespace, "--selector", "app=istiod"])?;
    findings.extend(control_planes(items(&istiods), namespace));
    findings.extend(items(&kubectl::get(&["runtimeclasses"])?).iter().map(runtime_class));
    for (kind, namespaced) in MADE {
        findings.extend(may_create(kind, namespaced.then_some(namespace))?);
    }
    let usable = findings.iter().all(|finding| finding.weight != Weight::Missing);
    if json {
        let answer = serde_json::json!({"usable": usable, "findings": findings});
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        for finding in &findings {
            println!("{finding}");
        }
        let verdict = if usable { "can carry Orlop" } else { "lacks what Orlop needs" };
        println!(
            "This cluster {verdict}, as far as can be seen from here; `orlop check` on a node sees its kernel."
        );
    }
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Kernel, runtime and system of a node.
fn node(node: &Value) -> Finding {
    let name = text(node, "/metadata/name");
    let info = |field: &str| text(node, &format!("/status/nodeInfo/{field}"));
    let (system, kernel, runtime) =
        (info("operatingSystem"), info("kernelVersion"), info("containerRuntimeVersion"));
    if system != "linux" {
        return finding(Weight::Note, format!("node {name}: {system}; the agents run on Linux alone"));
    }
    match release(kernel) {
        Some(release) if release >= FIRST_KERNEL => {}
        _ => {
            let (major, minor) = FIRST_KERNEL;
            return finding(
                Weight::Missing,
                format!("node {name}: kernel {kernel:?}; Linux {major}.{minor} or later is needed"),
            );
        }
    }
    if !RUNTIMES.iter().any(|known| runtime.starts_with(&format!("{known}://"))) {
        let known = RUNTIMES.join(" or ");
        return finding(Weight::Missing, format!("node {name}: runtime {runtime:?}; {known} is needed"));
    }
    finding(Weight::Good, format!("node {name}: kernel {kernel}, {runtime}"))
}

/// "6.8.0-45-generic" is 6.8.
fn release(kernel: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn neighbour(daemon_set: &Value) -> Option<Finding> {
    let name = text(daemon_set, "/metadata/name");
    let (_, note) = NEIGHBOURS.iter().find(|(part, _)| name.contains(part))?;
    let namespace = text(daemon_set, "/metadata/namespace");
    Some(finding(Weight::Note, format!("DaemonSet {namespace}/{name}: {note}")))
}

/// What istiod is set to, of what the agents depend on.
fn control_planes(istiods: &[Value], namespace: &str) -> Vec<Finding> {
    if istiods.is_empty() {
        let what = format!("no istiod in namespace {namespace} (Deployments with the label app=istiod)");
        return vec![finding(Weight::Missing, what)];
    }
    istiods.iter().map(|istiod| control_plane(istiod, namespace)).collect()
}

fn control_plane(istiod: &Value, namespace: &str) -> Finding {
    let name = text(istiod, "/metadata/name");
    let containers = istiod.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let settings = containers.into_iter().flatten().filter_map(|c| c.get("env")?.as_array()).flatten();
    let trusted = settings.clone().find(|setting| text(setting, "/name") == TRUSTED);
    let trusted = trusted.map(|setting| text(setting, "/value")).unwrap_or_default();
    let revision = text(istiod, "/metadata/labels/istio.io~1rev");
    let as_revision = if matches!(revision, "" | "default") {
        String::new()
    } else {
        format!(" (revision {revision:?}: set the chart's istiod.revision)")
    };
    let wanted = format!("{namespace}/{ACCOUNT}");
    if trusted.split(',').any(|account| account.trim() == wanted) {
        let what = format!("{name} trusts {wanted} to ask for the certificates of its node{as_revision}");
        return finding(Weight::Good, what);
    }
    finding(
        Weight::Note,
        format!(
            "{name} trusts {trusted:?} ({TRUSTED}), not {wanted}{as_revision}: name the chart's service account there, \
             or set the chart's serviceAccount.podTokens"
        ),
    )
}

fn runtime_class(class: &Value) -> Finding {
    let (name, handler) = (text(class, "/metadata/name"), text(class, "/handler"));
    finding(
        Weight::Note,
        format!(
            "RuntimeClass {name} ({handler}): pods of it are captured a moment after they start; where it is a \
             kernel of their own (gVisor, Kata), not at all"
        ),
    )
}

/// Whether whoever asks may install the chart.
fn may_create(kind: &str, namespace: Option<&str>) -> anyhow::Result<Option<Finding>> {
    let mut command = Command::new("kubectl");
    command.args(["auth", "can-i", "create", kind]);
    command.args(namespace.into_iter().flat_map(|namespace| ["--namespace", namespace]));
    let answer = command.output()?.stdout;
    let allowed = String::from_utf8_lossy(&answer).trim() == "yes";
    let missing = || finding(Weight::Missing, format!("you may not create {kind}, which the chart does"));
    Ok((!allowed).then(missing))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described(kernel: &str, runtime: &str) -> Finding {
        node(&json!({
            "metadata": {"name": "node1"},
            "status": {"nodeInfo": {
                "operatingSystem": "linux", "kernelVersion": kernel, "containerRuntimeVersion": runtime,
            }},
        }))
    }

    #[test]
    fn a_node_needs_a_kernel_and_a_runtime_that_are_known() {
        assert_eq!(described("6.8.0-45-generic", "containerd://1.7.2").weight, Weight::Good);
        assert_eq!(described("5.18.0", "cri-o://1.30.0").weight, Weight::Good);
        let old = described("5.15.0-1-amd64", "containerd://1.7.2");
        assert_eq!(old.weight, Weight::Missing);
        assert!(old.what.contains("5.18 or later is needed"), "{old}");
        assert_eq!(described("odd", "containerd://1.7.2").weight, Weight::Missing);
        assert!(described("6.1.0", "docker://24.0").what.contains("containerd or cri-o is needed"));
    }

    fn istiod(trusted: &str, revision: &str) -> Value {
        let env = json!([{"name": TRUSTED, "value": trusted}]);
        json!({
            "metadata": {"name": "istiod", "labels": {"istio.io/rev": revision}},
            "spec": {"template": {"spec": {"containers": [{"name": "discovery", "env": env}]}}},
        })
    }

    #[test]
    fn whom_istiod_trusts_decides_how_certificates_come() {
        let stock = control_plane(&istiod("other/one, istio-system/ztunnel", "default"), "istio-system");
        assert_eq!(stock.weight, Weight::Good);
        let other = control_plane(&istiod("kube-system/ztunnel", "canary"), "istio-system");
        assert_eq!(other.weight, Weight::Note);
        assert!(other.what.contains("serviceAccount.podTokens"), "{other}");
        assert!(other.what.contains("istiod.revision"), "{other}");
        assert_eq!(control_planes(&[], "istio-system")[0].weight, Weight::Missing);
    }

    #[test]
    fn what_else_is_on_the_nodes_is_named() {
        let set = |name: &str| json!({"metadata": {"name": name, "namespace": "kube-system"}});
        assert!(neighbour(&set("cilium")).unwrap().what.contains("socketLB.hostNamespaceOnly"));
        assert_eq!(neighbour(&set("kube-proxy")), None);
    }
}
