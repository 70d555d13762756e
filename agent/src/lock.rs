//! One agent per node: an advisory lock that the kernel drops with the process, however it ends.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held for as long as the agent runs.
#[derive(Debug)]
pub struct NodeLock(File);

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be made.
    #[error("cannot open {path}: {source}", path = path.display())]
    Open {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Another agent holds it.
    #[error("another orlop agent (pid {pid}) runs for node {node}; stop it first", pid = pid.trim())]
    Held {
        /// The node's name.
        node: String,
        /// What the holder wrote.
        pid: String,
    },
}

impl NodeLock {
    /// Takes `run_dir/agent.lock` without waiting.
    pub fn take(run_dir: &Path, node: &str) -> Result<Self, LockError> {
        let path = run_dir.join("agent.lock");
        let failed = |source| LockError::Open { path: path.clone(), source };
        std::fs::create_dir_all(run_dir).map_err(failed)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            return Err(LockError::Held { node: node.to_owned(), pid });
        }
        sign(&mut file).map_err(failed)?;
        Ok(Self(file))
    }

    /// For the agent that takes over.
    pub fn share(&self) -> std::io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// Takes it from the agent that held it: the same open file, which stays locked until both have closed it.
    pub fn inherit(mut file: File) -> std::io::Result<Self> {
        sign(&mut file)?;
        Ok(Self(file))
    }
}

/// Says who holds it.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = NodeLock::take(dir.path(), "n").unwrap();
        let error = NodeLock::take(dir.path(), "n").unwrap_err().to_string();
        assert_eq!(
            error,
            format!("another orlop agent (pid {}) runs for node n; stop it first", std::process::id())
        );
        drop(first);
        NodeLock::take(dir.path(), "n").unwrap();
    }
}
