//! `cargo xtask image`: the agent as an OCI image, without Docker.
//!
//! The image is one binary, in the profile `release` and linked statically with the C library of this machine, and the folders
//! that a container runtime expects. It has no shell.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use orlop_integration::cluster::write_program;

use crate::setup;

/// Arguments of `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `REGISTRY/NAME:TAG`, by which a runtime that imports the archive knows the image.
    #[arg(long, default_value = concat!("localhost/orlop:", env!("CARGO_PKG_VERSION")))]
    tag: String,
    /// Where the archive goes.
    #[arg(long, default_value = "orlop-image.tar")]
    output: PathBuf,
}

/// Builds the agent and writes the image.
pub(crate) fn run(args: &Args) -> Result<()> {
    let build = ["rustc", "--release", "--locked", "--package", "orlop-agent", "--bin", "orlop"];
    setup::run(setup::cargo(build)?.args(["--", "-C", "target-feature=+crt-static"]))?;
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("this program lies in the target directory")?;
    let binary: &Path = &target.join("release/orlop");
    write_program(&args.output, &args.tag, "orlop", binary, &[], "")?;
    println!("{}: {}", args.output.display(), args.tag);
    Ok(())
}
