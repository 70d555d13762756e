//! `cargo xtask <command>`: everything that is done with this project besides building it.

mod bench;
mod build_descriptors;
mod build_docs;
mod build_ebpf;
mod build_manifests;
mod cluster;
mod demo;
mod fuzz;
mod image;
mod setup;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every path that traffic can take, on pods made for it. Needs root.
    Demo(demo::Args),
    /// A Kubernetes of two nodes on this machine with Istio and Orlop, to be explored. Needs root.
    Cluster(cluster::Args),
    /// Make the agent's OCI image: a static binary, no Docker.
    Image(image::Args),
    /// Run the tests: all of them as root, the unit tests alone with --fast.
    Test(test::Args),
    /// Feed every decoder and the protocol's state machine with inputs that look for trouble.
    Fuzz(fuzz::Args),
    /// Measure how fast each path is, beside a direct connection and beside other proxies. Needs root.
    Bench(bench::Args),
    /// Write the descriptors of Envoy's API that the agent reads and prints JSON with.
    BuildDescriptors(Check),
    /// Write docs/xds.md, which says what becomes of every field of xDS.
    BuildDocs(Check),
    /// Write deploy/orlop.yaml from the Helm chart.
    BuildManifests(Check),
    /// Build the kernel programs into the object that the agent carries.
    BuildEbpf(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Write nothing; fail when the file is not what it would be.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BuildDescriptors(args) => build_descriptors::build(args.check),
        Command::BuildDocs(args) => build_docs::build(args.check),
        Command::BuildManifests(args) => build_manifests::build(args.check),
        Command::BuildEbpf(args) => build_ebpf::build(args.check),
    }
}
