//! Pods that the CNI plug-in holds: they have a network, and nothing runs in them before they are carried.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::sync::oneshot;

use super::membership::Membership;
use super::pod;
use super::source::{Known, Source};
use crate::admin::{Answer, Reply, Starting};

/// Of a static pod: its uid is not the one that the container runtime knows.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod that is held until it is answered for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pod: Starting,
    /// Taken by the answer.
    reply: Option<oneshot::Sender<Reply>>,
}

impl Held {
    pub(super) fn new(pod: Starting, reply: oneshot::Sender<Reply>) -> Self {
        Self { pod, reply: Some(reply) }
    }

    /// Nobody waits for the answer: it was given, or the runtime has given up the pod's network, with its addresses.
    fn is_over(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            // The runtime may have given up meanwhile.
            let _ = reply.send(Reply::Once(answer));
        }
    }
}

impl Source {
    /// Has a pod that is held and is to be carried known from now on, as what holds it says where it is.
    pub(super) fn hold(&mut self, uid: &str, pod: &Pod, verdict: &Membership) {
        let Some(held) = self.held.get_mut(uid) else { return };
        if held.is_over() {
            self.held.remove(uid);
            self.known.remove(uid);
            return;
        }
        // Which sandbox a runtime class means, the runtime says when it is there.
        let has_class = pod.spec.as_ref().is_some_and(|spec| spec.runtime_class_name.is_some());
        if *verdict != Membership::Member || has_class {
            return held.answer(Answer::Done(format!("{} is not to be held", pod::id(pod))));
        }
        if self.known.get(uid).is_some_and(|known| known.workload.netns == held.pod.netns) {
            return;
        }
        let found = self.runtime.starting(&held.pod).map_err(|error| error.to_string());
        match found.and_then(|sandbox| pod::workload(pod, sandbox)) {
            Ok(workload) => {
                self.known.insert(uid.to_owned(), Known { workload, leaving: None });
            }
            Err(reason) => held.answer(Answer::Refused(reason)),
        }
    }

    /// Lets those go that are carried by now, and those that nobody answers for.
    pub(super) fn let_go(&mut self, present: &[Arc<Pod>]) {
        let carried = self.carried.borrow_and_update();
        for (uid, held) in &mut self.held {
            let Starting { namespace, name, netns, .. } = &held.pod;
            let is_carried = self.known.get(uid).is_some_and(|known| {
                carried.as_ref().is_some_and(|carried| carried.get(&known.workload.id()) == Some(netns))
            });
            let is_static = present.iter().any(|pod| {
                pod.annotations().contains_key(MIRROR)
                    && pod.name_any() == *name
                    && pod.namespace().as_deref() == Some(namespace)
            });
            if is_carried || is_static {
                let word = if is_carried { "carried" } else { "not to be held" };
                held.answer(Answer::Done(format!("{namespace}/{name} is {word}")));
            }
        }
        let is_present = |uid: &str| present.iter().any(|pod| pod.uid().as_deref() == Some(uid));
        // One that was given up is forgotten with what is known of it, when the pod is next looked at.
        self.held.retain(|uid, held| held.reply.is_some() && (is_present(uid) || !held.is_over()));
    }
}
