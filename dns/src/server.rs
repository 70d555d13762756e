//! The thread that serves all pods.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::error;

use crate::pod::{PodDns, PodNetwork};
use crate::sockets::OpenError;

/// The node's resolver: a thread of its own, so that neither configuration nor traffic delays it. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    runtime: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("orlop-dns".to_owned()).spawn(move || {
            // Ended or dropped, both say the same.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, end: Some(end), thread: Some(thread) })
    }

    /// Opens the DNS of a pod.
    pub fn open(&self, network: PodNetwork) -> Result<PodDns, OpenError> {
        PodDns::open(&self.runtime, network)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the DNS thread ended in a panic");
        }
    }
}
