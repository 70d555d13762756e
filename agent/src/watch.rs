//! Watches node.yaml: every change of the file's content is read, checked, and handed on as a whole. Other folders are watched
//! by the same means.
//!
//! The folder is watched, not the file, so that an atomic rename and the symlink swap of a mounted `ConfigMap` are seen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::{self, ConfigError, NodeConfig};

/// Editors write in several steps; the file is read when they have been quiet for this long.
const SETTLE: Duration = Duration::from_millis(50);

/// The watch of a folder; ends when dropped.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    changed: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl FolderWatch {
    /// Starts to watch.
    pub(crate) fn start(folder: &Path) -> Result<Self, notify::Error> {
        let (seen, changed) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                // Full means that a reading is due anyway.
                let _ = seen.try_send(());
            }
        })?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(Self { changed, _watcher: watcher })
    }

    /// Returns when something in the folder has changed since the last time. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        // The watcher lives as long as `self`, so the channel never closes.
        let _ = self.changed.recv().await;
    }
}

/// The running watch; ends when dropped.
#[derive(Debug)]
pub struct ConfigWatch {
    path: PathBuf,
    folder: FolderWatch,
    /// When a change that was seen has settled, unless another follows.
    settled: Option<Instant>,
}

impl ConfigWatch {
    /// Starts to watch the folder of `path`.
    pub fn start(path: &Path) -> Result<Self, notify::Error> {
        let path = std::path::absolute(path).map_err(notify::Error::io)?;
        let folder = FolderWatch::start(path.parent().unwrap_or(Path::new("/")))?;
        Ok(Self { path, folder, settled: None })
    }

    /// The file as it is after the next change, read and checked. Cancel-safe: what has been seen is kept in `self`, so a
    /// change is neither lost nor put off when something else is done in between.
    pub async fn next(&mut self) -> Result<NodeConfig, ConfigError> {
        loop {
            let Some(settled) = self.settled else {
                self.folder.changed().await;
                self.settled = Some(Instant::now() + SETTLE);
                continue;
            };
            if timeout_at(settled, self.folder.changed()).await.is_err() {
                self.settled = None;
                return config::load(&self.path);
            }
            self.settled = Some(Instant::now() + SETTLE);
        }
    }
}
