//! One resource type of one workload: what is wanted, what the consumer holds, what waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::{Resource, ResourceType, TypeStatus};

/// Keeps a request below istiod's limit of 4 MiB with names of any sensible length.
const MAX_NAMES_PER_REQUEST: usize = 10_000;

/// Responses to answer, all with one verdict.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) nonces: Vec<String>,
    pub(super) rejected: Option<String>,
}

#[derive(Debug)]
pub(super) struct TypeState {
    resource_type: ResourceType,
    /// Keyed by process, so nobody can aim for equal digests.
    hasher: RandomState,
    /// Names wanted; of no meaning for wildcard types.
    wanted: BTreeSet<String>,
    /// Whether the current stream's server has had a request of this type.
    requested: bool,
    /// Names asked for on this stream and neither sent nor declared missing yet.
    awaiting: BTreeSet<String>,
    /// What the consumer has, as far as the server needs to know.
    held: BTreeMap<String, Held>,
    pending: Pending,
    /// The batch at the consumer.
    outstanding: Option<Outstanding>,
    status: TypeStatus,
}

/// A resource that was given to the consumer.
#[derive(Debug)]
struct Held {
    /// Empty once a batch with it was rejected, so that no server believes it to be in force.
    version: String,
    /// Of the accepted bytes.
    digest: Option<u64>,
}

/// Received and not yet given to the consumer.
#[derive(Debug, Default)]
struct Pending {
    upserted: BTreeMap<String, Resource>,
    removed: BTreeSet<String>,
    nonces: Vec<String>,
    /// Faults that the protocol itself finds.
    faults: Vec<String>,
}

#[derive(Debug)]
struct Outstanding {
    digests: Vec<(String, u64)>,
    /// Emptied when the stream ends: another stream's server does not know these nonces.
    nonces: Vec<String>,
    faults: Vec<String>,
}

impl TypeState {
    pub(super) fn new(resource_type: ResourceType, hasher: RandomState) -> Self {
        Self {
            resource_type,
            hasher,
            wanted: BTreeSet::new(),
            requested: false,
            awaiting: BTreeSet::new(),
            held: BTreeMap::new(),
            pending: Pending::default(),
            outstanding: None,
            status: TypeStatus::default(),
        }
    }

    /// The first requests of this type on a stream.
    ///
    /// An empty first subscription means all, and so a sidecar writes it; a type of which nothing is wanted by
    /// name is therefore not mentioned.
    pub(super) fn subscribe(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = if self.resource_type.is_wildcard() {
            vec![self.request()]
        } else {
            self.awaiting.clone_from(&self.wanted);
            let names: Vec<String> = self.wanted.iter().cloned().collect();
            self.changes(&names, &[])
        };
        if let Some(first) = requests.first_mut() {
            first.initial_resource_versions =
                self.held.iter().map(|(name, held)| (name.clone(), held.version.clone())).collect();
            self.requested = true;
        }
        requests
    }

    /// Changes the names that are wanted; the requests tell a connected server.
    pub(super) fn want(&mut self, names: BTreeSet<String>, connected: bool) -> Vec<DeltaDiscoveryRequest> {
        let added: Vec<String> = names.difference(&self.wanted).cloned().collect();
        let gone: Vec<String> = self.wanted.difference(&names).cloned().collect();
        for name in &gone {
            self.held.remove(name);
            self.awaiting.remove(name);
            self.pending.upserted.remove(name);
            self.pending.removed.remove(name);
        }
        self.wanted = names;
        match (connected, self.requested) {
            (false, _) => Vec::new(),
            (true, false) => self.subscribe(),
            (true, true) => {
                self.awaiting.extend(added.iter().cloned());
                self.changes(&added, &gone)
            }
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.requested = false;
        self.awaiting.clear();
        self.pending = Pending::default();
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.nonces.clear();
        }
    }

    pub(super) fn receive(&mut self, response: DeltaDiscoveryResponse) {
        self.status.version = response.system_version_info;
        self.status.nonce.clone_from(&response.nonce);
        self.pending.nonces.push(response.nonce);
        for resource in response.resources {
            // Without a body it only prolongs a resource's time to live.
            if let Some(body) = resource.resource {
                self.upsert(Resource { name: resource.name, version: resource.version, body });
            }
        }
        for name in response.removed_resources {
            self.remove(name);
        }
    }

