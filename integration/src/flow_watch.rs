//! `orlop flows`, watched.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::agent::Agent;
use crate::pod::Pod;
use crate::process::Process;
use crate::tools::workspace_binary;

/// How long a line may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is told of connections of one workload. Ends with this handle.
#[derive(Debug)]
pub struct FlowWatch {
    lines: Receiver<String>,
    _process: Process,
}

impl FlowWatch {
    /// Begins to watch, and returns when what the pod does is told: `probe` has it connect somewhere.
    pub fn start(agent: &Agent, pod: &Pod, probe: impl Fn() -> Result<()>) -> Result<Self> {
        let mut command = Self::command(agent, pod.name())?;
        let mut process = Process::spawn_piped("orlop-flows", pod.dir(), &mut command)?;
        let (_, stdout) = process.take_pipes()?;
        let (tell, lines) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.take_while(|line| tell.send(line.clone()).is_ok()).for_each(drop);
        });
        let this = Self { lines, _process: process };
        for _ in 0..50 {
            probe()?;
            if this.lines.recv_timeout(Duration::from_millis(100)).is_ok() {
                // Whatever the probes before have done.
                while this.lines.recv_timeout(Duration::from_millis(300)).is_ok() {}
                return Ok(this);
            }
        }
        bail!("`orlop flows` tells nothing")
    }

    /// The program that prints them.
    pub fn command(agent: &Agent, workload: &str) -> Result<Command> {
        let mut command = Command::new(workspace_binary("orlop")?);
        command.args(["flows", "--json", workload, "--socket"]).arg(agent.socket());
        Ok(command)
    }

    /// The next line.
    pub fn next(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(PATIENCE).context("nothing was told of a connection")?;
        Ok(serde_json::from_str(&line)?)
    }
}
