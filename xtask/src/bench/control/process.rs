//! What the agent's process has used: processor time of all its threads, its memory, and that of its BPF maps.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Time on a processor of all threads that live, from the scheduler's own account (nanoseconds, `/proc/PID/task/*/schedstat`).
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the agent is gone")? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += stat
            .split(' ')
            .next()
            .and_then(|ns| ns.parse::<u64>().ok())
            .context("a schedstat without a time")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Memory of the BPF maps that the process holds, in MB (10^6 bytes), as the kernel accounts for it.
pub(super) fn bpf_maps_mb(pid: u32) -> Result<f64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    Ok(maps.values().sum::<u64>() as f64 / 1e6)
}
