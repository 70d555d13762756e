//! A handle on a network namespace, and the only way to run code inside it.

use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// An open network namespace. Keeps the namespace alive while it exists, even when its file has been unmounted.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
    id: NetNsId,
}

/// What identifies a namespace for the kernel: device and inode of its nsfs file. A namespace that was deleted and
/// made again under the same path has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetNsId {
    dev: u64,
    ino: u64,
}

/// Why a namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// The path does not exist or cannot be opened.
    #[error("cannot open network namespace {path}")]
    Open {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The path is a file, but not a network namespace, or this process may not enter it (needs `CAP_SYS_ADMIN`).
    #[error("cannot enter network namespace {path}")]
    Enter {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl NetNs {
    /// Opens the namespace at `path` (`/run/netns/NAME`, `/proc/PID/ns/net`).
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let failed = |source| NetNsError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let id = NetNsId::of(&file).map_err(failed)?;
        Ok(Self { file, path: path.to_owned(), id })
    }

    /// The identity of the namespace that was opened.
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open nsfs file, for `sk_lookup` attachment.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the path still names the namespace that was opened (false once deleted, or deleted and made again).
    pub fn is_current(&self) -> bool {
        File::open(&self.path).and_then(|f| NetNsId::of(&f)).is_ok_and(|id| id == self.id)
    }

    /// Runs `work` with the calling thread inside this namespace and returns to the thread's own one.
    ///
    /// `work` is a plain closure on purpose: nothing can `.await` between entering and leaving, so no other task of the
    /// thread ever runs inside the pod. Aborts the process when the thread cannot return.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetNsError> {
        let home = HomeNs::of_this_thread().map_err(|source| self.enter_error(source))?;
        self.run_from(&home, work)
    }

    /// [`run`](Self::run) for a thread that enters often: finding the way home is three quarters of the time.
    pub fn run_from<T>(&self, home: &HomeNs, work: impl FnOnce() -> T) -> Result<T, NetNsError> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| self.enter_error(e.into()))?;
        let _return = Return(home);
        Ok(work())
    }

    fn enter_error(&self, source: std::io::Error) -> NetNsError {
        NetNsError::Enter { path: self.path.clone(), source }
    }
}

/// The namespace that a thread lives in, kept open to return to. Stays on its thread.
#[derive(Debug)]
pub struct HomeNs {
    file: File,
    _not_send: PhantomData<*const ()>,
}

impl HomeNs {
    /// Fails without `/proc`, or out of descriptors.
    pub fn of_this_thread() -> std::io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net")?, _not_send: PhantomData })
    }
}

/// Brings the thread home when dropped, also when the closure panics.
struct Return<'h>(&'h HomeNs);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if move_into_link_name_space(self.0.file.as_fd(), Some(LinkNameSpaceType::Network)).is_err() {
            std::process::abort();
        }
    }
}

impl NetNsId {
    /// Device and inode.
    pub fn parts(self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// From device and inode, as another process names it.
    pub fn from_parts((dev, ino): (u64, u64)) -> Self {
        Self { dev, ino }
    }

    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { dev: meta.dev(), ino: meta.ino() })
    }
}
