//! Everybody who takes part, started once and left idle while it is somebody else's turn.
//!
//! One bed holds all pods. All but the sidecars share one client pod or have one like it, and share the backend's process;
//! the sidecars have pods of their own on both sides, because their rules apply to all that passes there. Proxies that
//! serve by address listen on the client's loopback, where the shared proxy of the agent is met too: every path through
//! one proxy crosses the loopback once and the link between the pods once.

mod envoy;
mod haproxy;
mod nginx;
mod orlop;
mod xds;

use std::collections::BTreeSet;
use std::env::current_exe;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::process::Process;
use orlop_integration::{Bed, Pod, until};

use self::envoy::Side;
pub(super) use self::orlop::process_of;
use super::cell::{Layer, Subject};
use super::placement::{Placement, Seat};
use super::worker::Report;

/// The name of the service in question, and the `Host` of every request.
const HOST: &str = "bench.default.svc.cluster.local";
/// The service's address, which no pod has.
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// The service's port for requests, with routes that only L7 can follow.
const L7_PORT: u16 = 80;
/// The service's port for connections.
const L4_PORT: u16 = 81;
/// Where the backend listens in its pod.
const BACKEND_PORT: u16 = 8080;
/// How many services the crowded agent knows.
const CROWD: u32 = 10_000;

const NGINX: SocketAddr = loopback(8081);
const HAPROXY_HTTP: SocketAddr = loopback(8082);
const HAPROXY_TCP: SocketAddr = loopback(8083);

/// Enough source ports, and few sockets left in TIME-WAIT, so that connection churn finds the same kernel in its last
/// second as in its first. Alike in all pods.
const SYSCTLS: [&str; 3] = [
    "net.ipv4.ip_local_port_range=1024 65000",
    "net.ipv4.tcp_tw_reuse=1",
    "net.ipv4.tcp_max_tw_buckets=4096",
];

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// All pods and programs. Whatever runs ends with it.
pub(super) struct Fleet {
    // In this order: programs end before the bed removes what they run in.
    programs: Vec<Process>,
    carrying: Option<orlop::Node>,
    crowding: Option<orlop::Node>,
    client: Pod,
    web: Pod,
    carried: Pod,
    crowded: Pod,
    sidecar_client: Pod,
    sidecar_web: Pod,
    bed: Bed,
    placement: Placement,
}

/// One run of the load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Whom it goes through.
    pub(super) subject: Subject,
    /// What that one looks at.
    pub(super) layer: Layer,
    /// Connections, each with one request outstanding.
    pub(super) connections: usize,
    /// A connection for every request.
    pub(super) churn: bool,
    /// How long before anything is recorded.
    pub(super) warm_up: Duration,
    /// How long is recorded.
    pub(super) measured: Duration,
}

/// Where the load runs and what it is aimed at.
struct Aim<'a> {
    from: &'a Pod,
    target: SocketAddr,
    /// How many addresses from the target's on.
    targets: u32,
}

impl Fleet {
    /// Starts what the subjects need and waits until each of them has answered.
    pub(super) fn start(subjects: &BTreeSet<(Subject, Layer)>, placement: Placement) -> Result<Self> {
        let bed = Bed::new()?;
        let pod = |name| -> Result<Pod> {
            let pod = bed.plain_pod(name)?;
            for setting in SYSCTLS {
                finish(pod.command("sysctl")?.args(["-qw", setting]))?;
            }
            Ok(pod)
        };
        let mut fleet = Self {
            programs: Vec::new(),
            carrying: None,
            crowding: None,
            client: pod("client")?,
            web: pod("web")?,
            carried: pod("carried")?,
            crowded: pod("crowded")?,
            sidecar_client: pod("sidecar-client")?,
            sidecar_web: pod("sidecar-web")?,
            bed,
            placement,
        };
        let backend = fleet.backend(&fleet.web, BACKEND_PORT)?;
        fleet.programs.push(backend);
        let needed: BTreeSet<_> = subjects.iter().map(|(subject, _)| *subject).collect();
        for subject in needed {
            fleet.bring_up(subject)?;
        }
        for (subject, layer) in subjects {
            let probe = Run {
                subject: *subject,
                layer: *layer,
                connections: 1,
                churn: true,
                warm_up: Duration::ZERO,
                measured: Duration::from_millis(50),
            };
            until(&format!("{subject} to answer"), START_TIMEOUT, || fleet.run(&probe).map(Some))?;
        }
        Ok(fleet)
    }

