//! `orlop migrate NAMESPACE`: from sidecars to the agents, and back, by kubectl.
//!
//! What injects is taken off the namespace and what enrols is put on in one edit; then one workload after another is restarted
//! as its own rollout strategy says. On the way back, what enrols goes last. A pod with a sidecar and one without reach each other, so that there is no moment at which the
//! namespace has to be changed at once. Any failure leaves it where it is, half-way, which works; `--undo` goes back.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::kubectl::{get, items, text};

/// What injects sidecars, for the namespace.
const INJECTION: [&str; 2] = ["istio-injection", "istio.io/rev"];
/// What asks for a sidecar, or refuses it, on a pod.
const POD_INJECTION: &str = "sidecar.istio.io/inject";
const ENROLMENT: &str = "istio.io/dataplane-mode";
/// On the namespace: the label by which it was injected, as KEY=VALUE, for the way back.
const BEFORE: &str = "orlop/injected-by";
/// The label that says that a pod speaks mutual TLS: the agent's word that a pod is carried.
const CARRIED: &str = "/metadata/labels/security.istio.io~1tlsMode";
/// What is restarted, as kubectl calls it.
const RESTARTED: [&str; 3] = ["deployment", "statefulset", "daemonset"];
const SIDECAR: &str = "istio-proxy";
/// For the pods to be as they are to be once all have been restarted.
const SETTLED: Duration = Duration::from_mins(2);

/// What is to be done.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose pods.
    namespace: String,
    /// Back to sidecars.
    #[arg(long)]
    undo: bool,
    /// The namespace of the agents.
    #[arg(long, default_value = "istio-system")]
    agents: String,
    /// For how long one workload's rollout may take, in seconds.
    #[arg(long, default_value_t = 600)]
    timeout: u32,
}

/// What a pod has of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mesh {
    Sidecar,
    Orlop,
    Neither,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let namespace: Value = get(&["namespace", &args.namespace])?;
    let labels = if args.undo { back(&namespace)? } else { forth(&namespace)? };
    let workloads = workloads(&args.namespace)?;
    if !args.undo {
        agents_are_ready(&args.agents)?;
        if let Some(asking) = workloads.iter().find_map(asks_for_itself) {
            bail!(
                "{asking} asks for a sidecar itself (label {POD_INJECTION}): take that off its pods' template first"
            );
        }
    }
    if !args.undo
        && let Some(before) = injected_by(&namespace)
    {
        kubectl(&["annotate", "--overwrite", "namespace", &args.namespace, &format!("{BEFORE}={before}")])?;
    }
    let mut label = vec!["label", "--overwrite", "namespace", &args.namespace];
    label.extend(labels.iter().map(String::as_str));
    kubectl(&label)?;
    println!("namespace {} is labelled {}", args.namespace, labels.join(" "));
    for workload in workloads.iter().map(name) {
        println!("{workload} is restarted");
        kubectl(&["--namespace", &args.namespace, "rollout", "restart", &workload])?;
        let timeout = format!("--timeout={}s", args.timeout);
        kubectl(&["--namespace", &args.namespace, "rollout", "status", &workload, &timeout]).with_context(
            || format!("{workload} is not through; what runs goes on as it is, and {}", way_out(args)),
        )?;
    }
    let wanted = if args.undo { Mesh::Sidecar } else { Mesh::Orlop };
    let alone = settle(args, wanted)?;
    if args.undo {
        kubectl(&["label", "namespace", &args.namespace, &format!("{ENROLMENT}-")])?;
        kubectl(&["annotate", "namespace", &args.namespace, &format!("{BEFORE}-")])?;
    }
    if !alone.is_empty() {
        let now = if args.undo { "out of the mesh now" } else { "as they were" };
        println!("restarted by nobody, and {now}: {alone}");
    }
    Ok(())
}

fn way_out(Args { namespace, undo, .. }: &Args) -> String {
    let (other, flag) = if *undo { ("forth", "") } else { ("back", " --undo") };
    format!("`orlop migrate {namespace}{flag}` goes {other}")
}

