//! `cargo xtask bench`: how fast, beside what there is to compare with.
//!
//! Everybody runs side by side on one machine and takes turns ([`turns`]); what comes out are rows, and from them ratios
//! with their spread ([`summary`]), verdicts on the project's goals ([`goals`]), and the ways to show them ([`report`]).
//! Pods, agents and peers live in a [`fleet`]; the load and the backend are [`worker`]s, processes of this same program.

mod cell;
mod cluster;
mod control;
mod cpu;
mod fleet;
mod goals;
mod machine;
mod memory;
mod placement;
mod report;
mod summary;
mod turns;
mod worker;

use std::env::{args_os, current_exe};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use self::cell::{Cell, Subject};
use self::fleet::Fleet;
use self::machine::Machine;
use self::placement::Placement;
use self::report::Results;
use self::turns::Programme;
use self::worker::Worker;
use crate::setup::{self, Need};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Args {
    #[command(subcommand)]
    worker: Option<Worker>,
    /// Cells to run; all of them and the agent's memory when not given.
    #[arg(long, value_delimiter = ',')]
    cells: Vec<Cell>,
    /// Who takes part besides the direct path; everybody when not given.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// Numbers of connections; those of the cell when not given.
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Turns that everybody takes.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Two turns of half a second: whether it works, not how fast it is.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// What configuration costs instead of what traffic does: many pods, many services.
    #[arg(long, conflicts_with_all = ["cells", "subjects", "connections", "rounds", "seconds", "quick"])]
    control: bool,
    /// What the mesh costs pods of a real Kubernetes, beside no mesh and beside real sidecars.
    #[arg(long, conflicts_with_all = ["cells", "subjects", "connections", "rounds", "seconds", "quick", "control"])]
    cluster: bool,
    /// Which processor everybody runs on.
    #[arg(long, value_enum, default_value = "pinned")]
    placement: Placement,
    /// Rewrite docs/benchmarks.md and its picture.
    #[arg(long)]
    write_docs: bool,
}

/// Runs the benchmark, or one of its workers.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.worker {
        Some(worker) => worker.run(),
        // What is measured must be built for release, and that includes what measures.
        None if cfg!(debug_assertions) => become_release(args),
        None => measure(args),
    }
}

/// Prepares the machine, builds everything for release and starts this command again from there.
fn become_release(args: &Args) -> Result<()> {
    setup::require_root("bench")?;
    let mut needs = vec![Need::Pods, Need::Peers, Need::Envoy];
    if args.measures_memory() {
        needs.push(Need::Istiod);
    }
    if args.cluster {
        needs.extend([Need::Cluster, Need::Sidecars]);
    }
    let programs = setup::prepare(&needs)?;
    let packages = ["orlop-agent", "orlop-integration", "xtask"].map(|package| ["--package", package]);
    setup::run(&mut setup::cargo(
        ["build", "--release", "--bins"].into_iter().chain(packages.into_iter().flatten()),
    )?)?;
    let debug = current_exe()?;
    let target = debug.ancestors().nth(2).context("this program is not in a target directory")?;
    let release = target.join("release").join("xtask");
    Err(Command::new(&release).args(args_os().skip(1)).envs(programs).exec())
        .with_context(|| format!("cannot start {}", release.display()))
}

fn measure(args: &Args) -> Result<()> {
    let machine = Machine::here()?;
    if args.control {
        let control = control::measure(machine)?;
        println!("{}", control.table());
        return control.save(&setup::workspace()?.join("target/bench"));
    }
    if args.cluster {
        let in_cluster = cluster::measure(machine)?;
        print!("{in_cluster}");
        return in_cluster.save(&setup::workspace()?.join("target/bench"));
    }
    let (rounds, seconds) = if args.quick { (2, 0.5) } else { (args.rounds, args.seconds) };
    let programme = Programme {
        cells: if args.cells.is_empty() { vec![Cell::A, Cell::B, Cell::D2] } else { args.cells.clone() },
        only: args.subjects.clone(),
        connections: args.connections.clone(),
        rounds,
        measured: Duration::from_secs_f64(seconds),
    };
    let memory = if args.measures_memory() { Some(memory::measure()?) } else { None };
    let fleet = Fleet::start(&programme.subjects(), args.placement)?;
    let rows = programme.run(&fleet, |row| {
        eprintln!(
            "{} {:>3} connections, round {}: {:<17}{:>9.0} rps, p50 {:.1} µs",
            row.cell, row.connections, row.run, row.subject, row.rps, row.p50_us
        );
    })?;
    drop(fleet);
    let results = Results { machine, placement: args.placement, seconds, rows, memory };
    results.print();
    let workspace = setup::workspace()?;
    results.save(&workspace.join("target/bench"))?;
    if args.write_docs {
        results.write_docs(&workspace.join("docs"))?;
    }
    Ok(())
}

impl Args {
    fn measures_memory(&self) -> bool {
        self.control || (self.cells.is_empty() && !self.cluster)
    }
}
