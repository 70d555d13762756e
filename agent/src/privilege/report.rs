//! What the threads of this process may do, as the kernel says it.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fmt, fs, io};

use rustix::thread::CapabilitySet;
use serde::Serialize;

/// Threads of one name that may do the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThreadGroup {
    /// Their name, without a number.
    name: String,
    threads: usize,
    /// Without `CAP_`.
    capabilities: Vec<String>,
    /// Some system calls are refused.
    filtered: bool,
}

/// All of this process.
pub(crate) fn thread_groups() -> io::Result<Vec<ThreadGroup>> {
    let mut groups = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")?.flatten() {
        // One that has ended meanwhile counts no more.
        if let Ok(kind) = kind(&task.path()) {
            *groups.entry(kind).or_default() += 1;
        }
    }
    let group = |((name, bits, filtered), threads)| {
        let held = CapabilitySet::from_bits_truncate(bits);
        let capabilities = held.iter_names().map(|(name, _)| name.to_owned()).collect();
        ThreadGroup { name, threads, capabilities, filtered }
    };
    Ok(groups.into_iter().map(group).collect())
}

/// A thread's name, effective capabilities, and whether it has a filter (`SECCOMP_MODE_FILTER`).
fn kind(task: &Path) -> io::Result<(String, u64, bool)> {
    let name = fs::read_to_string(task.join("comm"))?;
    let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    let status = fs::read_to_string(task.join("status"))?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map_or("", str::trim);
    let bits = u64::from_str_radix(field("CapEff:"), 16).map_err(io::Error::other)?;
    Ok((name.to_owned(), bits, field("Seccomp:") == "2"))
}

impl fmt::Display for ThreadGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, threads, capabilities, filtered } = self;
        write!(f, "{name} ({threads}): {}", capabilities.join(" ").to_lowercase())?;
        if *filtered { f.write_str("; system calls limited") } else { Ok(()) }
    }
}
