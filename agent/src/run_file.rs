//! A socket's file in the node's folder, removed by the agent that made it and by no other.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Removes its file when dropped, unless another agent has put its own in the place: one that has taken over.
#[derive(Debug)]
pub(crate) struct RunFile {
    path: PathBuf,
    inode: u64,
}

impl RunFile {
    /// Makes room. The caller holds the node's lock, so a file that is there is stale, or of the agent that hands over.
    pub(crate) fn clear(path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Of a file that was just made.
    pub(crate) fn made(path: PathBuf) -> io::Result<Self> {
        let inode = std::fs::symlink_metadata(&path)?.ino();
        Ok(Self { path, inode })
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
