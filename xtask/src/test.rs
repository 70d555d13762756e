//! `cargo xtask test`: builds the tests and runs them in two lanes beside each other.
//!
//! Tests in a Kubernetes of their own mostly wait for it, one after another; meanwhile all others have the processors. Each
//! program's output is printed in one piece when it is over.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::setup::{self, Need};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The unit tests alone: no root, nothing to install.
    #[arg(long)]
    fast: bool,
}

/// Most of what a test on the bed does is to wait for other programs, so more of them run beside each other than
/// there are cores.
const TESTS_AT_ONCE: &str = "4";

type Programs = HashMap<&'static str, PathBuf>;

/// Runs the tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.fast {
        return setup::run(&mut setup::cargo(["test", "--workspace", "--lib", "--bins"])?);
    }
    setup::require_root("test")?;
    let programs: Programs = setup::prepare(&[
        Need::Pods,
        Need::Envoy,
        Need::Conformance,
        Need::InstructionCounter,
        Need::Istiod,
        Need::Cluster,
        Need::Sidecars,
    ])?
    .into_iter()
    .collect();
    let (clusters, others): (Vec<_>, Vec<_>) =
        built()?.into_iter().partition(|test| test.name.contains("cluster"));
    // A cluster's databases wait for the disk, which has all that was built still to be written.
    rustix::fs::sync();
    let failed = thread::scope(|scope| {
        let lanes = [clusters, others].map(|lane| {
            let programs = &programs;
            scope.spawn(move || failures(&lane, programs))
        });
        let joined = lanes.map(|lane| lane.join().map_err(|panic| anyhow!("{panic:?}")).flatten());
        joined.into_iter().collect::<Result<Vec<_>>>()
    })?;
    setup::run(&mut setup::cargo(["test", "--workspace", "--doc", "--quiet"])?)?;
    let failed = failed.concat();
    if failed.is_empty() {
        return Ok(());
    }
    bail!("tests failed in {}: each one's output is above", failed.join(", "))
}

/// A program of tests.
struct TestProgram {
    /// What its sources are named after; the unit tests of a library have the library's name.
    name: String,
    path: PathBuf,
    /// The folder of its package, where Cargo runs tests.
    folder: PathBuf,
    package: String,
}

/// Builds all test programs, and the binaries, which tests on the bed run as an operator does: at once, so that what both
/// depend on is built for the same features, once.
fn built() -> Result<Vec<TestProgram>> {
    let mut build = setup::cargo(["build", "--workspace", "--bins", "--tests"])?;
    build.arg("--message-format=json-render-diagnostics");
    let output = build.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not build: {}", output.status);
    }
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let programs: Vec<_> = messages
        .filter_map(|message| message.map(|it| program(&it)).transpose())
        .collect::<Result<_, _>>()?;
    if programs.is_empty() {
        bail!("cargo has built no tests");
    }
    Ok(programs)
}

/// The program that one of Cargo's messages is about (<https://doc.rust-lang.org/cargo/reference/external-tools.html>).
fn program(message: &Value) -> Option<TestProgram> {
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
    let path = text("/executable").filter(|_| is_test)?;
    Some(TestProgram {
        name: text("/target/name")?.to_owned(),
        path: path.into(),
        folder: Path::new(text("/manifest_path")?).parent()?.to_owned(),
        package: package_name(text("/package_id")?)?.to_owned(),
    })
}

/// Of `path+file:///FOLDER#NAME@VERSION`, or without `NAME@` where the folder bears the name
/// (<https://doc.rust-lang.org/cargo/reference/pkgid-spec.html>).
fn package_name(id: &str) -> Option<&str> {
    let (folder, package) = id.rsplit_once('#')?;
    package.split_once('@').map(|(name, _)| name).or_else(|| folder.rsplit('/').next())
}

/// Runs one after another, and names those that failed.
fn failures(tests: &[TestProgram], programs: &Programs) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    for test in tests {
        // Whoever waits for ever sees for what.
        println!("test: {} starts", test.name);
        let start = Instant::now();
        let output = Command::new(&test.path)
            .current_dir(&test.folder)
            // What Cargo says to tests.
            .env("CARGO_MANIFEST_DIR", &test.folder)
            .env("CARGO_PKG_NAME", &test.package)
            .envs(programs)
            .env("RUST_TEST_THREADS", TESTS_AT_ONCE)
            .env("RUST_LIB_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", test.path.display()))?;
        let mut terminal = std::io::stdout().lock();
        writeln!(terminal, "\ntest: {}, {} s", test.name, start.elapsed().as_secs())?;
        terminal.write_all(&output.stdout)?;
        terminal.write_all(&output.stderr)?;
        if !output.status.success() {
            writeln!(terminal, "test: {} FAILED: {}", test.name, output.status)?;
            failed.push(test.name.clone());
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_by_its_id_or_its_folder() {
        assert_eq!(package_name("path+file:///here/agent#orlop-agent@0.1.0"), Some("orlop-agent"));
        assert_eq!(package_name("path+file:///here/xtask#0.1.0"), Some("xtask"));
    }
}
