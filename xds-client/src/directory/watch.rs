//! Notices changes in the directory and publishes what it then says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::sync::watch::Sender;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::files::{Files, Snapshot};

/// Long enough for a copy of several files to finish, short enough not to be noticed.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Watches folders rather than files, so that files may be replaced by renaming or by swapping a link.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    changed: Arc<Notify>,
    watched: BTreeSet<PathBuf>,
    /// The folder that the directory lies in: the directory itself may be a link that is swapped.
    parent: Option<PathBuf>,
}

impl Watch {
    pub(super) fn new(root: &Path) -> notify::Result<Self> {
        let root = root.canonicalize().and_then(|_| std::path::absolute(root)).map_err(notify::Error::io)?;
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error, such as an overflow of the queue, means that anything may have changed.
            if event.map_or(true, |event| is_change(&event)) {
                notify.notify_one();
            }
        })?;
        let parent = root.parent().map(Path::to_owned);
        Ok(Self { watcher, changed, watched: BTreeSet::new(), parent })
    }

    /// Watches the folders that matter now and no others.
    pub(super) fn follow(&mut self, files: &Files) {
        let folders: BTreeSet<PathBuf> = files.folders().into_iter().chain(self.parent.clone()).collect();
        for folder in self.watched.difference(&folders) {
            // A folder that is gone took its watch with it.
            drop(self.watcher.unwatch(folder));
        }
        let mut watched: BTreeSet<PathBuf> = self.watched.intersection(&folders).cloned().collect();
        for folder in folders {
            if !watched.contains(&folder) {
                match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(watched.insert(folder)),
                    Err(error) => warn!(folder = %folder.display(), %error, "cannot watch"),
                }
            }
        }
        self.watched = watched;
    }

    /// Publishes a snapshot after each change, for as long as someone listens.
    pub(super) async fn run(mut self, mut files: Files, snapshots: Sender<Arc<Snapshot>>) {
        loop {
            tokio::select! {
                () = snapshots.closed() => return,
                () = self.changed.notified() => sleep(DEBOUNCE).await,
            }
            let scan = spawn_blocking(move || {
                let snapshot = files.scan();
                self.follow(&files);
                (self, files, snapshot)
            });
            // Fails only when the runtime shuts down.
            let Ok((watch, scanned, snapshot)) = scan.await else { return };
            (self, files) = (watch, scanned);
            if let Some(snapshot) = snapshot {
                info!(generation = snapshot.generation, "the control plane directory changed");
                snapshots.send_replace(Arc::new(snapshot));
            }
        }
    }
}

/// Reading a file is an event as well, and we read them.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
