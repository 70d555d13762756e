//! One resource type of one workload: what is wanted, what the consumer holds, what waits for it.

mod answers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use orlop_shared_map::Change;

use super::pending::{Outstanding, Pending, Unanswered, Upserted};
use super::refusals::Refusals;
use super::state_of_the_world::Progress;
use super::wire::{Arrived, Changes, Request, Said};
use super::{Protocol, delta};
use crate::resource::Names;
use crate::shared::{Held, HeldResources, Shared};
use crate::{Resource, ResourceType, TypeStatus};

#[derive(Debug)]
pub(super) struct TypeState {
    resource_type: ResourceType,
    protocol: Protocol,
    shared: Shared,
    /// Names wanted; of no meaning for wildcard types.
    wanted: Names,
    /// Whether the current stream's server has had a request of this type.
    requested: bool,
    progress: Progress,
    /// Names asked for on this stream and neither sent nor declared missing yet.
    awaiting: BTreeSet<Arc<str>>,
    /// What the consumer has, as far as the server needs to know.
    held: HeldResources,
    /// When resources die that the consumer has and nobody prolongs; most live until they are removed.
    deadlines: BTreeMap<Arc<str>, Instant>,
    pending: Pending,
    /// The batch at the consumer.
    outstanding: Option<Outstanding>,
    /// Answers that wait for their time.
    due: Vec<Unanswered>,
    /// State of the world: names that the server may take for delivered and that are not here. Until it hears that they
    /// are not wanted, it does not send them again.
    let_go: BTreeSet<Arc<str>>,
    refusals: Refusals,
    status: TypeStatus,
}

impl TypeState {
    pub(super) fn new(resource_type: ResourceType, protocol: Protocol, shared: Shared) -> Self {
        Self {
            resource_type,
            protocol,
            shared,
            wanted: Names::default(),
            requested: false,
            progress: Progress::default(),
            awaiting: BTreeSet::new(),
            held: HeldResources::default(),
            deadlines: BTreeMap::new(),
            pending: Pending::default(),
            outstanding: None,
            due: Vec::new(),
            let_go: BTreeSet::new(),
            refusals: Refusals::default(),
            status: TypeStatus::default(),
        }
    }

    /// The consumer has these, as if they had been delivered and accepted.
    pub(super) fn restore(&mut self, resources: Vec<Resource>) {
        let held = |resource: Resource| {
            let held = Held {
                version: resource.version.into(),
                digest: Some(self.shared.digest(&resource.body.value)),
            };
            (resource.name.into(), Some(held))
        };
        let edits = resources.into_iter().map(held).collect();
        self.hold(edits);
    }

    /// The first requests of this type on a stream. A type of which nothing is wanted by name is not mentioned:
    /// naming nothing would mean everything.
    pub(super) fn subscribe(&mut self) -> Vec<Request> {
        if !self.resource_type.is_wildcard() {
            if self.wanted.is_empty() {
                return Vec::new();
            }
            self.awaiting = self.wanted.keys().cloned().collect();
        }
        self.requested = true;
        match self.protocol {
            Protocol::Delta => {
                let held = self.held.iter().map(|(name, held)| {
                    // What must be prolonged is to be sent again, with time to live.
                    let mortal = self.deadlines.contains_key(name);
                    (name.to_string(), if mortal { String::new() } else { held.version.to_string() })
                });
                delta::subscribe(self.resource_type, &self.wanted_names(), held)
            }
            Protocol::StateOfTheWorld => {
                vec![self.progress.subscribe(self.resource_type, self.wanted_names())]
            }
        }
    }

