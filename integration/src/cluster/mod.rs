//! A real Kubernetes of two nodes on one machine, for what only a cluster can show: pods by kubelet and containerd, services
//! by kube-proxy, Istio by its own installer.
//!
//! Each node is a process with its descendants in namespaces of their own (`integration/cluster/node.sh`); a bridge in a
//! further network namespace joins them. A [`Cluster`] owns all of it and removes it when dropped, after a panic too; what a
//! killed run has left, the next one sweeps. Nothing of it reaches the machine's own network.

mod images;
pub mod objects;
mod pki;
mod programs;
mod traffic;
mod workstation;

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::process::Process;
use crate::wait::until;

pub use images::{AGENT_IMAGE, POD_IMAGE, write_program};
pub use programs::Programs;

/// Where clusters keep their state: on a disk, since containerd's overlays do not lie on another overlay.
const ROOT: &str = "/var/tmp";
const PREFIX: &str = "orlop-cluster-";
const NODES: u8 = 2;
/// How long the slowest step may take beside other work.
const PATIENCE: Duration = Duration::from_mins(3);
/// Where Istio's control plane is installed.
pub const ISTIO_SYSTEM: &str = "istio-system";
/// The cluster that outlives its process.
const EXPLORED: &str = "explored";

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    programs: Programs,
    nodes: Vec<Process>,
    /// Held as long as somebody uses the directory.
    _lock: File,
}

fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, index + 1)
}

impl Cluster {
    /// Starts the nodes; returns when both are ready, and the cluster answers for its names.
    pub fn start(programs: Programs) -> Result<Self> {
        Self::start_as(&std::process::id().to_string(), programs)
    }

    /// Starts one that [`Cluster::leave`] can leave running.
    pub fn start_explored(programs: Programs) -> Result<Self> {
        Self::start_as(EXPLORED, programs)
    }