/// The edit that takes the namespace to the agents.
fn forth(namespace: &Value) -> anyhow::Result<Vec<String>> {
    let name = text(namespace, "/metadata/name");
    let mode = label(namespace, ENROLMENT);
    ensure!(
        matches!(mode, "" | "none" | "orlop"),
        "namespace {name} has the label {ENROLMENT}: {mode:?}, which is another mesh's"
    );
    // Half-way is where it goes on.
    ensure!(
        injected_by(namespace).is_some() || mode == "orlop",
        "nothing injects sidecars into namespace {name} (labels {}); the label {ENROLMENT}=orlop alone enrols it",
        INJECTION.join(", ")
    );
    let mut labels: Vec<_> = INJECTION.iter().map(|label| format!("{label}-")).collect();
    labels.push(format!("{ENROLMENT}=orlop"));
    Ok(labels)
}

/// The edit that brings it back to sidecars. What runs is carried until it is replaced: its enrolment goes last.
fn back(namespace: &Value) -> anyhow::Result<Vec<String>> {
    let key = format!("/metadata/annotations/{}", BEFORE.replace('/', "~1"));
    let before = match text(namespace, &key) {
        "" => injected_by(namespace).with_context(|| {
            let name = text(namespace, "/metadata/name");
            format!("namespace {name} does not say what injected sidecars (annotation {BEFORE}): it was not migrated")
        })?,
        before => before.to_owned(),
    };
    Ok(vec![before])
}

fn injected_by(namespace: &Value) -> Option<String> {
    let labels = INJECTION.map(|key| (key, label(namespace, key)));
    let (key, value) = labels.into_iter().find(|(_, value)| !value.is_empty())?;
    (value != "disabled").then(|| format!("{key}={value}"))
}

fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    text(object, &format!("/metadata/labels/{}", key.replace('/', "~1")))
}

fn agents_are_ready(namespace: &str) -> anyhow::Result<()> {
    let sets: Value = get(&["daemonsets", "--namespace", namespace, "--selector", "app=orlop"])?;
    let set = items(&sets)
        .first()
        .with_context(|| format!("no agents in namespace {namespace:?}: install them first"))?;
    let count = |field: &str| set.pointer(&format!("/status/{field}")).and_then(Value::as_u64);
    let (wanted, ready) = (count("desiredNumberScheduled"), count("numberReady"));
    ensure!(
        wanted.is_some_and(|wanted| wanted > 0) && wanted == ready,
        "{} of {} agents are ready; `orlop status --node NODE` says why",
        ready.unwrap_or_default(),
        wanted.unwrap_or_default()
    );
    Ok(())
}

fn workloads(namespace: &str) -> anyhow::Result<Vec<Value>> {
    let list: Value = get(&[&RESTARTED.join(","), "--namespace", namespace])?;
    Ok(items(&list).to_vec())
}

/// "deployment/web"
fn name(workload: &Value) -> String {
    format!("{}/{}", text(workload, "/kind").to_lowercase(), text(workload, "/metadata/name"))
}

fn asks_for_itself(workload: &Value) -> Option<String> {
    let template = workload.pointer("/spec/template")?;
    (label(template, POD_INJECTION) == "true").then(|| name(workload))
}

/// Waits until the pods are as they are to be. Returns the names of those that nobody restarts.
fn settle(args: &Args, wanted: Mesh) -> anyhow::Result<String> {
    let deadline = Instant::now() + SETTLED;
    loop {
        let pods: Value = get(&["pods", "--namespace", &args.namespace])?;
        let pods = items(&pods).iter().filter(|pod| is_to_stay(pod));
        let (settled, others): (Vec<&Value>, Vec<&Value>) = pods.partition(|pod| mesh(pod) == wanted);
        // Those that nobody restarts keep what they have.
        let (alone, waiting): (Vec<&Value>, Vec<&Value>) =
            others.into_iter().partition(|pod| !is_restarted(pod));
        let names = |pods: &[&Value]| {
            pods.iter().map(|pod| text(pod, "/metadata/name")).collect::<Vec<_>>().join(", ")
        };
        if waiting.is_empty() {
            println!("{} pods of {} are {}", settled.len(), args.namespace, wanted.describe());
            return Ok(names(&alone));
        }
        ensure!(
            Instant::now() < deadline,
            "not {}: {}; `kubectl describe` shows why, and {}",
            wanted.describe(),
            names(&waiting),
            way_out(args)
        );
        sleep(Duration::from_secs(1));
    }
}

