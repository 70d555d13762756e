//! The way into a pod.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The cgroup first: it lies in a file system that some ways into a namespace hide.
#[derive(Debug, clap::Args)]
pub(crate) struct Enter {
    #[arg(long)]
    cgroup: PathBuf,
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The group to be in.
    #[arg(long)]
    gid: Option<u32>,
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

impl Enter {
    /// Returns only on failure.
    pub(crate) fn run(self) -> Result<()> {
        fs::write(self.cgroup.join("cgroup.procs"), "0")
            .with_context(|| format!("cannot enter the cgroup {}", self.cgroup.display()))?;
        if let Some(path) = &self.netns {
            let netns = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter the network namespace {}", path.display()))?;
        }
        let (program, arguments) = self.program.split_first().context("no program to run")?;
        let mut command = Command::new(program);
        command.args(arguments);
        if let Some(gid) = self.gid {
            command.gid(gid);
        }
        Err(command.exec()).with_context(|| format!("cannot run {}", program.display()))
    }
}
