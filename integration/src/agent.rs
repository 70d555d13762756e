//! The agent under test, the program `orlop` as an operator runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::istiod::Istiod;
use crate::pod::Pod;
use crate::process::Process;
use crate::tools::workspace_binary;
use crate::wait::until;

/// Where the agent gets its configuration from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ControlPlane {
    /// The address of an istiod's plaintext xDS port.
    Address(SocketAddr),
    /// A directory of xDS files.
    Directory(PathBuf),
    /// The address of an xDS port with TLS.
    #[serde(untagged, rename_all = "camelCase")]
    Secure {
        /// Host and port.
        address: String,
        /// Who has signed its certificate.
        root_certificate: PathBuf,
    },
}

impl From<&Istiod> for ControlPlane {
    fn from(istiod: &Istiod) -> Self {
        Self::Address(istiod.address())
    }
}

/// A running agent, named as its bed. Killed with this handle; its pins are removed with the bed.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    dir: PathBuf,
    cgroup: PathBuf,
    node: String,
    control_plane: ControlPlane,
    identity: Option<Value>,
    /// The section `proxy` of every `node.yaml`.
    proxy: Value,
    credentials: BTreeMap<String, Value>,
    /// Whose connections pass as probes, in every `node.yaml`, and where all workloads are probed.
    probes: Option<(PathBuf, u16)>,
}

/// What `orlop explain` says about a destination.
#[derive(Debug, Clone, Deserialize)]
pub struct Explanation {
    /// `kernel`, `tcp`, `l7`, `passthrough` or `blocked`.
    pub path: String,
    /// Why, in words.
    pub reason: String,
    /// The resource of the configuration that decided.
    pub resource: String,
    /// And its field; empty for the whole resource.
    pub field: String,
    /// What policies say of whom.
    pub sources: Vec<SourceRule>,
    /// Probes go past all of it.
    pub probed: bool,
}

/// What policies say of some sources.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SourceRule {
    /// A range, of which narrower ones are left out.
    pub sources: String,
    /// `direct`, `proxy`, `proxy-refuses` or `drop`.
    pub action: String,
    /// The same of those that the kernel has seen a workload of the node make, if it is another.
    pub attested: Option<String>,
    /// The policy, in words.
    pub because: String,
}

/// What `orlop status` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// All workloads are ready, and `node.yaml` is in force as it stands.
    pub ready: bool,
    /// Why the newest `node.yaml` is not in force.
    pub config_error: Option<String>,
    /// Why probes are treated as anybody's connections.
    pub probe_problem: Option<String>,
    /// Every workload of `node.yaml`.
    pub workloads: Vec<WorkloadStatus>,
    /// What is kept for an agent that starts without a control plane.
    pub last_good: LastGood,
    /// What its threads may do.
    pub threads: Vec<ThreadGroup>,
}

/// Threads that may do the same.
#[derive(Debug, Clone, Deserialize)]
pub struct ThreadGroup {
    /// Their name, without a number.
    pub name: String,
    /// Without `CAP_`.
    pub capabilities: BTreeSet<String>,
    /// Some system calls are refused.
    pub filtered: bool,
}

/// What `orlop status` says of the configuration on disk.
#[derive(Debug, Clone, Deserialize)]
pub struct LastGood {
    /// When this agent last wrote it.
    pub saved: Option<Value>,
    /// Something has changed that is not on disk yet.
    pub pending: bool,
    /// Workloads that came up with it.
    pub restored: usize,
    /// What is wrong with the file.
    pub problem: Option<String>,
}

/// What `orlop status` says of one workload.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// Its name.
    pub name: String,
    /// The configuration has arrived and is applied.
    pub ready: bool,
    /// Why it is not carried, or not by the newest configuration.
    pub problem: Option<String>,
    /// Why it has no admin interface.
    #[serde(default)]
    pub admin_problem: Option<String>,
    /// Its certificate, where the node keeps certificates.
    pub identity: Option<Identity>,
    /// Resources whose newest version was refused, and why.
    pub rejected: Vec<String>,
    /// Routes that answer 503 because of what they ask for.
    pub refused_routes: Vec<String>,
    /// The state of the stream to the control plane.
    #[serde(default)]
    pub xds: Value,
    /// What its pushes have cost, once there were any.
    #[serde(default)]
    pub work: Option<WorkDone>,
    /// The kernel's counters, while it is carried.
    pub kernel: Option<KernelCounters>,
    /// The proxy's counters, while it is carried.
    pub proxy: Option<ProxyCounters>,
    /// What became of its questions to resolvers, where the node takes them.
    pub dns: Option<DnsCounters>,
}