    /// Changes the names that are wanted; the requests tell a connected server. Also says whether names are asked for
    /// that were not before.
    pub(super) fn want(&mut self, names: Names, connected: bool) -> (Vec<Request>, bool) {
        let (mut added, mut gone) = (Vec::new(), Vec::new());
        for change in self.wanted.diff(&names) {
            match change {
                Change::Added(name, _) => added.push(Arc::clone(name)),
                Change::Removed(name, _) => gone.push(Arc::clone(name)),
                Change::Changed(..) => {}
            }
        }
        for name in &gone {
            self.awaiting.remove(name);
            self.deadlines.remove(name);
            self.pending.forget(name);
        }
        let was_held = gone.iter().filter(|name| self.held.contains_key(*name));
        let edits = was_held.map(|name| (Arc::clone(name), None)).collect();
        self.hold(edits);
        self.wanted = names;
        if !connected || (added.is_empty() && gone.is_empty()) {
            return (Vec::new(), false);
        }
        let asks = !added.is_empty();
        if !self.requested {
            return (self.subscribe(), asks);
        }
        self.awaiting.extend(added.iter().cloned());
        let requests = match self.protocol {
            Protocol::Delta => {
                let owned =
                    |names: Vec<Arc<str>>| -> Vec<_> { names.iter().map(ToString::to_string).collect() };
                delta::change(self.resource_type, &owned(added), &owned(gone))
            }
            // The answer that is due names what is wanted; before it, the server has no nonce to expect. One that waits
            // goes out now.
            Protocol::StateOfTheWorld if self.owes_answer() => {
                self.let_go.extend(gone);
                self.answer_now()
            }
            Protocol::StateOfTheWorld => {
                vec![self.progress.subscribe(self.resource_type, self.wanted_names())]
            }
        };
        (requests, asks)
    }