    fn start_as(name: &str, programs: Programs) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the test cluster needs root: it makes namespaces and cgroups"
        );
        sweep()?;
        let dir = Path::new(ROOT).join(format!("{PREFIX}{name}"));
        ensure!(!dir.exists(), "{} is there: `cargo xtask cluster --down` removes it", dir.display());
        fs::create_dir_all(dir.join("images"))?;
        let lock = File::create(dir.join("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut this = Self { dir, programs, nodes: Vec::new(), _lock: lock };
        std::os::unix::fs::symlink(&this.programs.kubernetes, this.dir.join("kubernetes"))?;
        workstation::write(&this.dir)?;
        images::write(&this.dir.join("images"), &this.programs)?;
        pki::write(&this.dir.join("pki"), NODES)?;
        ip(&["netns", "add", &switch(&this.dir)])?;
        ip(&["-n", &switch(&this.dir), "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch(&this.dir), "link", "set", "br0", "up"])?;
        for index in 1..=NODES {
            let node = this.start_node(index)?;
            this.nodes.push(node);
        }
        this.apply(include_str!("../../cluster/names.yaml"))?;
        this.kubectl(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"])?;
        Ok(this)
    }

    /// Lets it run on after this process.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    fn start_node(&self, index: u8) -> Result<Process> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/node.sh");
        let mut command = Command::new("unshare");
        command
            .args(["--fork", "--kill-child", "--pid", "--mount-proc", "--mount", "--net", "--ipc", "--uts"])
            .args(["--propagation", "private"])
            .arg(script)
            .arg(&self.dir)
            .arg(index.to_string())
            .arg(self.programs.kube_proxy);
        let process = Process::spawn(&format!("node{index}"), &self.dir, &mut command)?;
        let unshare = process.id();
        let first = until("a node's first process", PATIENCE, || {
            let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
            Ok(children.split_whitespace().next().map(str::to_owned))
        })?;
        fs::write(self.dir.join(format!("node{index}.pid")), &first)?;
        let port = format!("port{index}");
        let switch = switch(&self.dir);
        ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &first])?;
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
        let home = self.dir.join(format!("node{index}"));
        let process = process.ready_within(PATIENCE, |_| Ok(home.join("ready").exists()));
        process.with_context(|| logs(&home))
    }

    /// Takes the power from a node, and gives it back; returns when the node is ready. Not for the first one, which has the
    /// control plane.
    pub fn restart_node(&mut self, index: u8) -> Result<()> {
        let node = usize::from(index).checked_sub(1).and_then(|at| self.nodes.get_mut(at));
        node.with_context(|| format!("there is no node{index}"))?.kill()?;
        remove_cgroups(&self.dir, index)?;
        fs::remove_file(self.dir.join(format!("node{index}/ready")))?;
        let again = self.start_node(index)?;
        if let Some(node) = self.nodes.get_mut(usize::from(index).saturating_sub(1)) {
            *node = again;
        }
        Ok(())
    }

    /// Runs `kubectl` and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        finished(self.in_node(1, &["-n"])?.args(self.kubectl_program()).args(arguments))
    }

    /// Applies a manifest.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.apply_with(&[], yaml)
    }

    /// Applies a manifest that names no namespace to this one.
    pub fn apply_in(&self, namespace: &str, yaml: &str) -> Result<()> {
        self.apply_with(&["-n", namespace], yaml)
    }

    fn apply_with(&self, options: &[&str], yaml: &str) -> Result<()> {
        let mut command = self.in_node(1, &["-n"])?;
        let apply = ["apply", "--server-side", "-f", "-"];
        command.args(self.kubectl_program()).args(options).args(apply);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin is piped")?.write_all(yaml.as_bytes())?;
        checked(&child.wait_with_output()?, "kubectl apply").map(drop)
    }

    /// What the API server says of something, as JSON: `get(&["pods", "-n", "shop"])`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// What the agent of a node says of itself.
    pub fn status(&self, index: u8) -> Result<Value> {
        Ok(serde_json::from_str(&self.orlop(index, &["status", "--json"])?)?)
    }

    /// A command of the agent on a node, run in its own container.
    pub fn orlop(&self, index: u8, arguments: &[&str]) -> Result<String> {
        let selector = format!("spec.nodeName=node{index}");
        let pods =
            self.get(&["pods", "-n", ISTIO_SYSTEM, "-l", "app=orlop", "--field-selector", &selector])?;
        let name =
            pods.pointer("/items/0/metadata/name").and_then(Value::as_str).context("no agent runs there")?;
        self.kubectl(&[&["-n", ISTIO_SYSTEM, "exec", name, "--", "orlop"], arguments].concat())
    }

    /// Runs `istioctl`.
    pub fn istioctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.in_node(1, &["-n"])?;
        finished(command.arg(&self.programs.istioctl).args(arguments))
    }

    /// Installs the Gateway API's resources, which istiod looks for when it starts.
    pub fn install_gateway_api(&self) -> Result<()> {
        let folder = self.programs.gateway_api.as_ref().context("programs without the Gateway API")?;
        let mut command = self.in_node(1, &["-n"])?;
        command.args(self.kubectl_program()).args(["apply", "--server-side", "-f"]).arg(folder);
        finished(&mut command)?;
        let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
        self.kubectl(&established).map(drop)
    }

    /// Installs Istio's control plane with its stock charts and stock settings.
    pub fn install_istio(&self) -> Result<()> {
        self.install_istio_with(&[])
    }

    /// Installs it so that the label `istio-injection: enabled` puts real sidecars into pods: without the filters that a stock
    /// Envoy does not have. For programs [`Programs::with_sidecars`].
    pub fn install_istio_with_sidecars(&self) -> Result<()> {
        self.install_istio_with(&[
            "values.pilot.env.PILOT_ENABLE_METADATA_EXCHANGE=false",
            "values.pilot.env.PILOT_ENABLE_ALPN_FILTER=false",
            "values.telemetry.enabled=false",
            // The image's name as it is, and no variant of it.
            "values.global.variant=",
        ])
    }

    /// Installs it so that services have addresses of both families.
    pub fn install_istio_with_dual_stack(&self) -> Result<()> {
        self.install_istio_with(&["values.pilot.env.ISTIO_DUAL_STACK=true"])
    }

    fn install_istio_with(&self, settings: &[&str]) -> Result<()> {
        let tag = format!("tag={}", images::TAG);
        let own = ["profile=minimal", "hub=localhost", &tag, "values.global.imagePullPolicy=Never"];
        let settings = own.iter().chain(settings).flat_map(|setting| ["--set", *setting]);
        let install = ["install", "--skip-confirmation", "--readiness-timeout", "120s"];
        self.istioctl(&install.into_iter().chain(settings).collect::<Vec<_>>()).map(drop)
    }

    /// Installs Orlop with its own chart, beside that control plane; returns when an agent is ready on each node.
    pub fn install_orlop(&self) -> Result<()> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/orlop");
        let mut command = self.in_node(1, &["-n"])?;
        command.arg(&self.programs.helm).args(["install", "orlop", "--namespace", ISTIO_SYSTEM]).arg(chart);
        command.args(["--set", &format!("image.reference={AGENT_IMAGE},image.pullPolicy=Never")]);
        finished(&mut command)?;
        self.kubectl(&["-n", ISTIO_SYSTEM, "rollout", "status", "daemonset/orlop", "--timeout=120s"])
            .map(drop)
    }

    /// Gives its chart other values, and returns when agents run with them.
    pub fn configure_orlop(&self, values: &str) -> Result<()> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/orlop");
        let mut command = self.in_node(1, &["-n"])?;
        command.arg(&self.programs.helm).args(["upgrade", "orlop", "--namespace", ISTIO_SYSTEM]).arg(chart);
        finished(command.args(["--reuse-values", "--set", values]))?;
        self.kubectl(&["-n", ISTIO_SYSTEM, "rollout", "restart", "daemonset/orlop"])?;
        self.kubectl(&["-n", ISTIO_SYSTEM, "rollout", "status", "daemonset/orlop", "--timeout=180s"])
            .map(drop)
    }

    /// Takes it out of the cluster; returns when no agent is left.
    pub fn uninstall_orlop(&self) -> Result<()> {
        let mut command = self.in_node(1, &["-n"])?;
        finished(command.arg(&self.programs.helm).args(["uninstall", "orlop", "--namespace", ISTIO_SYSTEM]))?;
        self.kubectl(&[
            "-n",
            ISTIO_SYSTEM,
            "wait",
            "--for=delete",
            "pod",
            "-l",
            "app=orlop",
            "--timeout=120s",
        ])
        .map(drop)
    }

    /// What a node sees as `/etc/cni/net.d` and `/opt/cni/bin`.
    pub fn cni_folders(&self, index: u8) -> [PathBuf; 2] {
        let home = self.dir.join(format!("node{index}"));
        [home.join("cni"), home.join("cni-bin")]
    }

    /// What somebody who explores it needs to know.
    pub fn how_to_explore(&self) -> String {
        let enter = format!("nsenter -t $(cat {}/node1.pid) -a", self.dir.display());
        let kubectl = format!(
            "{enter} {}/kubernetes kubectl --kubeconfig {}",
            self.dir.display(),
            self.kubeconfig().display()
        );
        format!(
            "The cluster is up, with Istio, Orlop and the namespace `sample`.\n\
             \n    alias k='{kubectl}'\n    k -n sample get pods -o wide\n    \
             k -n {ISTIO_SYSTEM} exec daemonset/orlop -- orlop status\n\n\
             `cargo xtask cluster --down` removes it."
        )
    }

    /// A command in a node's network, mount, pid, ipc and uts namespaces.
    pub fn node_command(&self, index: u8) -> Result<Command> {
        self.in_node(index, &["-m", "-n", "-p", "-i", "-u"])
    }

    fn kubectl_program(&self) -> [PathBuf; 2] {
        [self.dir.join("kubernetes"), "kubectl".into()]
    }

    /// The file by which the cluster is administered.
    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("pki/admin.kubeconfig")
    }

    fn in_node(&self, index: u8, namespaces: &[&str]) -> Result<Command> {
        let pid = fs::read_to_string(self.dir.join(format!("node{index}.pid")))?;
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid]).args(namespaces).arg("--").env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        if let Err(error) = remove(&self.dir) {
            eprintln!("cluster {}: {error:#}", self.dir.display());
        }
    }
}

