//! `orlop status`, `orlop explain` and `orlop flows`: questions to the running agent over its admin socket, or to one of a
//! cluster.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::Question;
use crate::admin::{Answer, RUN_DIR, Request, SOCKET};

const CUT_SHORT: &str = "the agent's answer was cut short";

pub(super) fn status(question: &Question) -> anyhow::Result<ExitCode> {
    question.elsewhere(&["status"])?;
    ask(question, &Request::Status { json: question.json })
}

pub(super) fn explain(
    workload: String,
    destination: String,
    question: &Question,
) -> anyhow::Result<ExitCode> {
    question.elsewhere(&["explain", &workload, &destination])?;
    ask(question, &Request::Explain { workload, destination, json: question.json })
}

/// Prints as long as the agent has something to say.
pub(super) fn flows(workload: Option<String>, question: &Question) -> anyhow::Result<ExitCode> {
    question.elsewhere(&["flows"].into_iter().chain(workload.as_deref()).collect::<Vec<_>>())?;
    let stream =
        request(&socket(question.socket.clone())?, &Request::Flows { workload, json: question.json })?;
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line?).context(CUT_SHORT)? {
            // Whoever reads may have had enough.
            Answer::Done(text) if writeln!(std::io::stdout(), "{text}").is_err() => break,
            Answer::Done(_) => {}
            Answer::Refused(reason) => bail!(reason),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(question: &Question, request: &Request) -> anyhow::Result<ExitCode> {
    match once(&socket(question.socket.clone())?, request)? {
        Answer::Done(text) => println!("{text}"),
        Answer::Refused(reason) => bail!(reason),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the agent answers: as given, or the only one there is.
pub(super) fn socket(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    given.map_or_else(|| only_socket(Path::new(RUN_DIR)), Ok)
}

/// One question to the agent at `socket`.
pub(super) fn once(socket: &Path, question: &Request) -> anyhow::Result<Answer> {
    answer(request(socket, question)?)
}

/// What the agent says to a question.
pub(crate) fn answer(stream: UnixStream) -> anyhow::Result<Answer> {
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply)?;
    serde_json::from_str(&reply).context(CUT_SHORT)
}

/// Asks the agent at `socket`, which has not answered yet.
pub(crate) fn request(socket: &Path, request: &Request) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no agent answers at {}; is `orlop agent` running?", socket.display()))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    Ok(stream)
}

/// The socket of the only agent of this machine.
fn only_socket(run_dir: &Path) -> anyhow::Result<PathBuf> {
    let sockets: Vec<PathBuf> = std::fs::read_dir(run_dir)
        .map(|nodes| nodes.filter_map(|n| Some(n.ok()?.path().join(SOCKET))).filter(|s| s.exists()).collect())
        .unwrap_or_default();
    match sockets.as_slice() {
        [socket] => Ok(socket.clone()),
        [] => bail!("no agent runs on this machine (nothing under {})", run_dir.display()),
        several => bail!(
            "several agents run on this machine; name one: {}",
            several.iter().map(|s| format!("--socket {}", s.display())).collect::<Vec<_>>().join(", ")
        ),
    }
}