/// What `orlop status` says of a workload's certificate.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Who it is.
    pub spiffe_id: String,
    /// Of the certificate that it has.
    pub serial_number: Option<String>,
    /// How long that is still valid.
    pub remaining_seconds: Option<u64>,
    /// How many roots it trusts.
    pub roots: usize,
    /// How often it was asked for.
    pub attempts: u64,
    /// Why there is none, or no newer one.
    pub problem: Option<String>,
}

/// What became of a workload's questions to resolvers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct DnsCounters {
    /// Answered from the table.
    pub answered: u64,
    /// Forwarded to whomever it was sent to.
    pub forwarded: u64,
    /// Forwarded without an answer.
    pub failed: u64,
    /// Dropped because it is no query.
    pub malformed: u64,
}

/// The pushes of a workload.
#[derive(Debug, Clone, Deserialize)]
pub struct WorkDone {
    /// How many.
    pub pushes: usize,
    /// What they cost in all.
    pub total: Work,
}

/// What pushes have cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Resources that had to be validated.
    pub validated: usize,
    /// Resources that were there already.
    pub deduplicated: usize,
    /// Destinations that were classified again.
    pub reclassified: usize,
    /// Entries of the kernel's maps that were written or removed.
    pub kernel_entries: usize,
    /// Clusters that the proxy was told of.
    pub clusters: usize,
}

impl Work {
    /// What was done after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            validated: self.validated - earlier.validated,
            deduplicated: self.deduplicated - earlier.deduplicated,
            reclassified: self.reclassified - earlier.reclassified,
            kernel_entries: self.kernel_entries - earlier.kernel_entries,
            clusters: self.clusters - earlier.clusters,
        }
    }
}

/// What the kernel has counted for a workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct KernelCounters {
    /// Connects that were sent to an endpoint.
    pub kernel_balanced: u64,
    /// Connects that were marked for the proxy.
    pub proxied: u64,
    /// Connects that were left as they were.
    pub passthrough: u64,
    /// Connects that the configuration refuses.
    pub blocked: u64,
    /// Connects refused because the proxy was not there.
    pub failed_fast: u64,
    /// Connects let past a proxy that was not there.
    pub failed_open: u64,
    /// What was missing of Orlop's in the pod and was put back.
    pub repaired: u64,
    /// Arrivals left to the application.
    pub inbound_direct: u64,
    /// Arrivals steered to the proxy.
    pub inbound_proxied: u64,
    /// Arrivals refused because a policy denies their source.
    pub inbound_denied: u64,
    /// Connections that a changed policy denied and that were closed.
    pub denied_closed: u64,
    /// DNS to the node.
    pub dns_captured: u64,
    /// DNS that went directly because the node does not answer it.
    pub dns_direct: u64,
    /// Connects and DNS that annotations keep from being taken.
    pub excluded: u64,
    /// Arrivals that annotations keep from being taken.
    pub inbound_excluded: u64,
    /// Probes that were left to the application.
    pub inbound_probes: u64,
    /// Left to the application because a workload of the node was seen to make them.
    pub inbound_attested: u64,
}

/// What the proxy has counted for a workload.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ProxyCounters {
    /// Connections accepted from the pod.
    pub accepted_outbound: u64,
    /// Connections accepted towards the pod.
    pub accepted_inbound: u64,
    /// Connections of clients that are open.
    pub active: u64,
    /// What it has refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Answered requests by class, `2xx`.
    pub requests: BTreeMap<String, u64>,
    /// Envoy's response flags that occurred.
    pub response_flags: BTreeMap<String, u64>,
}

impl Status {
    /// The workload with that name.
    pub fn workload(&self, name: &str) -> Result<&WorkloadStatus> {
        self.workloads
            .iter()
            .find(|w| w.name == name)
            .with_context(|| format!("no workload {name} in {self:?}"))
    }
}

