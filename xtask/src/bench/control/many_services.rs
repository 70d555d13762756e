//! Cells G and H for one workload: what a large mesh costs to load and to keep, and how soon a change is in force.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use orlop_integration::process::Process;
use orlop_integration::{Agent, Bed, ControlPlane, Pod, until};
use serde::Serialize;

use super::process::{bpf_maps_mb, cpu_time};
use super::resources::{self, PROBED};
use super::server::Server;
use crate::bench::fleet::{backend, process_of};
use crate::bench::memory::pss_mb;
use crate::bench::placement::{Placement, Seat};
use crate::bench::worker::now_ns;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
const CHANGES: usize = 1000;
/// Between two changes, so that each begins on an agent at rest.
const PAUSE: Duration = Duration::from_millis(5);
/// What was needed only to load is given back by then.
const SETTLE: Duration = Duration::from_secs(3);
/// The two places that the probed endpoint moves between.
const PORTS: [u16; 2] = [8080, 8081];

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ManyServices {
    pub(super) services: u32,
    pub(super) endpoints: u32,
    /// All resources as they come over the wire, MB.
    pub(super) wire_mb: f64,
    /// From the agent's start until the workload is ready, s.
    pub(super) ready_s: f64,
    /// Processor time for all of it, an agent with one service taken off, s.
    pub(super) load_cpu_s: f64,
    /// PSS of the agent, MB.
    pub(super) pss_mb: f64,
    /// PSS of an agent with one service, MB.
    pub(super) idle_pss_mb: f64,
    /// BPF maps, MB.
    pub(super) maps_mb: f64,
    pub(super) changes: usize,
    /// From the bytes on their way to the end of the first connect that reaches the new endpoint, µs.
    pub(super) in_force_p50_us: f64,
    pub(super) in_force_p99_us: f64,
    /// Connects that reached nobody.
    pub(super) failed: u32,
}

/// Runs both agents, one after the other.
pub(super) fn measure() -> Result<ManyServices> {
    let small = Loaded::start(1)?;
    let (idle_pss_mb, idle_cpu) = (small.pss_mb, small.cpu);
    drop(small);
    let large = Loaded::start(SERVICES)?;
    let (latencies, failed) = large.change_endpoints()?;
    let us = |quantile| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ns")]
        let ns = latencies.value_at_quantile(quantile) as f64;
        ns / 1e3
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let wire_mb = large.server.wire_bytes() as f64 / 1e6;
    Ok(ManyServices {
        services: SERVICES,
        endpoints: ENDPOINTS,
        wire_mb,
        ready_s: large.ready.as_secs_f64(),
        load_cpu_s: large.cpu.saturating_sub(idle_cpu).as_secs_f64(),
        pss_mb: large.pss_mb,
        idle_pss_mb,
        maps_mb: large.maps_mb,
        changes: CHANGES,
        in_force_p50_us: us(0.5),
        in_force_p99_us: us(0.99),
        failed,
    })
}

/// An agent that has loaded everything and come to rest.
struct Loaded {
    // In this order: what runs ends before its bed does.
    _agent: Agent,
    _backends: Vec<Process>,
    server: Server,
    client: Pod,
    backend: Pod,
    _bed: Bed,
    ready: Duration,
    cpu: Duration,
    pss_mb: f64,
    maps_mb: f64,
}

impl Loaded {
    fn start(services: u32) -> Result<Self> {
        let bed = Bed::new()?;
        let (client, backend) = (bed.plain_pod("client")?, bed.plain_pod("backend")?);
        let backends =
            PORTS.into_iter().map(|port| listen(&bed, &backend, port)).collect::<Result<Vec<_>>>()?;
        let server = Server::start(resources::mesh(services, ENDPOINTS, backend.at(PORTS[0])))?;
        let began = Instant::now();
        let agent = Agent::start(&bed, ControlPlane::Address(server.address()), &[&client])?;
        let ready = began.elapsed();
        let agent_pid = process_of(&bed)?;
        sleep(SETTLE);
        server.acked()?;
        agent.wait_for_path(&client, PROBED, "kernel")?;
        let (cpu, pss_mb, maps_mb) = (cpu_time(agent_pid)?, pss_mb(agent_pid)?, bpf_maps_mb(agent_pid)?);
        Placement::Pinned.seat(agent_pid, Seat::Between)?;
        Ok(Self {
            _agent: agent,
            _backends: backends,
            server,
            client,
            backend,
            _bed: bed,
            ready,
            cpu,
            pss_mb,
            maps_mb,
        })
    }

    /// Moves the probed endpoint to and fro. How long each move took in nanoseconds, and how many connects failed.
    fn change_endpoints(&self) -> Result<(Histogram<u64>, u32)> {
        let mut probe = Probe::start(&self.client)?;
        ensure!(probe.next()?.0 == PORTS[0], "the probe does not reach the first endpoint");
        let mut latencies = Histogram::new(3)?;
        let mut failed = 0;
        for port in PORTS.into_iter().rev().cycle().take(CHANGES) {
            sleep(PAUSE);
            let sent = now_ns();
            self.server.push(resources::probed_assignment(self.backend.at(port)))?;
            loop {
                match probe.next()? {
                    (reached, at) if reached == port => {
                        latencies.record(at.saturating_sub(sent))?;
                        break;
                    }
                    _ => failed += 1,
                }
            }
        }
        self.server.acked()?;
        Ok((latencies, failed))
    }
}

/// Starts a backend and waits until it listens.
fn listen(bed: &Bed, pod: &Pod, port: u16) -> Result<Process> {
    let backend = backend(bed, Placement::Pinned, pod, port)?;
    until("the backend to listen", Duration::from_secs(5), || {
        Ok(pod.run(&format!("ss -Hltn sport = :{port}"))?.contains("LISTEN").then_some(()))
    })?;
    Ok(backend)
}

/// The process that connects all the time, and what it prints.
struct Probe {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Probe {
    fn start(pod: &Pod) -> Result<Self> {
        let mut command = Placement::Pinned.command(pod, Seat::End, std::env::current_exe()?)?;
        command.args(["bench", "switches", "--target", &PROBED.to_string()]).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let lines = BufReader::new(process.stdout.take().context("a piped output")?);
        Ok(Self { process, lines })
    }

    /// The next port that it reached, and when.
    fn next(&mut self) -> Result<(u16, u64)> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        let (port, at) =
            line.trim().split_once(' ').with_context(|| format!("the probe printed {line:?}"))?;
        Ok((port.parse()?, at.parse()?))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
