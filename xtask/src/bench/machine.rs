//! Where and when a result was obtained: without that, no figure means anything.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result};
use orlop_integration::tools::{ENVOY_ENV, prepared};
use serde::Serialize;

/// The machine, the kernel, the day, and the versions of the peers.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    /// Processor model.
    pub(super) processor: String,
    /// How many processors.
    pub(super) processors: usize,
    /// Memory in GiB.
    pub(super) memory_gib: u64,
    /// Kernel release.
    pub(super) kernel: String,
    /// Day of the run, UTC, ISO 8601.
    pub(super) date: String,
    /// The commit that was measured, with `-dirty` when the tree had changes.
    pub(super) commit: String,
    /// The peers, as they name themselves.
    pub(super) versions: Vec<String>,
}

impl Machine {
    /// This machine, now.
    pub(super) fn here() -> Result<Self> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
        let processor = field(&cpuinfo, "model name").unwrap_or("unknown").to_owned();
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let kib: u64 =
            field(&meminfo, "MemTotal").and_then(|v| v.split(' ').next()?.parse().ok()).unwrap_or_default();
        Ok(Self {
            processor,
            processors: std::thread::available_parallelism()?.get(),
            memory_gib: kib.div_ceil(1024 * 1024),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            date: line_of("date", &["--utc", "--iso-8601"])?,
            commit: line_of("git", &["describe", "--always", "--dirty"])?,
            versions: versions()?,
        })
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

fn versions() -> Result<Vec<String>> {
    // "nginx version: nginx/1.22.1", "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", and
    // "PATH/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL".
    let nginx = line_of("nginx", &["-v"])?.replace("nginx version: nginx/", "nginx ");
    let haproxy = line_of("haproxy", &["-v"])?.replace("version ", "");
    let haproxy = haproxy.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let envoy = line_of(prepared(ENVOY_ENV)?, &["--version"])?;
    let envoy =
        envoy.split("version: ").nth(1).and_then(|version| version.split('/').nth(1)).unwrap_or(&envoy);
    Ok(vec![nginx, haproxy, format!("Envoy {envoy}")])
}

/// The first line that a program prints, nginx on stderr.
fn line_of(program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned())
}