    fn upsert(&mut self, resource: Resource) {
        if !self.is_wanted(&resource.name) {
            return;
        }
        let Resource { name, body, .. } = &resource;
        if body.type_url != self.resource_type.type_url() {
            let fault = format!("{} '{name}': resource.type_url: is '{}'", self.resource_type, body.type_url);
            self.pending.faults.push(fault);
            return;
        }
        self.awaiting.remove(name);
        self.pending.removed.remove(name);
        let digest = self.digest(&body.value);
        match self.held.get_mut(name) {
            Some(held) if held.digest == Some(digest) => {
                held.version.clone_from(&resource.version);
                self.pending.upserted.remove(name);
            }
            _ => {
                self.pending.upserted.insert(name.clone(), resource);
            }
        }
    }

    fn remove(&mut self, name: String) {
        self.awaiting.remove(&name);
        self.pending.upserted.remove(&name);
        // Of a name that was asked for, the consumer should know that it does not exist.
        let asked_for = !self.resource_type.is_wildcard() && self.is_wanted(&name);
        if asked_for || self.held.contains_key(&name) {
            self.pending.removed.insert(name);
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.resource_type.is_wildcard() || self.wanted.contains(name)
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
        let Pending { upserted, removed, nonces, faults } = std::mem::take(&mut self.pending);
        let mut digests = Vec::with_capacity(upserted.len());
        for (name, resource) in &upserted {
            digests.push((name.clone(), self.digest(&resource.body.value)));
            self.held.insert(name.clone(), Held { version: resource.version.clone(), digest: None });
        }
        for name in &removed {
            self.held.remove(name);
        }
        self.outstanding = Some(Outstanding { digests, nonces, faults });
        (upserted.into_values().collect(), removed.into_iter().collect())
    }

    /// The consumer judged the batch.
    pub(super) fn settle(&mut self, rejected: Option<String>) -> Answers {
        let Some(Outstanding { digests, nonces, faults }) = self.outstanding.take() else {
            return Answers::default();
        };
        for (name, digest) in digests {
            let Some(held) = self.held.get_mut(&name) else { continue };
            if rejected.is_some() {
                held.version.clear();
                continue;
            }
            held.digest = Some(digest);
            let again = self.pending.upserted.get(&name);
            if again.is_some_and(|resource| self.digest(&resource.body.value) == digest) {
                self.pending.upserted.remove(&name);
            }
        }
        let faults: Vec<String> = faults.into_iter().chain(rejected).collect();
        self.count(nonces, &faults)
    }

    /// Nothing that was received changes what the consumer has.
    pub(super) fn settle_empty(&mut self) -> Answers {
        let nonces = std::mem::take(&mut self.pending.nonces);
        let faults = std::mem::take(&mut self.pending.faults);
        self.count(nonces, &faults)
    }

    fn count(&mut self, nonces: Vec<String>, faults: &[String]) -> Answers {
        let answers = u64::try_from(nonces.len()).unwrap_or(u64::MAX);
        if faults.is_empty() {
            self.status.acked = self.status.acked.saturating_add(answers);
            return Answers { nonces, rejected: None };
        }
        self.status.nacked = self.status.nacked.saturating_add(answers);
        let detail = faults.join("; ");
        self.status.last_nack = Some(detail.clone());
        Answers { nonces, rejected: Some(detail) }
    }

    pub(super) fn status(&self) -> Option<TypeStatus> {
        let received = !self.status.nonce.is_empty();
        received.then(|| TypeStatus { resources: self.held.len(), ..self.status.clone() })
    }

    fn changes(&self, added: &[String], gone: &[String]) -> Vec<DeltaDiscoveryRequest> {
        let subscribe = added.chunks(MAX_NAMES_PER_REQUEST).map(|names| DeltaDiscoveryRequest {
            resource_names_subscribe: names.to_vec(),
            ..self.request()
        });
        let unsubscribe = gone.chunks(MAX_NAMES_PER_REQUEST).map(|names| DeltaDiscoveryRequest {
            resource_names_unsubscribe: names.to_vec(),
            ..self.request()
        });
        subscribe.chain(unsubscribe).collect()
    }

    fn request(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: self.resource_type.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn digest(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }
}
