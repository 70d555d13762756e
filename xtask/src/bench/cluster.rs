//! `cargo xtask bench --cluster`: what the mesh costs a pod of a real Kubernetes, beside no mesh and beside a real sidecar in the
//! same run.
//!
//! Two nodes on one machine, so that the figures are worth as much as their ratios: from `apply` to ready, the latency of requests
//! under STRICT on one node and across, what enrolling a node full of pods takes, and what its agent then costs. Each kind of
//! pod takes its turn in every round.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use orlop_integration::cluster::Programs;
use orlop_integration::cluster::objects::{STRICT, list, namespace, pod, service};
use orlop_integration::{Call, Cluster, Reply, until};
use serde::Serialize;
use serde_json::{Value, json};

use super::machine::Machine;
use super::memory::pss_of;

const PATIENCE: Duration = Duration::from_mins(3);
const NODES: [u8; 2] = [1, 2];
/// Pods that are enrolled while they run, on both nodes together.
const MANY: usize = 100;
/// Starts of a pod of each kind.
const STARTS: usize = 7;
/// Rounds of requests, and requests of one.
const ROUNDS: usize = 5;
const REQUESTS: u32 = 500;
/// For how long the idle agent is looked at.
const IDLE: Duration = Duration::from_secs(10);

/// What the project has set itself: over no mesh, and for a node full of pods.
const READY_MS: f64 = 50.0;
const ENROLLED_S: f64 = 5.0;
const AGENT_MB: f64 = 80.0;
const IDLE_PERCENT: f64 = 1.0;

/// Who carries a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    NoMesh,
    Orlop,
    Sidecar,
}

impl Kind {
    const ALL: [Self; 3] = [Self::NoMesh, Self::Orlop, Self::Sidecar];

    fn namespace(self) -> &'static str {
        match self {
            Self::NoMesh => "no-mesh",
            Self::Orlop => "orlop",
            Self::Sidecar => "sidecar",
        }
    }

    fn label(self) -> Value {
        match self {
            Self::NoMesh => json!({}),
            Self::Orlop => json!({"istio.io/dataplane-mode": "orlop"}),
            Self::Sidecar => json!({"istio-injection": "enabled"}),
        }
    }
}

/// Requests on one connection that stays open, or on a new one each.
#[derive(Debug, Serialize)]
struct Latency {
    kind: Kind,
    way: &'static str,
    new_connections: bool,
    p50_us: f64,
}

/// Everything that one run came to.
#[derive(Debug, Serialize)]
pub(super) struct InCluster {
    machine: Machine,
    /// Seconds from `kubectl apply` to ready, the median, of each kind.
    ready_s: Vec<(Kind, f64)>,
    latencies: Vec<Latency>,
    pods: usize,
    /// Seconds from the namespace's label until all are carried.
    enrolled_s: f64,
    /// Of each node's agent then.
    pss_mb: Vec<f64>,
    /// Of a core, in per cent, of each node's agent when nothing happens.
    idle_percent: Vec<f64>,
}

/// Brings a cluster up and measures in it.
pub(super) fn measure(machine: Machine) -> Result<InCluster> {
    let cluster = Cluster::start(Programs::prepared()?.with_sidecars()?)?;
    cluster.install_istio_with_sidecars()?;
    cluster.install_orlop()?;
    for kind in Kind::ALL {
        deploy(&cluster, kind)?;
    }
    let ready_s = starts(&cluster)?;
    let latencies = latencies(&cluster)?;
    let enrolled_s = enrol_many(&cluster)?;
    let pss = |node| pss_of(&of_agent(&cluster, node, "cat /proc/$agent/smaps_rollup")?);
    let pss_mb = NODES.map(pss).into_iter().collect::<Result<_>>()?;
    let times = || NODES.map(|node| cpu_time(&cluster, node)).into_iter().collect::<Result<Vec<_>>>();
    let before = times()?;
    sleep(IDLE);
    let used = times()?.into_iter().zip(before).map(|(after, before)| after.saturating_sub(before));
    let idle_percent = used.map(|used| used.as_secs_f64() / IDLE.as_secs_f64() * 100.0).collect();
    Ok(InCluster { machine, ready_s, latencies, pods: MANY, enrolled_s, pss_mb, idle_percent })
}

