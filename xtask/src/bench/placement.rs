//! Which processor everybody runs on.
//!
//! Pinned, the two ends of the traffic share the first processor and whoever stands between them has the second one to
//! itself: one proxy core, the same for all, and no run that differs from the last because the scheduler chose otherwise.
//! Free, the scheduler chooses.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use orlop_integration::Pod;

/// How processes are spread over processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Placement {
    /// Load and backend on the first processor, proxies on the second.
    Pinned,
    /// Wherever the scheduler likes.
    Free,
}

/// What a process is in the run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seat {
    /// Load or backend.
    End,
    /// A proxy, or the agent.
    Between,
}

impl Seat {
    fn processor(self) -> &'static str {
        match self {
            Self::End => "0",
            Self::Between => "1",
        }
    }
}

impl Placement {
    /// A command that runs in the pod and on the seat's processor.
    pub(super) fn command(self, pod: &Pod, seat: Seat, program: impl AsRef<OsStr>) -> Result<Command> {
        self.start_by(|first| pod.command(first), seat, program.as_ref())
    }

    /// Like [`Placement::command`], in another group.
    pub(super) fn command_in_group(
        self,
        gid: u32,
        pod: &Pod,
        seat: Seat,
        program: impl AsRef<OsStr>,
    ) -> Result<Command> {
        self.start_by(|first| pod.command_in_group(gid, first), seat, program.as_ref())
    }

    fn start_by(
        self,
        enter: impl FnOnce(&OsStr) -> Result<Command>,
        seat: Seat,
        program: &OsStr,
    ) -> Result<Command> {
        match self {
            Self::Free => enter(program),
            Self::Pinned => {
                let mut command = enter("taskset".as_ref())?;
                command.args(["--cpu-list", seat.processor()]).arg(program);
                Ok(command)
            }
        }
    }

    /// Moves all threads of a running process to the seat's processor.
    pub(super) fn seat(self, pid: u32, seat: Seat) -> Result<()> {
        if self == Self::Pinned {
            let pid = pid.to_string();
            let arguments = ["--all-tasks", "--cpu-list", "--pid", seat.processor(), &pid];
            let output = Command::new("taskset")
                .args(arguments)
                .output()
                .context("cannot run taskset (util-linux)")?;
            ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}
