//! `cargo xtask cluster`: a real Kubernetes with Istio and Orlop, left to be explored.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use orlop_integration::Cluster;
use orlop_integration::cluster::{self, Programs};

use crate::setup::{self, Need};

/// Arguments of `cargo xtask cluster`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove the one that is there.
    #[arg(long)]
    down: bool,
}

/// Brings the cluster up, or down.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root("cluster")?;
    if args.down {
        let found = cluster::remove_explored()?;
        println!("{}", if found { "the cluster is removed" } else { "there is no cluster" });
        return Ok(());
    }
    let prepared: BTreeMap<_, _> = setup::prepare(&[Need::Cluster])?.into_iter().collect();
    let place = |name: &str| prepared.get(name).cloned().with_context(|| format!("{name} is not prepared"));
    setup::build_binaries()?;
    println!("starting two nodes");
    let cluster = Cluster::start_explored(Programs::named(place)?)?;
    println!("installing Istio");
    cluster.install_istio()?;
    println!("installing Orlop");
    cluster.install_orlop()?;
    println!("deploying a sample");
    cluster.apply(include_str!("../../deploy/sample.yaml"))?;
    println!("{}", cluster.how_to_explore());
    cluster.leave();
    Ok(())
}