/// A client on the first node, and a server on each, under STRICT where that means something.
fn deploy(cluster: &Cluster, kind: Kind) -> Result<()> {
    let name = kind.namespace();
    cluster.apply(&namespace(name, &kind.label()).to_string())?;
    let mut objects = vec![pod("client", &json!({}), 1, &["pause"])];
    for node in NODES {
        let (server, labels) = (format!("server-{node}"), json!({"app": format!("server-{node}")}));
        objects.push(pod(&server, &labels, node, &["echo-http", "--name", &server, "--port", "8080"]));
        objects.push(service(&server, &labels));
    }
    cluster.apply_in(name, &list(&objects))?;
    if kind != Kind::NoMesh {
        cluster.apply_in(name, STRICT)?;
    }
    ready(cluster, name, &["pod", "--all"])
}

fn ready(cluster: &Cluster, namespace: &str, what: &[&str]) -> Result<()> {
    let wait = ["-n", namespace, "wait", "--for=condition=Ready", "--timeout=180s"];
    cluster.kubectl(&[&wait, what].concat()).map(drop)
}

fn starts(cluster: &Cluster) -> Result<Vec<(Kind, f64)>> {
    let mut taken = Kind::ALL.map(|kind| (kind, Vec::new()));
    for round in 0..STARTS {
        for (kind, taken) in &mut taken {
            let name = format!("start-{round}");
            let manifest = pod(&name, &json!({}), 2, &["pause"]).to_string();
            let start = Instant::now();
            cluster.apply_in(kind.namespace(), &manifest)?;
            ready(cluster, kind.namespace(), &["pod", &name])?;
            taken.push(start.elapsed().as_secs_f64());
            cluster.kubectl(&["-n", kind.namespace(), "delete", "pod", &name])?;
        }
    }
    taken.into_iter().map(|(kind, taken)| Ok((kind, median(taken)?))).collect()
}

fn latencies(cluster: &Cluster) -> Result<Vec<Latency>> {
    let mut measured = Vec::new();
    for (server, way) in [("server-1", "on one node"), ("server-2", "across nodes")] {
        for new_connections in [false, true] {
            let mut taken = Kind::ALL.map(|kind| (kind, Vec::new()));
            for _ in 0..ROUNDS {
                for (kind, taken) in &mut taken {
                    let call =
                        Call { times: REQUESTS, fresh: new_connections, ..call(cluster, *kind, server)? };
                    let replies = cluster.http(&format!("{}/client", kind.namespace()), &call)?;
                    ensure!(
                        replies.iter().all(|reply| reply.status == 200),
                        "a request failed: {:?}",
                        replies.last()
                    );
                    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 µs")]
                    let us = |reply: &Reply| (reply.connect_us + reply.us) as f64;
                    taken.push(median(replies.iter().map(us).collect())?);
                }
            }
            for (kind, taken) in taken {
                measured.push(Latency { kind, way, new_connections, p50_us: median(taken)? });
            }
        }
    }
    Ok(measured)
}

fn call(cluster: &Cluster, kind: Kind, server: &str) -> Result<Call> {
    let service = cluster.get(&["-n", kind.namespace(), "service", server])?;
    let address = service.pointer("/spec/clusterIP").and_then(Value::as_str).context("no address")?;
    let mut call = Call::new(SocketAddr::new(address.parse()?, 80));
    call.headers.insert("host".to_owned(), format!("{server}.{}.svc.cluster.local", kind.namespace()));
    Ok(call)
}

