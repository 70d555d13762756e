//! Processor time of the whole machine, as `/proc/stat` counts it: work that the kernel does in interrupts on behalf of a
//! proxy is real work, and only the machine's own count has it.

use std::time::Duration;

use anyhow::Context;

/// Columns of the `cpu` line that are work: user, nice, system, irq, softirq (`proc_stat(5)`; idle and iowait are 3 and
/// 4, steal is 7, and guest time is contained in user time).
const BUSY: [usize; 5] = [0, 1, 2, 5, 6];

/// Time spent working since boot, over all processors.
pub(super) fn busy() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let columns = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "))
        .context("/proc/stat has no cpu line")?;
    let columns = columns.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
    let ticks: u64 = BUSY.iter().filter_map(|column| columns.get(*column)).sum();
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}
