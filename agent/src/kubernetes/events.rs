//! What is wrong with a pod is said where its owner looks: as an event on the pod.
//!
//! The task owns what has been said. What has just begun to be wrong mostly passes, so only what lasts is said; the same of the
//! same pod not again for a while, and not of many pods at once. What `orlop status` says is more, and newer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::pod;
use crate::config::WorkloadId;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// For so long something has to be wrong before it is said.
const LASTS: Duration = Duration::from_secs(3);
/// Before the same is said of the same pod again.
const REPEAT: Duration = Duration::from_mins(10);
/// Events of one look.
const AT_ONCE: usize = 10;
/// The API server takes no longer notes (1 kB).
const LONGEST_NOTE: usize = 1000;

/// What is wrong with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In one word, as events have it.
    pub(crate) reason: &'static str,
    /// In words.
    pub(crate) note: String,
}

/// Those of this node by what they are about.
pub(crate) type Troubles = BTreeMap<WorkloadId, Trouble>;

/// The task that writes the events. What keeps it from that is said in `problem`.
pub(super) struct Events {
    pub(super) recorder: Recorder,
    pub(super) pods: Store<Pod>,
    pub(super) troubles: watch::Receiver<Troubles>,
    /// Where the plug-in has noted which pods it did not hold.
    pub(super) not_held: PathBuf,
    pub(super) problem: watch::Sender<Option<String>>,
}

impl Events {
    /// Runs until it is aborted.
    pub(super) async fn write(self) {
        let mut said = Said::default();
        // Before the pods are known, nobody can be told. An error says that they never will be.
        let _ = self.pods.wait_until_ready().await;
        loop {
            tokio::time::sleep(PAUSE).await;
            let outcome = self.look(&mut said).await;
            if let Err(reason) = &outcome
                && self.problem.borrow().as_deref() != Some(reason)
            {
                warn!(%reason, "pods are not told by events what is wrong with them");
            }
            self.problem.send_replace(outcome.err());
        }
    }

    async fn look(&self, said: &mut Said) -> Result<(), String> {
        let pods = self.pods.state();
        // With one that goes, nothing is wrong that somebody could mend.
        let stays = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let pods: BTreeMap<_, _> = stays.map(|pod| (pod::id(pod), pod)).collect();
        let troubles = self.troubles.borrow().clone();
        for id in said.due(&troubles, Instant::now()) {
            if let (Some(pod), Some(trouble)) = (pods.get(&id), troubles.get(&id)) {
                self.publish(pod, trouble).await?;
            }
            said.have_said(&id, &troubles, Instant::now());
        }
        self.tell_of_those_not_held(pods.values().map(|pod| &***pod)).await
    }

    /// What the plug-in has noted is said once.
    async fn tell_of_those_not_held(&self, pods: impl Iterator<Item = &Pod>) -> Result<(), String> {
        let Ok(notes) = std::fs::read_dir(&self.not_held) else { return Ok(()) };
        let pods: BTreeMap<_, _> = pods.filter_map(|pod| Some((pod.uid()?, pod))).collect();
        for note in notes.flatten().take(AT_ONCE) {
            let reason = std::fs::read_to_string(note.path()).unwrap_or_default();
            if let Some(pod) = note.file_name().to_str().and_then(|uid| pods.get(uid)) {
                let note = format!(
                    "it was started before Orlop carried it ({reason}): its first connections may have gone as without a mesh"
                );
                self.publish(pod, &Trouble { reason: "StartedDirect", note }).await?;
            }
            // A pod that is not there any more needs no event.
            std::fs::remove_file(note.path()).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn publish(&self, pod: &Pod, Trouble { reason, note }: &Trouble) -> Result<(), String> {
        let event = Event {
            type_: EventType::Warning,
            reason: (*reason).to_owned(),
            note: note.get(..note.floor_char_boundary(LONGEST_NOTE)).map(str::to_owned),
            action: "Carrying".to_owned(),
            secondary: None,
        };
        let sent = self.recorder.publish(&event, &pod.object_ref(&())).await;
        sent.map_err(|error| format!("events: {error}"))
    }
}

/// What has been said, and since when what has not been said is wrong.
#[derive(Debug, Default)]
struct Said {
    since: BTreeMap<(WorkloadId, &'static str), Instant>,
    last: BTreeMap<(WorkloadId, &'static str), Instant>,
}

impl Said {
    /// Of whom something is to be said now.
    fn due(&mut self, troubles: &Troubles, now: Instant) -> Vec<WorkloadId> {
        let present: BTreeSet<_> =
            troubles.iter().map(|(id, trouble)| (id.clone(), trouble.reason)).collect();
        self.since.retain(|what, _| present.contains(what));
        self.last.retain(|_, said| now.duration_since(*said) < REPEAT);
        let mut due = Vec::new();
        for what in present {
            let since = *self.since.entry(what.clone()).or_insert(now);
            if now.duration_since(since) >= LASTS && !self.last.contains_key(&what) {
                due.push(what.0);
            }
        }
        due.truncate(AT_ONCE);
        due
    }

    fn have_said(&mut self, id: &WorkloadId, troubles: &Troubles, now: Instant) {
        if let Some(trouble) = troubles.get(id) {
            self.last.insert((id.clone(), trouble.reason), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> WorkloadId {
        WorkloadId { namespace: "shop".to_owned(), name: name.to_owned() }
    }

    fn troubles(names: &[&str], reason: &'static str) -> Troubles {
        names.iter().map(|name| (id(name), Trouble { reason, note: String::new() })).collect()
    }

    #[test]
    fn what_lasts_is_said_once_and_after_a_while_again() {
        let (mut said, start) = (Said::default(), Instant::now());
        let wrong = troubles(&["web"], "NoCertificate");
        assert!(said.due(&wrong, start).is_empty());
        assert_eq!(said.due(&wrong, start + LASTS), [id("web")]);
        said.have_said(&id("web"), &wrong, start + LASTS);
        assert!(said.due(&wrong, start + LASTS * 2).is_empty());
        assert_eq!(said.due(&wrong, start + LASTS + REPEAT), [id("web")]);
    }

    #[test]
    fn what_passes_is_not_said() {
        let (mut said, start) = (Said::default(), Instant::now());
        let wrong = troubles(&["web"], "NotCarried");
        said.due(&wrong, start);
        said.due(&Troubles::new(), start + LASTS / 2);
        assert!(said.due(&wrong, start + LASTS).is_empty());
    }

    #[test]
    fn something_else_is_said_at_its_own_time() {
        let (mut said, start) = (Said::default(), Instant::now());
        let first = troubles(&["web"], "NotCarried");
        said.due(&first, start);
        said.have_said(&id("web"), &first, start + LASTS);
        let second = troubles(&["web"], "NoCertificate");
        assert!(said.due(&second, start + LASTS).is_empty());
        assert_eq!(said.due(&second, start + LASTS * 2), [id("web")]);
    }

    #[test]
    fn of_many_pods_not_all_is_said_at_once() {
        let (mut said, start) = (Said::default(), Instant::now());
        let names: Vec<String> = (0..25).map(|n| format!("web-{n}")).collect();
        let wrong = troubles(&names.iter().map(String::as_str).collect::<Vec<_>>(), "NotConfigured");
        said.due(&wrong, start);
        let first = said.due(&wrong, start + LASTS);
        assert_eq!(first.len(), AT_ONCE);
        for id in &first {
            said.have_said(id, &wrong, start + LASTS);
        }
        assert!(said.due(&wrong, start + LASTS).iter().all(|id| !first.contains(id)));
    }
}