impl Agent {
    /// Starts the agent with these workloads and waits until it is ready.
    pub fn start(bed: &Bed, control_plane: impl Into<ControlPlane>, pods: &[&Pod]) -> Result<Self> {
        let mut agent = Self::described(bed, control_plane, pods)?;
        agent.restart()?;
        Ok(agent)
    }

    /// An agent with its `node.yaml` written, not started.
    pub fn described(bed: &Bed, control_plane: impl Into<ControlPlane>, pods: &[&Pod]) -> Result<Self> {
        let agent = Self {
            process: None,
            dir: bed.dir(),
            cgroup: bed.node_cgroup()?,
            node: bed.node_name().to_owned(),
            control_plane: control_plane.into(),
            identity: None,
            proxy: json!({"resolvers": bed.resolver_address().as_slice()}),
            credentials: BTreeMap::new(),
            probes: None,
        };
        agent.set_workloads(pods)?;
        Ok(agent)
    }

    /// Starts the agent, again after [`Agent::kill`], and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.start_without_waiting()?;
        let process = self.process.take().context("the agent was just started")?;
        self.process = Some(process.ready_when(|_| Ok(self.status()?.ready))?);
        Ok(())
    }

    /// Starts the agent, again after [`Agent::kill`], and does not wait for it.
    pub fn start_without_waiting(&mut self) -> Result<()> {
        self.process = None;
        self.process = Some(Process::spawn("agent", &self.dir, &mut self.command()?)?);
        Ok(())
    }

    /// The command line that starts the agent.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(workspace_binary("bed-pod")?);
        command.arg("enter").arg("--cgroup").arg(&self.cgroup).arg("--").arg(workspace_binary("orlop")?);
        command.arg("agent").arg("--config").arg(self.config_file());
        Ok(command)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end, as a service manager does, and waits for that.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent does not run")?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        let status = process.wait_for_end(Duration::from_secs(20))?;
        ensure!(status.success(), "the agent ended with {status}:\n{}", process.log_tail());
        Ok(())
    }

    /// Starts another agent in its place, and waits until it has taken over. Returns the old one, which sees its
    /// connections off.
    pub fn take_over(&mut self) -> Result<Process> {
        const TAKEN: &str = "another agent has taken over";
        let old = self.process.take().context("the agent does not run")?;
        let takeovers = old.log().matches(TAKEN).count();
        let mut command = self.command()?;
        command.arg("--takeover");
        let new = Process::spawn("agent", &self.dir, &mut command)?;
        let new = new.ready_when(|new| Ok(new.log().matches(TAKEN).count() > takeovers))?;
        self.process = Some(new.ready_when(|_| Ok(self.status()?.ready))?);
        Ok(old)
    }

    /// `orlop enrol --wait`, with what it says where it fails.
    pub fn wait_enrolled(&self, workload: &str, seconds: u32) -> Result<Result<(), String>> {
        let mut command = Command::new(workspace_binary("orlop")?);
        command.args(["enrol", "--wait", workload, "--timeout", &seconds.to_string()]);
        let output = command.arg("--socket").arg(self.socket()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(said) })
    }

    /// The process id of the agent that runs.
    pub fn id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the agent does not run")?.id())
    }

    /// The file that it watches.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("node.yaml")
    }

    /// The socket of its admin interface.
    pub fn socket(&self) -> PathBuf {
        Path::new("/run/orlop").join(&self.node).join("admin.sock")
    }

    /// The credentials that a pod has in every `node.yaml` from now on.
    pub fn set_credentials(&mut self, pod: &Pod, credentials: Value) {
        self.credentials.insert(pod.name().to_owned(), credentials);
    }

    /// The section `identity` of every `node.yaml` from now on.
    pub fn set_identity(&mut self, identity: Value) {
        self.identity = Some(identity);
    }

    /// How many workers the proxy has, in every `node.yaml` from now on.
    pub fn set_proxy_workers(&mut self, workers: usize) {
        if let Some(proxy) = self.proxy.as_object_mut() {
            proxy.insert("workers".to_owned(), workers.into());
        }
    }

    /// Every `node.yaml` from now on says that `prober` probes all workloads at this port.
    pub fn set_probes(&mut self, prober: &Pod, port: u16) -> Result<()> {
        self.set_probes_of(prober.cgroup()?, port);
        Ok(())
    }

    /// The same of whoever is in this cgroup.
    pub fn set_probes_of(&mut self, cgroup: PathBuf, port: u16) {
        self.probes = Some((cgroup, port));
    }

    /// Rewrites `node.yaml` with these workloads.
    pub fn set_workloads(&self, pods: &[&Pod]) -> Result<()> {
        let workloads: Vec<_> = pods.iter().map(|pod| self.describe(pod)).collect::<Result<_>>()?;
        let config = json!({
            "node": {
                "name": self.node,
                "cluster": "Kubernetes",
                "trustDomain": "cluster.local",
                "stateDirectory": self.dir.join("state"),
            },
            "controlPlane": self.control_plane,
            "identity": self.identity,
            "proxy": self.proxy,
            "probes": self.probes.as_ref().map(|(cgroup, _)| json!({"cgroup": cgroup})),
            "workloads": workloads,
        });
        self.write_config(&serde_norway::to_string(&config)?)
    }

    /// Replaces the text of `node.yaml` at once.
    pub fn write_config(&self, yaml: &str) -> Result<()> {
        let staged = self.dir.join("node.yaml.new");
        fs::write(&staged, yaml)?;
        Ok(fs::rename(staged, self.config_file())?)
    }

    /// `orlop status --json`.
    pub fn status(&self) -> Result<Status> {
        self.ask(&["status"])
    }

    /// What `orlop status` says to a user other than root.
    pub fn status_for(&self, user: u32) -> Result<Output> {
        // What was built may lie where root alone can go.
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir()?;
        let program = folder.path().join("orlop");
        fs::copy(workspace_binary("orlop")?, &program)?;
        let mut command = Command::new(program);
        Ok(command.args(["status", "--socket"]).arg(self.socket()).uid(user).gid(user).output()?)
    }

    /// `orlop explain <workload> <destination> --json`. The destination is an address or a host name with a port.
    pub fn explain(&self, pod: &Pod, destination: &str) -> Result<Explanation> {
        self.ask(&["explain", pod.name(), destination])
    }

    /// The counters of a workload now.
    pub fn counters(&self, pod: &Pod) -> Result<(KernelCounters, ProxyCounters)> {
        let status = self.status()?;
        let workload = status.workload(pod.name())?;
        Ok((workload.kernel.unwrap_or_default(), workload.proxy.clone().unwrap_or_default()))
    }

    /// Waits until `explain` names this path.
    pub fn wait_for_path(&self, pod: &Pod, destination: SocketAddr, path: &str) -> Result<Explanation> {
        until(&format!("{destination} to take the path {path}"), Duration::from_secs(15), || {
            let explanation = self.explain(pod, &destination.to_string())?;
            ensure!(explanation.path == path, "it is {explanation:?}");
            Ok(Some(explanation))
        })
    }

    /// Waits until `accept` likes the status.
    pub fn wait_for_status(
        &self,
        what: &str,
        mut accept: impl FnMut(&Status) -> Result<bool>,
    ) -> Result<Status> {
        until(what, Duration::from_secs(15), || {
            let status = self.status()?;
            Ok(accept(&status)?.then_some(status))
        })
    }

    /// What the agent has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    fn ask<T: for<'de> Deserialize<'de>>(&self, arguments: &[&str]) -> Result<T> {
        let mut command = Command::new(workspace_binary("orlop")?);
        let output = command.args(arguments).arg("--json").arg("--socket").arg(self.socket()).output()?;
        ensure!(output.status.success(), "orlop {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("orlop {arguments:?}: {}", String::from_utf8_lossy(&output.stdout)))
    }

    fn describe(&self, pod: &Pod) -> Result<Value> {
        Ok(json!({
            "name": pod.name(),
            "namespace": "default",
            "serviceAccount": pod.account(),
            "netns": pod.netns(),
            "cgroup": pod.cgroup()?,
            "addresses": [pod.ip()],
            "labels": pod.labels(),
            "annotations": pod.annotations(),
            "credentials": self.credentials.get(pod.name()),
            "probePorts": self.probes.iter().map(|(_, port)| port).collect::<Vec<_>>(),
        }))
    }
}
