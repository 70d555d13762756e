//! A node full of pods with a real istiod: how soon all are served, what the agent takes, and what an edit costs it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use orlop_integration::process::Process;
use orlop_integration::{Agent, Bed, Istiod, Pod, until};
use serde::Serialize;
use serde_json::{Value, json};

use super::process::{bpf_maps_mb, cpu_time};
use crate::bench::fleet::process_of;
use crate::bench::memory::pss_mb;

const WORKLOADS: usize = 200;
const WORKLOADS_PER_ACCOUNT: usize = 10;
const SERVICES: usize = 500;
const PORTS: [u16; 2] = [8080, 9000];
const ENDPOINTS: usize = 3;
const EDITS: usize = 15;
const ASK: Duration = Duration::from_millis(200);
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// What was needed only to load is given back by then.
const SETTLE: Duration = Duration::from_secs(5);
/// Long enough for istiod's push to have reached everybody.
const EDIT: Duration = Duration::from_secs(3);

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ManyPods {
    pub(super) workloads: usize,
    pub(super) accounts: usize,
    pub(super) services: usize,
    pub(super) ports: usize,
    pub(super) endpoints: usize,
    /// From the agent's start until every workload is ready, s.
    pub(super) ready_s: f64,
    /// What istiod's limit on new streams allows at best, s.
    pub(super) istiod_limit_s: f64,
    /// PSS of the agent, MB.
    pub(super) pss_mb: f64,
    /// BPF maps, MB.
    pub(super) maps_mb: f64,
    /// Processor time of the agent for one endpoint's edit, which comes on every stream, ms; by size.
    pub(super) edit_cpu_ms: Vec<f64>,
    /// Processor time of the agent at rest in as much time, ms.
    pub(super) idle_cpu_ms: f64,
}

/// Starts istiod and an agent, and edits one service over and over.
pub(super) fn measure() -> Result<ManyPods> {
    // Apart from the agent's bed, so that the agent's cgroup holds the agent alone.
    let istiod_bed = Bed::new()?;
    let mesh: String = (1..SERVICES).map(|n| service(n, 0)).collect();
    let istiod = Istiod::start(&istiod_bed, &[("mesh.yaml", &mesh), ("edited.yaml", &service(0, 0))])?;
    let bed = Bed::new()?;
    let pods: Vec<Pod> = (0..WORKLOADS)
        .map(|n| {
            bed.pod(&format!("pod-{n}")).account(&format!("account-{}", n / WORKLOADS_PER_ACCOUNT)).start()
        })
        .collect::<Result<_>>()?;
    let pods: Vec<&Pod> = pods.iter().collect();
    let agent = Agent::described(&bed, &istiod, &pods)?;
    let began = Instant::now();
    let _process = Process::spawn("agent", &bed.dir(), &mut agent.command()?)?;
    let ready = ready_after(&agent, began)?;
    sleep(SETTLE);
    let pid = process_of(&bed)?;
    let pss_mb = pss_mb(pid)?;
    let idle_cpu_ms = during_ms(pid, || Ok(()))?;
    let mut edit_cpu_ms = (1..=EDITS)
        .map(|edit| during_ms(pid, || istiod.apply("edited.yaml", &service(0, edit))))
        .collect::<Result<Vec<_>>>()?;
    edit_cpu_ms.sort_by(f64::total_cmp);
    until("the last edit to be in force everywhere", Duration::from_secs(5), || {
        Ok(agent.status()?.ready.then_some(()))
    })?;
    Ok(ManyPods {
        workloads: WORKLOADS,
        accounts: WORKLOADS.div_ceil(WORKLOADS_PER_ACCOUNT),
        services: SERVICES,
        ports: PORTS.len(),
        endpoints: ENDPOINTS,
        ready_s: ready.as_secs_f64(),
        istiod_limit_s: istiod_limit()?.as_secs_f64(),
        pss_mb,
        maps_mb: bpf_maps_mb(pid)?,
        edit_cpu_ms,
        idle_cpu_ms,
    })
}

/// Asks seldom, because every answer speaks of every workload.
fn ready_after(agent: &Agent, began: Instant) -> Result<Duration> {
    loop {
        sleep(ASK);
        let ready = agent.status().is_ok_and(|status| status.ready);
        let elapsed = began.elapsed();
        if ready {
            return Ok(elapsed);
        }
        ensure!(elapsed < READY_TIMEOUT, "not every workload is ready after {elapsed:?}:\n{}", agent.log());
    }
}

/// istiod admits `15 + 5·cores` new streams a second, one at a time.
fn istiod_limit() -> Result<Duration> {
    let cores = std::thread::available_parallelism()?.get();
    Ok(Duration::from_secs_f64(
        f64::from(u32::try_from(WORKLOADS - 1)?) / f64::from(u32::try_from(15 + 5 * cores)?),
    ))
}

/// Processor time of the process while `work` and its consequences last.
fn during_ms(pid: u32, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = cpu_time(pid)?;
    let began = Instant::now();
    work()?;
    sleep(EDIT.saturating_sub(began.elapsed()));
    Ok(cpu_time(pid)?.saturating_sub(before).as_secs_f64() * 1e3)
}

/// Service number `n`; `edit` moves its first endpoint.
fn service(n: usize, edit: usize) -> String {
    let port = |number: &u16| {
        let protocol = if *number == PORTS[0] { "HTTP" } else { "TCP" };
        json!({"number": number, "name": format!("{}-{number}", protocol.to_lowercase()), "protocol": protocol})
    };
    let endpoint = |k: usize| -> Value {
        let last = if k == 0 { 10 + edit } else { k };
        json!({"address": format!("10.{}.{}.{last}", 130 + n / 250, n % 250)})
    };
    orlop_integration::istio::document(&json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": format!("service-{n}"), "namespace": "default"},
        "spec": {
            "hosts": [format!("service-{n}.default.svc.cluster.local")],
            "addresses": [format!("10.97.{}.{}", n / 250, n % 250 + 1)],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "ports": PORTS.iter().map(port).collect::<Vec<_>>(),
            "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
        },
    }))
}
