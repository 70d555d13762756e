//! `cargo xtask demo`: every path that traffic can take, on pods made for it, with the reason and the proof.

mod scene;
mod table;
mod traffic;

use anyhow::{Result, ensure};
use orlop_integration::bed::{Kept, sweep};
use orlop_integration::tools::{ISTIOD_ENV, workspace_binary};

use crate::setup::{self, Need};
use scene::Scene;
use traffic::{Outcome, TRAFFIC, Traffic};

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Let a real istiod configure the agent instead of a directory of xDS files. Needs Go for its first build.
    #[arg(long)]
    istiod: bool,
    /// Leave everything up to be explored, and say how to remove it.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root("demo")?;
    let mut needs = vec![Need::Pods];
    if args.istiod {
        needs.push(Need::Istiod);
    }
    let programs = setup::prepare(&needs)?;
    setup::build_binaries()?;
    for bed in sweep(Kept::Remove)? {
        println!("Removed what an earlier run had left: {bed}.");
    }

    let istiod = programs.into_iter().find(|(name, _)| *name == ISTIOD_ENV).map(|(_, program)| program);
    let scene = Scene::open(istiod)?;
    println!("{}", table::heading(args.istiod));
    let mut outcomes: Vec<(&Traffic, Outcome)> = Vec::new();
    for traffic in &TRAFFIC {
        let outcome = traffic.observe(&scene)?;
        println!("{}", table::row(traffic, &outcome));
        outcomes.push((traffic, outcome));
    }
    println!("{}", table::reasons(&outcomes));
    println!("{}", table::LEGEND);
    if args.keep { keep(scene) } else { remove(scene) }
}

fn keep(scene: Scene) -> Result<()> {
    scene.bed.keep()?;
    let orlop = workspace_binary("orlop")?;
    let (orlop, socket) = (orlop.display(), scene.agent.socket());
    let socket = socket.display();
    let enter = workspace_binary("bed-pod")?;
    println!(
        "Everything is still up. To explore it:\n\
         \x20 {orlop} status --socket {socket}\n\
         \x20 {orlop} explain client 10.96.0.20:8080 --socket {socket}\n\
         \x20 {} enter --cgroup {} --netns {} -- bash    # a shell in the pod `client`\n\
         \x20 {}    # the configuration; edits take effect at once\n\
         To remove it: cargo xtask demo (which removes this before it starts anew).",
        enter.display(),
        scene.client.cgroup()?.display(),
        scene.client.netns().display(),
        scene.config.display(),
    );
    // The processes and namespaces outlive this program because nobody drops their handles.
    std::mem::forget(scene);
    Ok(())
}

fn remove(scene: Scene) -> Result<()> {
    let Scene { mut agent, istiod, config: _, client, bystander, servers, bed } = scene;
    agent.stop()?;
    drop((agent, istiod, client, bystander, servers));
    let left = bed.remove()?;
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    println!("Removed again, and checked: no namespace, cgroup, pin, file or process is left.");
    Ok(())
}
