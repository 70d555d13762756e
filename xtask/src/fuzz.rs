//! `cargo xtask fuzz`: every fuzz target for a while.
//!
//! The targets are built by the stable compiler with LLVM's coverage counters and libFuzzer. What a run has learnt is kept
//! in the cache and built upon by the next; the seeds in `fuzz/corpus` come with the sources. An input that breaks a
//! target is left in `fuzz/artifacts` and the command that repeats it is printed.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long each target runs, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only these targets.
    targets: Vec<String>,
}

/// Coverage as libFuzzer wants it, without a sanitizer, which only the nightly compiler has. A hash table of a process's
/// own seed would make a run depend on chance, but nothing here iterates over one.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
/// An input that takes longer is a finding.
const SLOWEST_SECONDS: u32 = 5;
/// An input that needs more memory is one too.
const MOST_MEMORY_MIB: u32 = 1024;
/// Larger inputs make every step slower and find nothing that small ones do not.
const LONGEST_INPUT: u32 = 64 << 10;

/// Builds and runs the targets, as many beside each other as there are cores.
pub(crate) fn run(args: &Args) -> Result<()> {
    let home = setup::workspace()?.join("fuzz");
    let binaries = build(&home)?;
    let mut waiting: VecDeque<String> = targets(&home)?.into();
    if !args.targets.is_empty() {
        if let Some(unknown) = args.targets.iter().find(|name| !waiting.contains(name)) {
            bail!("there is no fuzz target {unknown}; there are {}", Vec::from(waiting).join(", "));
        }
        waiting = args.targets.clone().into();
    }
    let at_once = available_parallelism().map_or(1, usize::from);
    let mut running: Vec<(String, Child)> = Vec::new();
    let mut failed = Vec::new();
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < at_once
            && let Some(target) = waiting.pop_front()
        {
            running.push((target.clone(), start(&home, &binaries, &target, args.seconds)?));
        }
        sleep(Duration::from_millis(200));
        let mut still = Vec::new();
        for (target, mut child) in running {
            match child.try_wait()? {
                None => still.push((target, child)),
                Some(status) if status.success() => println!("fuzz: {target} found nothing"),
                Some(status) => {
                    println!("fuzz: {target} ended with {status}:\n{}", tail(&log(&binaries, &target)));
                    failed.push(target);
                }
            }
        }
        running = still;
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} found inputs that break what they test: see fuzz/artifacts; \
         `cargo xtask fuzz TARGET` runs one target again",
        failed.join(", ")
    )
}

/// The targets by name.
fn targets(home: &Path) -> Result<Vec<String>> {
    let manifest = fs::read_to_string(home.join("Cargo.toml"))?;
    let names =
        manifest.lines().filter_map(|line| line.strip_prefix("path = \"targets/")?.strip_suffix(".rs\""));
    Ok(names.map(ToOwned::to_owned).collect())
}

/// The folder with the binaries.
fn build(home: &Path) -> Result<PathBuf> {
    setup::install(&["g++"], "libFuzzer is C++")?;
    let target_dir = setup::cache()?.join("target/fuzz");
    // With a target named, the flags are for what runs there and not for build scripts.
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = setup::cargo(["build", "--quiet", "--release", "--locked", "--target", &triple])?;
    build.arg("--manifest-path").arg(home.join("Cargo.toml")).arg("--target-dir").arg(&target_dir);
    setup::run(build.env("RUSTFLAGS", FLAGS))?;
    Ok(target_dir.join(triple).join("release"))
}

fn start(home: &Path, binaries: &Path, target: &str, seconds: u32) -> Result<Child> {
    let learnt = setup::cache()?.join("fuzz").join(target);
    let seeds = home.join("corpus").join(target);
    let artifacts = home.join("artifacts").join(target);
    for folder in [&learnt, &artifacts] {
        fs::create_dir_all(folder)?;
    }
    let output = fs::File::create(log(binaries, target))?;
    Command::new(binaries.join(target))
        .arg(&learnt)
        .arg(&seeds)
        .arg(format!("-max_total_time={seconds}"))
        // What a run finds, the next one finds again.
        .arg("-seed=1")
        .arg(format!("-timeout={SLOWEST_SECONDS}"))
        .arg(format!("-rss_limit_mb={MOST_MEMORY_MIB}"))
        .arg(format!("-max_len={LONGEST_INPUT}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot run the fuzz target {target}"))
}

fn log(binaries: &Path, target: &str) -> PathBuf {
    binaries.join(format!("{target}.log"))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
}