fn is_to_stay(pod: &Value) -> bool {
    let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
    !ended && pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// Whether it belongs to what has been restarted.
fn is_restarted(pod: &Value) -> bool {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let in_the_nodes_network = pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
    let mut kinds = owners.map(|owner| text(owner, "/kind"));
    !in_the_nodes_network && kinds.any(|kind| matches!(kind, "ReplicaSet" | "StatefulSet" | "DaemonSet"))
}

fn mesh(pod: &Value) -> Mesh {
    let containers = ["/spec/containers", "/spec/initContainers"];
    let mut containers = containers.iter().filter_map(|path| pod.pointer(path)?.as_array()).flatten();
    if containers.any(|container| text(container, "/name") == SIDECAR) {
        Mesh::Sidecar
    } else if text(pod, CARRIED) == "istio" {
        Mesh::Orlop
    } else {
        Mesh::Neither
    }
}

impl Mesh {
    fn describe(self) -> &'static str {
        match self {
            Self::Sidecar => "in the mesh by a sidecar",
            Self::Orlop => "in the mesh by the node's agent",
            Self::Neither => "not in the mesh",
        }
    }
}

fn kubectl(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("kubectl").args(arguments).output().context("cannot run kubectl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(labels: &Value, annotations: &Value) -> Value {
        json!({"metadata": {"name": "shop", "labels": labels, "annotations": annotations}})
    }

    #[test]
    fn what_injects_goes_and_comes_back_as_it_was() {
        let injected = namespace(&json!({"istio.io/rev": "canary"}), &json!({}));
        assert_eq!(
            forth(&injected).unwrap(),
            ["istio-injection-", "istio.io/rev-", "istio.io/dataplane-mode=orlop"]
        );
        assert_eq!(injected_by(&injected).as_deref(), Some("istio.io/rev=canary"));

        let migrated = json!({"istio.io/dataplane-mode": "orlop"});
        let migrated = namespace(&migrated, &json!({BEFORE: "istio.io/rev=canary"}));
        assert_eq!(back(&migrated).unwrap(), ["istio.io/rev=canary"]);
    }

    #[test]
    fn a_migration_that_stopped_half_way_goes_on() {
        let half_way = namespace(&json!({"istio.io/dataplane-mode": "orlop"}), &json!({}));
        assert!(forth(&half_way).is_ok());
    }

    #[test]
    fn a_namespace_that_is_not_injected_or_anothers_is_refused() {
        let plain = namespace(&json!({"istio-injection": "disabled"}), &json!({}));
        assert!(forth(&plain).unwrap_err().to_string().contains("nothing injects sidecars"));
        assert!(back(&plain).unwrap_err().to_string().contains("it was not migrated"));
        let ambient = json!({"istio-injection": "enabled", "istio.io/dataplane-mode": "ambient"});
        assert!(forth(&namespace(&ambient, &json!({}))).unwrap_err().to_string().contains("another mesh's"));
    }

    #[test]
    fn pods_that_nobody_restarts_are_told_apart() {
        let of = |kind: &str| json!({"metadata": {"ownerReferences": [{"kind": kind}]}, "spec": {}});
        assert!(is_restarted(&of("ReplicaSet")));
        assert!(!is_restarted(&of("Job")));
        assert!(!is_restarted(&json!({"metadata": {}, "spec": {}})));
    }

    #[test]
    fn a_native_sidecar_is_one() {
        let native =
            json!({"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "istio-proxy"}]}});
        assert_eq!(mesh(&native), Mesh::Sidecar);
        let carried = json!({"metadata": {"labels": {"security.istio.io/tlsMode": "istio"}}, "spec": {"containers": []}});
        assert_eq!(mesh(&carried), Mesh::Orlop);
    }
}
