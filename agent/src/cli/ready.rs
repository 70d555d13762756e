//! `orlop ready`: for the probe of the agent's own pod.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde::Deserialize;

use super::ask;
use crate::admin::{Answer, Request};

/// As much of the status as says whether all is well.
#[derive(Deserialize)]
struct Status {
    ready: bool,
}

pub(super) fn run(socket: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let socket = ask::socket(socket)?;
    let stream = ask::request(&socket, &Request::Status { json: true })?;
    // While one agent takes over from another, both use one folder. The other's process has no number in this container.
    let answers = getsockopt(&stream, PeerCredentials).context("who answers is not known")?;
    ensure!(answers.pid() != 0, "the agent of another container answers: this one has not taken over yet");
    match ask::answer(stream)? {
        Answer::Done(status) if serde_json::from_str::<Status>(&status)?.ready => Ok(ExitCode::SUCCESS),
        Answer::Done(_) => bail!("not everything is carried: `orlop status` says what is not"),
        Answer::Refused(reason) => bail!(reason),
    }
}
