//! `cargo xtask test`.

use anyhow::Result;

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

/// Runs the tests.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.fast {
        return setup::run(&mut setup::cargo(["test", "--workspace", "--lib", "--bins"])?);
    }
    setup::require_root("test")?;
    let programs = setup::prepare(&[
        Need::Pods,
        Need::Envoy,
        Need::Conformance,
        Need::InstructionCounter,
        Need::Istiod,
        Need::Cluster,
        Need::Sidecars,
    ])?;
    // The tests on the bed run the binaries as an operator does. All at once, so that what tests and binaries depend on is built
    // for the same features, once.
    setup::run(&mut setup::cargo(["build", "--workspace", "--bins", "--tests"])?)?;
    // The databases of a cluster wait for the disk, which has all that still to be written.
    rustix::fs::sync();
    let mut tests = setup::cargo(["test", "--workspace", "--no-fail-fast"])?;
    setup::run(tests.envs(programs).env("RUST_TEST_THREADS", TESTS_AT_ONCE).env("RUST_LIB_BACKTRACE", "0"))
}