/// Pods that run are enrolled at once; how long until all of them are carried.
fn enrol_many(cluster: &Cluster) -> Result<f64> {
    let carried = |cluster: &Cluster| -> Result<usize> {
        let mut carried = 0;
        for node in NODES {
            let status = cluster.status(node)?;
            let workloads = status.get("workloads").and_then(Value::as_array).context("no workloads")?;
            let ready = |workload: &&Value| workload.get("ready").and_then(Value::as_bool) == Some(true);
            carried += workloads.iter().filter(ready).count();
        }
        Ok(carried)
    };
    let before = carried(cluster)?;
    cluster.kubectl(&["create", "namespace", "many"])?;
    let pods: Vec<_> = (1..=MANY)
        .map(|n| pod(&format!("pod-{n}"), &json!({}), if n % 2 == 0 { 1 } else { 2 }, &["pause"]))
        .collect();
    cluster.apply_in("many", &json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string())?;
    ready(cluster, "many", &["pod", "--all"])?;
    let start = Instant::now();
    cluster.kubectl(&["label", "namespace", "many", "istio.io/dataplane-mode=orlop"])?;
    until("all to be carried", PATIENCE, || Ok((carried(cluster)? == before + MANY).then_some(())))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Runs a shell's line on a node about the process of its agent, `$agent`.
fn of_agent(cluster: &Cluster, node: u8, line: &str) -> Result<String> {
    let script = format!("agent=$(pgrep -n -f '^/usr/local/bin/orlop agent') && {line}");
    let output = cluster.node_command(node)?.args(["sh", "-c", &script]).output()?;
    ensure!(output.status.success(), "node {node}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Time on a processor of all threads of a node's agent, from the scheduler's own account.
fn cpu_time(cluster: &Cluster, node: u8) -> Result<Duration> {
    let threads = of_agent(cluster, node, "cat /proc/$agent/task/*/schedstat")?;
    let nanoseconds = threads.lines().filter_map(|line| line.split(' ').next()?.parse::<u64>().ok());
    Ok(Duration::from_nanos(nanoseconds.sum()))
}

fn median(mut values: Vec<f64>) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("nothing was measured")
}

impl InCluster {
    /// Writes `cluster.json` into `dir`.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        Ok(fs::write(dir.join("cluster.json"), serde_json::to_vec_pretty(self)?)?)
    }
}

impl fmt::Display for InCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | no mesh | Orlop | sidecar | goal | |\n|---|---|---|---|---|---|")?;
        let verdict = |met: bool| if met { "met" } else { "missed" };
        let of = |kind| self.ready_s.iter().find(|(of, _)| *of == kind).map_or(f64::NAN, |(_, s)| *s);
        let [none, orlop, sidecar] = Kind::ALL.map(of);
        let met = verdict((orlop - none) * 1000.0 <= READY_MS);
        writeln!(
            f,
            "| apply → ready, s | {none:.2} | {orlop:.2} | {sidecar:.2} | no mesh + {READY_MS} ms | {met} |"
        )?;
        for three in self.latencies.chunks(Kind::ALL.len()) {
            let Some(Latency { way, new_connections, .. }) = three.first() else { continue };
            let connection = if *new_connections { "a new connection" } else { "one connection" };
            write!(f, "| request {way}, {connection}, p50 µs |")?;
            three.iter().try_for_each(|latency| write!(f, " {:.0} |", latency.p50_us))?;
            writeln!(f, " | |")?;
        }
        let mut line = |what: &str, values: &[f64], unit: &str, goal: f64| {
            let said = values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(", ");
            let met = verdict(values.iter().all(|value| *value <= goal));
            writeln!(f, "| {what}, {unit} | | {said} | | ≤ {goal} | {met} |")
        };
        let pods = self.pods;
        line(
            &format!("{pods} running pods on two nodes, label → all carried"),
            &[self.enrolled_s],
            "s",
            ENROLLED_S,
        )?;
        line("— each node's agent, PSS", &self.pss_mb, "MB", AGENT_MB)?;
        line("— each node's agent when nothing happens", &self.idle_percent, "% of a core", IDLE_PERCENT)
    }
}
