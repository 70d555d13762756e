//! Child processes that end with their handle and tell what they said when something goes wrong.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running program. Killed and reaped on drop; its log is shown when that happens because a test panicked.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with what it prints on stderr going to `<dir>/<name>.log`. Stdout goes there too unless the
    /// command has it piped already, as [`Process::spawn_piped`] does.
    pub fn spawn(name: &str, dir: &Path, command: &mut Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Self::start(name, log, command)
    }

    /// Starts `command` with stdin and stdout as pipes.
    pub fn spawn_piped(name: &str, dir: &Path, command: &mut Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?);
        Self::start(name, log, command)
    }

    fn start(name: &str, log: PathBuf, command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The two ends of the pipes of [`Process::spawn_piped`], once.
    pub(crate) fn take_pipes(&mut self) -> Result<(ChildStdin, ChildStdout)> {
        self.child.stdin.take().zip(self.child.stdout.take()).context("the process was started without pipes")
    }

    /// Waits until `probe` says that the process is ready. Fails at once, with the end of its log, when it has ended.
    pub fn ready_when(self, probe: impl FnMut(&Self) -> Result<bool>) -> Result<Self> {
        self.ready_within(READY_TIMEOUT, probe)
    }

    /// As [`Process::ready_when`], for what takes longer.
    pub fn ready_within(
        mut self,
        timeout: Duration,
        mut probe: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<Self> {
        let ended = until(&format!("{} to be ready", self.name), timeout, || {
            let ended = self.child.try_wait()?;
            Ok(if ended.is_none() { probe(&self)?.then_some(None) } else { Some(ended) })
        });
        match ended.with_context(|| self.log_tail())? {
            None => Ok(self),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
        }
    }

    /// Asks it to stop, as the kubelet and systemd do (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Kills the process as `kill -9` does and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until the process ends by itself.
    pub fn wait_for_end(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        until(&what, timeout, || Ok(self.child.try_wait()?)).with_context(|| self.log_tail())
    }

    /// What the process has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of what it has printed.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of {} ---\n{}", self.name, self.log_tail());
        }
        // Fails only when it has ended already.
        let _ = self.kill();
    }
}
