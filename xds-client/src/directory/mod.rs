//! A directory of files as the control plane.
//!
//! One task watches the directory for all workloads and publishes a snapshot of its content after each change.
//! Each stream has a task in which a small xDS server, fed with the snapshots, answers the same protocol that
//! istiod is spoken to with; so deliveries look alike whatever their source.

mod file;
mod files;
mod server;
mod watch;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync;

use crate::consumer::{Consumer, Stream};
use crate::protocol::{Ads, Protocol};
use crate::shared::Shared;
use crate::{ClientError, Node, Restored};
use files::{Files, Snapshot};
use watch::Watch;
use worker::Worker;

#[cfg(any(test, fuzzing))]
pub(crate) use server::Server;

/// The directory's content, kept up to date for as long as this or a stream lives.
#[derive(Debug)]
pub(crate) struct Directory {
    snapshots: sync::watch::Receiver<Arc<Snapshot>>,
    shared: Shared,
}

impl Directory {
    /// Reads the directory and begins to watch it.
    pub(crate) fn new(path: PathBuf) -> Result<Self, ClientError> {
        let mut watch =
            Watch::new(&path).map_err(|source| ClientError::Directory { path: path.clone(), source })?;
        let mut files = Files::new(path);
        // Watching before reading: a change in between is seen again rather than missed.
        watch.follow(&files);
        let snapshot = files.scan().unwrap_or_default();
        watch.follow(&files);
        let (sender, snapshots) = sync::watch::channel(Arc::new(snapshot));
        tokio::spawn(watch.run(files, sender));
        Ok(Self { snapshots, shared: Shared::default() })
    }

    pub(crate) fn open(&self, node: Node, restored: Restored) -> Stream {
        let (consumer, deliveries, status) = Consumer::new();
        let mut ads = Ads::new(Protocol::Delta, node.message, node.names, &self.shared);
        ads.restore(restored, Instant::now());
        let task = tokio::spawn(Worker::new(node.name, self.snapshots.clone(), ads, consumer).run());
        Stream::new(deliveries, status, task)
    }
}
