//! What makes a carried pod a part of the mesh for its peers: the labels that a sidecar's injector would have set.
//!
//! They are applied when the node carries the pod, and taken back before it lets go. The API server keeps whose they are
//! (server-side apply, as the field manager [`MANAGER`]): what somebody else has set stays, and nothing has to be remembered
//! here from one agent to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tracing::warn;

use super::pod::{self, TLS_MODE};
use super::source::{Carried, Pods};
use crate::config::WorkloadId;

/// By what the API server knows whose the labels are.
const MANAGER: &str = "orlop";
/// Before something that was refused is asked for again.
const PAUSE: Duration = Duration::from_secs(2);

/// The task that keeps the labels. What it cannot do is said in `trouble`.
pub(super) struct Labels {
    pub(super) client: Client,
    pub(super) pods: Store<Pod>,
    /// What the source has handed on.
    pub(super) published: watch::Receiver<Option<Pods>>,
    /// Whom the node carries; `None` when it stops to.
    pub(super) carried: watch::Receiver<Option<Carried>>,
    pub(super) trouble: watch::Sender<Option<String>>,
}

impl Labels {
    /// Runs until the node stops and all labels are off.
    pub(super) async fn keep(mut self) {
        loop {
            let outcome = self.follow().await;
            if self.carried.borrow().is_none() && outcome.is_ok() {
                return;
            }
            if let Err(reason) = &outcome
                && self.trouble.borrow().as_deref() != Some(reason)
            {
                warn!(%reason, "the labels of a pod are not as they should be; will be tried again");
            }
            self.trouble.send_replace(outcome.err());
            tokio::select! {
                _ = self.published.changed() => {}
                _ = self.carried.changed() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// One look at all pods; the first failure is told when all have been seen to.
    async fn follow(&mut self) -> Result<(), String> {
        let published = self.published.borrow_and_update().clone().unwrap_or_default();
        let carried = self.carried.borrow_and_update().clone();
        let stays = |id: &WorkloadId| {
            carried.is_some() && published.workloads.0.contains_key(id) && !published.leaving.contains(id)
        };
        let is_carried = |id: &WorkloadId| carried.as_ref().is_some_and(|carried| carried.contains_key(id));
        let mut outcome = Ok(());
        for pod in self.pods.state() {
            let id = pod::id(&pod);
            let done = match (are_set(&pod), stays(&id)) {
                (false, true) if is_carried(&id) => self.apply(&pod, &pod::mesh_labels(&pod)).await,
                // One that stays may only not be carried yet.
                (true, false) => self.apply(&pod, &BTreeMap::new()).await,
                _ => Ok(()),
            };
            let named = done.map_err(|error| format!("pod {id}: {error}"));
            outcome = outcome.and(named);
        }
        outcome
    }

    async fn apply(&self, pod: &Pod, labels: &BTreeMap<&str, String>) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let patch = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            // Of this pod, not of one that has taken its name.
            "metadata": {"name": pod.name_any(), "uid": pod.uid(), "labels": labels},
        });
        match api.patch(&pod.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await {
            // It has gone meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// Whether the labels are on the pod, and ours to take back.
pub(super) fn are_set(pod: &Pod) -> bool {
    pod.labels().contains_key(TLS_MODE)
        && pod.managed_fields().iter().any(|fields| fields.manager.as_deref() == Some(MANAGER))
}
