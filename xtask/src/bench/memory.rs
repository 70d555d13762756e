//! How much memory the agent takes with ten workloads, by a real istiod's base configuration.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use orlop_integration::{Agent, Bed, Istiod, Pod};
use serde::Serialize;

use super::fleet::process_of;

const WORKLOADS: usize = 10;

/// What the project has set itself.
const GOAL_MB: f64 = 25.0;

/// Long enough for what was needed only to start to be given back.
const SETTLE: Duration = Duration::from_secs(3);

/// The agent's share of the machine's memory.
#[derive(Debug, Clone, Serialize)]
pub(super) struct AgentMemory {
    /// Pods that it carried.
    pub(super) workloads: usize,
    /// Proportional set size of its process in MB (10^6 bytes); BPF maps are not in it.
    pub(super) pss_mb: f64,
}

/// Starts istiod and an agent with ten workloads, and reads the agent's proportional set size.
pub(super) fn measure() -> Result<AgentMemory> {
    // Apart from the agent's bed, so that the agent's cgroup holds the agent alone.
    let istiod_bed = Bed::new()?;
    let istiod = Istiod::start(&istiod_bed, &[])?;
    let bed = Bed::new()?;
    let pods = (0..WORKLOADS).map(|n| bed.plain_pod(&format!("pod-{n}"))).collect::<Result<Vec<_>>>()?;
    let pods: Vec<&Pod> = pods.iter().collect();
    let _agent = Agent::start(&bed, &istiod, &pods)?;
    sleep(SETTLE);
    Ok(AgentMemory { workloads: WORKLOADS, pss_mb: pss_mb(process_of(&bed)?)? })
}

/// Proportional set size of a process, MB.
pub(super) fn pss_mb(pid: u32) -> Result<f64> {
    pss_of(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the agent's smaps_rollup")?)
}

/// The same of what the kernel says in `smaps_rollup`.
pub(super) fn pss_of(rollup: &str) -> Result<f64> {
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
    let kib: f64 = kib.and_then(|kib| kib.parse().ok()).context("smaps_rollup has no Pss line")?;
    Ok(kib * 1024.0 / 1e6)
}

impl std::fmt::Display for AgentMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.pss_mb <= GOAL_MB { "met" } else { "missed" };
        write!(
            f,
            "Agent with {} workloads and istiod's base configuration: {:.1} MB PSS, goal ≤ {GOAL_MB:.0} MB: {verdict}",
            self.workloads, self.pss_mb
        )
    }
}
