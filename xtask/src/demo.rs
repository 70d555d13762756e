//! `cargo xtask demo`.

use anyhow::Result;

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
pub(crate) fn run(_args: &Args) -> Result<()> { Ok(()) }