    fn bring_up(&mut self, subject: Subject) -> Result<()> {
        let dir = self.bed.dir();
        let backend = self.web.at(BACKEND_PORT);
        match subject {
            Subject::Direct | Subject::DirectAgain => {}
            Subject::OrlopKernel | Subject::OrlopL7 => {
                if self.carrying.is_none() {
                    self.carrying = Some(orlop::Node::start(&self.carried, backend, 0, self.placement)?);
                }
            }
            Subject::OrlopKernel10k => {
                self.crowding = Some(orlop::Node::start(&self.crowded, backend, CROWD, self.placement)?);
            }
            Subject::Nginx => {
                let mut command = self.placement.command(&self.client, Seat::Between, "nginx")?;
                nginx::configure(&mut command, &dir, NGINX, backend)?;
                self.programs.push(Process::spawn("nginx", &dir, &mut command)?);
            }
            Subject::Haproxy => {
                let mut command = self.placement.command(&self.client, Seat::Between, "haproxy")?;
                haproxy::configure(&mut command, &dir, HAPROXY_HTTP, HAPROXY_TCP, backend)?;
                self.programs.push(Process::spawn("haproxy", &dir, &mut command)?);
            }
            Subject::EnvoyPair => {
                for port in [BACKEND_PORT, envoy::TCP_BACKEND_PORT] {
                    let backend = self.backend(&self.sidecar_web, port)?;
                    self.programs.push(backend);
                }
                let client_side = Side::Client(self.sidecar_web.ip());
                for (side, pod) in [(client_side, &self.sidecar_client), (Side::Server, &self.sidecar_web)] {
                    let mut command = side.command(pod, self.placement, &dir)?;
                    self.programs.push(Process::spawn(&format!("{}-envoy", pod.name()), &dir, &mut command)?);
                    side.redirect(pod)?;
                }
            }
        }
        Ok(())
    }

    /// Runs the load once and returns what it measured.
    pub(super) fn run(&self, run: &Run) -> Result<Report> {
        let Aim { from, target, targets } = self.aim(run);
        let mut command = self.placement.command(from, Seat::End, current_exe()?)?;
        command
            .args(["bench", "load", "--host", HOST])
            .args(["--target", &target.to_string()])
            .args(["--targets", &targets.to_string()])
            .args(["--connections", &run.connections.to_string()])
            .args(["--warm-up", &run.warm_up.as_secs_f64().to_string()])
            .args(["--seconds", &run.measured.as_secs_f64().to_string()]);
        if run.churn {
            command.arg("--churn");
        }
        let report = finish(&mut command).with_context(|| format!("load by way of {}", run.subject))?;
        serde_json::from_slice(&report).context("the load's report")
    }

    fn aim(&self, run: &Run) -> Aim<'_> {
        let service = SocketAddr::new(VIP, if run.layer == Layer::L4 { L4_PORT } else { L7_PORT });
        let (from, target) = match run.subject {
            Subject::Direct | Subject::DirectAgain => (&self.client, self.web.at(BACKEND_PORT)),
            Subject::OrlopKernel | Subject::OrlopL7 => (&self.carried, service),
            Subject::OrlopKernel10k => (&self.crowded, (xds::FIRST_VIP, L4_PORT).into()),
            Subject::Nginx => (&self.client, NGINX),
            Subject::Haproxy if run.layer == Layer::L4 => (&self.client, HAPROXY_TCP),
            Subject::Haproxy => (&self.client, HAPROXY_HTTP),
            Subject::EnvoyPair => (&self.sidecar_client, service),
        };
        Aim { from, target, targets: if run.subject == Subject::OrlopKernel10k { CROWD } else { 1 } }
    }

    fn backend(&self, pod: &Pod, port: u16) -> Result<Process> {
        backend(&self.bed, self.placement, pod, port)
    }
}

/// Starts the backend in a pod.
pub(super) fn backend(bed: &Bed, placement: Placement, pod: &Pod, port: u16) -> Result<Process> {
    let mut command = placement.command(pod, Seat::End, current_exe()?)?;
    command.args(["bench", "backend", "--listen", &format!("0.0.0.0:{port}")]);
    Process::spawn(&format!("{}-backend-{port}", pod.name()), &bed.dir(), &mut command)
}

/// Runs a command to its end and returns what it printed.
fn finish(command: &mut Command) -> Result<Vec<u8>> {
    let output =
        command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