    pub(super) fn disconnect(&mut self) {
        self.requested = false;
        self.progress = Progress::default();
        self.awaiting.clear();
        self.pending = Pending::default();
        self.due.clear();
        self.let_go.clear();
        self.refusals.released();
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.responses.clear();
        }
    }

    /// Takes a response in, unless the server was never asked.
    pub(super) fn receive(&mut self, said: Said, now: Instant) -> bool {
        if !self.requested {
            return false;
        }
        let Said { version, nonce, changes } = said;
        self.progress.received(&nonce);
        self.status.version.clone_from(&version);
        self.status.nonce.clone_from(&nonce);
        self.status.received = self.status.received.saturating_add(1);
        let fault = match changes {
            Ok(changes) => {
                self.take_in(changes, now);
                None
            }
            Err(fault) => Some(fault),
        };
        self.pending.responses.push(Unanswered { nonce, version, fault });
        true
    }

    fn take_in(&mut self, changes: Changes, now: Instant) {
        let Changes { arrived, removed, complete } = changes;
        if complete {
            let present: BTreeSet<&str> = arrived.iter().map(|arrived| arrived.name.as_str()).collect();
            let known = self.held.keys().chain(self.pending.upserted.keys());
            let gone: Vec<Arc<str>> = known.filter(|name| !present.contains(&***name)).cloned().collect();
            for name in gone {
                self.remove(&name);
            }
        }
        let mut edits = Vec::new();
        for arrived in arrived {
            self.arrive(arrived, now, &mut edits);
        }
        self.hold(edits);
        for name in removed {
            self.remove(&name.into());
        }
    }

    fn arrive(&mut self, arrived: Arrived, now: Instant, edits: &mut Vec<(Arc<str>, Option<Held>)>) {
        let Arrived { name, version, body, ttl } = arrived;
        if !self.is_wanted(&name) {
            if self.protocol == Protocol::StateOfTheWorld {
                self.let_go.insert(name.into());
            }
            return;
        }
        let known = self.held.get_key_value(name.as_str());
        let key: Arc<str> = known.map_or_else(|| name.as_str().into(), |(key, _)| Arc::clone(key));
        let deadline = ttl.and_then(|ttl| now.checked_add(ttl));
        let Some(body) = body else {
            let known = known.is_some() && !self.pending.removed.contains(&key);
            match (deadline, self.pending.upserted.get_mut(&key)) {
                (Some(_), Some(pending)) => pending.deadline = deadline,
                (Some(deadline), None) if known => drop(self.deadlines.insert(key, deadline)),
                _ => {}
            }
            return;
        };
        self.awaiting.remove(&key);
        self.pending.removed.remove(&key);
        let digest = self.shared.digest(&body.value);
        match known {
            Some((_, held)) if held.digest == Some(digest) => {
                if *held.version != *version {
                    let held = Held { version: version.into(), ..held.clone() };
                    edits.push((Arc::clone(&key), Some(held)));
                }
                self.pending.upserted.remove(&key);
                self.set_deadline(key, deadline);
            }
            _ => {
                let resource = Resource { name, version, body };
                self.pending.upserted.insert(key, Upserted { resource, digest, deadline });
            }
        }
    }

    fn remove(&mut self, name: &Arc<str>) {
        self.awaiting.remove(name);
        self.pending.upserted.remove(name);
        // Of a name that was asked for, the consumer should know that it does not exist.
        let asked_for = !self.resource_type.is_wildcard() && self.is_wanted(name);
        if asked_for || self.held.contains_key(name) {
            self.pending.removed.insert(Arc::clone(name));
        }
    }

    fn set_deadline(&mut self, name: Arc<str>, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => drop(self.deadlines.insert(name, deadline)),
            None => drop(self.deadlines.remove(&name)),
        }
    }

    /// Removes what was not prolonged in time. The deadline of what the consumer has stays until the consumer is told,
    /// whatever becomes of the stream.
    pub(super) fn expire(&mut self, now: Instant) {
        let due: Vec<Arc<str>> =
            self.alive().filter(|(_, deadline)| *deadline <= now).map(|(name, _)| Arc::clone(name)).collect();
        for name in due {
            self.status.expired = self.status.expired.saturating_add(1);
            self.pending.upserted.remove(&name);
            if self.held.contains_key(&name) {
                self.pending.removed.insert(name);
            }
        }
    }

    /// When the next resource dies.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.alive().map(|(_, deadline)| deadline).min()
    }

    /// Deadlines that are still to come about.
    fn alive(&self) -> impl Iterator<Item = (&Arc<str>, Instant)> {
        let Pending { upserted, removed, .. } = &self.pending;
        let held = self.deadlines.iter().map(|(name, deadline)| (name, *deadline));
        let held = held.filter(|(name, _)| !removed.contains(*name) && !upserted.contains_key(*name));
        upserted.iter().filter_map(|(name, pending)| Some((name, pending.deadline?))).chain(held)
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.resource_type.is_wildcard() || self.wanted.contains_key(name)
    }

    fn wanted_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.wanted.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn has_batch(&self) -> bool {
        !(self.pending.upserted.is_empty() && self.pending.removed.is_empty())
    }

    pub(super) fn is_awaiting(&self) -> bool {
        !self.awaiting.is_empty()
    }

    /// Hands out everything that is pending. From now on it counts as held: whatever the verdict, the server
    /// must say when one of these resources is gone.
    pub(super) fn take_batch(&mut self) -> (Vec<Resource>, Vec<String>) {
        let Pending { upserted, removed, responses } = std::mem::take(&mut self.pending);
        let mut digests = Vec::with_capacity(upserted.len());
        let mut edits = Vec::with_capacity(upserted.len() + removed.len());
        for (name, Upserted { resource, digest, deadline }) in &upserted {
            digests.push((Arc::clone(name), *digest));
            self.set_deadline(Arc::clone(name), *deadline);
            let held = Held { version: resource.version.as_str().into(), digest: None };
            edits.push((Arc::clone(name), Some(held)));
        }
        for name in &removed {
            self.deadlines.remove(name);
            edits.push((Arc::clone(name), None));
        }
        self.hold(edits);
        self.outstanding = Some(Outstanding { digests, responses });
        (
            upserted.into_values().map(|pending| pending.resource).collect(),
            removed.iter().map(ToString::to_string).collect(),
        )
    }

    /// Changes what the consumer is known to have.
    fn hold(&mut self, edits: Vec<(Arc<str>, Option<Held>)>) {
        self.shared.edit(&mut self.held, edits);
        self.status.resources = self.held.len();
    }

    pub(super) fn status(&self) -> Option<&TypeStatus> {
        Some(&self.status).filter(|status| status.received > 0)
    }
}