/// Removes the cluster that was left to be explored. Returns whether there was one.
pub fn remove_explored() -> Result<bool> {
    let dir = Path::new(ROOT).join(format!("{PREFIX}{EXPLORED}"));
    let found = dir.exists();
    if found {
        remove(&dir)?;
    }
    Ok(found)
}

/// Removes the clusters of runs that were killed.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(ROOT)?.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if rest != EXPLORED && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Ends the nodes, and removes whatever bears the cluster's name.
fn remove(dir: &Path) -> Result<()> {
    for index in 1..=NODES {
        let Ok(pid) = fs::read_to_string(dir.join(format!("node{index}.pid"))) else { continue };
        let proc = Path::new("/proc").join(&pid);
        let ours = || {
            let command = fs::read(proc.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&*dir.to_string_lossy())
        };
        if ours() {
            // A node's first process takes all others with it.
            finished(Command::new("kill").args(["-9", &pid]))?;
        }
        until("a node to end", PATIENCE, || Ok((!ours()).then_some(())))?;
    }
    for index in 1..=NODES {
        remove_cgroups(dir, index)?;
    }
    if Path::new("/run/netns").join(switch(dir)).exists() {
        ip(&["netns", "delete", &switch(dir)])?;
    }
    // What was mounted inside goes with the last process of the namespaces, a moment after it.
    until("the cluster's directory to be free", PATIENCE, || Ok(Some(fs::remove_dir_all(dir)?)))
}

/// Those of every hierarchy that bear the node's name; they are empty by now, or will be in a moment.
fn remove_cgroups(dir: &Path, index: u8) -> Result<()> {
    let name = format!("{}-node{index}", file_name(dir));
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let cgroup = hierarchy.path().join(&name);
        until("a cgroup to be empty", PATIENCE, || {
            if cgroup.exists() {
                finished(Command::new("find").arg(&cgroup).args(["-depth", "-type", "d", "-delete"]))?;
            }
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// The end of what each program of a node has said.
fn logs(home: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(home.join("log")).into_iter().flatten().flatten() {
        let log = fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n");
        for part in ["--- ", &entry.path().display().to_string(), "\n", &end, "\n"] {
            text.push_str(part);
        }
    }
    text
}

fn file_name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The network namespace of the bridge.
fn switch(dir: &Path) -> String {
    format!("{}-switch", file_name(dir))
}

fn ip(arguments: &[&str]) -> Result<()> {
    finished(Command::new("ip").args(arguments)).map(drop)
}

fn finished(command: &mut Command) -> Result<String> {
    let what = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let output = command.output().with_context(|| format!("cannot run {what}"))?;
    checked(&output, &what)
}

fn checked(output: &Output, what: &str) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{what}: {}{text}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
