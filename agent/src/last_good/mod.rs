//! The last good configuration, kept on disk: an agent that starts while the control plane is away comes up with it.
//!
//! In: the node task says that something changed, and hands over what is in force when it is time to save. Out: at
//! enrolment, what the same workload had before. Only accepted resources are saved, as the bytes that they came as, and
//! never a `Secret`: private keys do not touch the disk. What was saved counts as held by the workload, so that the control
//! plane, once it is back, says what has changed or gone.

mod file;
mod format;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use orlop_plan::snapshot::{Resource, ResourceType};
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

pub use file::FileError;
pub use format::{Contents, FormatError, Writer};

/// The file in the node's state folder.
const FILE: &str = "last-good";
/// A configuration that changes all the time is not written more often than this,
const INTERVAL: Duration = Duration::from_secs(10);
/// nor more than a hundredth of the time,
const SHARE: u32 = 100;
/// as long as that does not leave what is saved too old.
const LONGEST_INTERVAL: Duration = Duration::from_mins(1);
/// Of `setpriority(2)`.
const LOWEST_PRIORITY: i32 = 19;

/// What a save that is under way comes to: how long it took.
type Saving = oneshot::Receiver<Result<Duration, FileError>>;

/// The owner of the file.
#[derive(Debug)]
pub(crate) struct LastGood {
    path: PathBuf,
    control_plane: String,
    /// Read at start, for the workloads that are enrolled then.
    restored: Contents,
    changed: bool,
    saving: Option<Saving>,
    /// Not before then is it saved again.
    not_before: Option<Instant>,
    /// Why the last save failed; the file as it was found is another matter, and stays in the status.
    save_error: Option<String>,
    status: LastGoodStatus,
}

/// For `orlop status`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastGoodStatus {
    path: PathBuf,
    /// When the file was last written by this agent.
    saved: Option<SystemTime>,
    /// Something has changed that is not in the file yet.
    pending: bool,
    /// Workloads that came up with what was saved.
    restored: usize,
    /// What is wrong: with the file as this agent found it, or with the last attempt to write it.
    pub(crate) problem: Option<String>,
}

impl LastGood {
    /// Reads what an agent of this node saved, if it came from the same control plane. A file that is of no use never
    /// keeps the agent from starting; `status` says what is wrong with it.
    pub(crate) fn open(state_dir: &Path, control_plane: &str) -> Self {
        let path = state_dir.join(FILE);
        let (restored, problem) = match file::load(&path) {
            Ok(file::Found::Nothing) => (Contents::default(), None),
            Ok(file::Found::Saved(contents)) if contents.control_plane() == control_plane => {
                info!(workloads = contents.workloads(), path = %path.display(), "read the last good configuration");
                (contents, None)
            }
            Ok(file::Found::Saved(contents)) => {
                let from = contents.control_plane();
                info!(from, "the saved configuration is another control plane's and is not used");
                (Contents::default(), None)
            }
            Ok(file::Found::SetAside { path: aside, reason }) => {
                let problem = format!(
                    "{} is not used: {reason}; it was set aside as {}",
                    path.display(),
                    aside.display()
                );
                (Contents::default(), Some(problem))
            }
            Err(error) => (Contents::default(), Some(error.to_string())),
        };
        if let Some(problem) = &problem {
            error!(%problem, "comes up without the last good configuration");
        }
        Self {
            status: LastGoodStatus { path: path.clone(), saved: None, pending: false, restored: 0, problem },
            path,
            control_plane: control_plane.to_owned(),
            restored,
            changed: false,
            saving: None,
            not_before: None,
            save_error: None,
        }
    }

    /// What the workload with this node id had, type by type, in order of dependency.
    pub(crate) fn restore(&mut self, node_id: &str) -> Option<Vec<(ResourceType, Vec<Resource>)>> {
        let saved = self.restored.workload(node_id)?;
        self.status.restored += 1;
        Some(saved)
    }

    /// The workloads of the start are enrolled: what nobody asked for is not needed any more.
    pub(crate) fn forget(&mut self) {
        self.restored = Contents::default();
    }

    /// Something that is saved is not as it was.
    pub(crate) fn changed(&mut self) {
        self.changed = true;
    }

    /// Takes note of a save that has ended. Whether it is time for the next.
    pub(crate) async fn is_due(&mut self) -> bool {
        if let Some(saving) = self.saving.take_if(|saving| !saving.is_empty() || saving.is_terminated()) {
            self.saved(outcome(saving).await);
        }
        self.changed && self.saving.is_none() && self.not_before.is_none_or(|time| time <= Instant::now())
    }

    /// Saves what `collect` writes, on a thread of its own, which gives way to everything else on the node.
    pub(crate) fn save(&mut self, collect: impl FnOnce(&mut Writer<BufWriter<File>>) + Send + 'static) {
        self.changed = false;
        self.not_before = Some(Instant::now() + INTERVAL);
        let (done, saving) = oneshot::channel();
        let (path, control_plane) = (self.path.clone(), self.control_plane.clone());
        let save = move || {
            // Without, it takes its share and is as good.
            let _nice = setpriority_process(Some(gettid()), LOWEST_PRIORITY);
            let began = Instant::now();
            let saved = file::save(&path, &control_plane, collect);
            // Nobody waits for it any more when the agent has ended.
            let _told = done.send(saved.map(|()| began.elapsed()));
        };
        // A thread that does not start drops `done`, which says so.
        drop(thread::Builder::new().name("orlop-save".to_owned()).spawn(save));
        self.saving = Some(saving);
    }

    /// Waits for a save that is under way, at the end.
    pub(crate) async fn finish(&mut self) {
        if let Some(saving) = self.saving.take()
            && let Err(error) = outcome(saving).await
        {
            warn!(%error, "the last good configuration was not saved");
        }
    }

    fn saved(&mut self, outcome: Result<Duration, String>) {
        match outcome {
            Ok(took) => {
                let pause = took.saturating_mul(SHARE).clamp(INTERVAL, LONGEST_INTERVAL);
                self.not_before = Some(Instant::now() + pause);
                self.status.saved = Some(SystemTime::now());
                self.save_error = None;
            }
            Err(problem) => {
                warn!(%problem, "the last good configuration was not saved; will be tried again");
                self.save_error = Some(problem);
                self.changed = true;
            }
        }
    }

    pub(crate) fn status(&self) -> LastGoodStatus {
        LastGoodStatus {
            pending: self.changed || self.saving.is_some(),
            problem: self.save_error.as_ref().or(self.status.problem.as_ref()).cloned(),
            ..self.status.clone()
        }
    }
}

async fn outcome(saving: Saving) -> Result<Duration, String> {
    let saved = saving.await.map_err(|_| "the thread that saves did not start, or ended".to_owned())?;
    saved.map_err(|error| error.to_string())
}
