//! `orlop enrol`: is a workload carried? With `--wait`, for the hook that starts a pod's first process: it comes back when
//! whatever the pod connects to is captured.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::ask;
use crate::admin::{Answer, Request};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) fn run(
    workload: &str,
    wait: Option<Duration>,
    socket: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let socket = ask::socket(socket)?;
    let deadline = Instant::now() + wait.unwrap_or_default();
    loop {
        let reason = match ask::once(&socket, &Request::Enrolled { workload: workload.to_owned() }) {
            Ok(Answer::Done(_)) => return Ok(ExitCode::SUCCESS),
            Ok(Answer::Refused(reason)) => reason,
            // An agent that is being replaced is back in a moment.
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            match wait {
                Some(wait) => bail!("{workload} is not carried after {} s: {reason}", wait.as_secs()),
                None => bail!("{workload} is not carried: {reason}"),
            }
        }
        sleep(PAUSE);
    }
}
