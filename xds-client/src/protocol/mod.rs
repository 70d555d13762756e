//! The incremental ADS protocol as a state machine: no sockets, no clock, no tasks.
//!
//! It owns what one workload has subscribed to, which resources its consumer holds, and which responses wait
//! for an answer. In go events: [`connected`](DeltaAds::connected), [`response`](DeltaAds::response),
//! [`verdict`](DeltaAds::verdict), [`disconnected`](DeltaAds::disconnected). Out come requests to send
//! ([`poll_request`](DeltaAds::poll_request)) and batches for the consumer ([`next_batch`](DeltaAds::next_batch)).
//!
//! - Every response of the current stream is answered exactly once, in the order of arrival. Responses that
//!   arrive while the consumer is busy are merged by resource name into one batch, whose verdict answers all.
//! - Answers and changes of subscription are separate requests: a server ignores an answer with an outdated
//!   nonce, and must not lose a subscription with it.
//! - A disconnection withdraws nothing. After it, the first requests tell the server what the consumer holds,
//!   so it can say what exists no more; resources whose bytes did not change are not delivered again.
//!
//! Source: "Incremental xDS" of Envoy's xDS protocol documentation.

mod per_type;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod type_state;

use std::collections::{BTreeSet, VecDeque};
use std::hash::RandomState;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;

use crate::delivery::Verdict;
use crate::{Resource, ResourceType, Subscriptions, TypeStatus};
use per_type::PerType;
use type_state::TypeState;

/// How long listeners and routes wait for the endpoints that were asked for before them. Endpoints follow
/// their clusters within milliseconds where they exist; a server may leave unknown names unanswered.
const ENDPOINTS_FIRST: Duration = Duration::from_secs(1);

/// gRPC's code for a response that the client refuses: Envoy's.
const INTERNAL: i32 = 13;

/// Far below istiod's limit of 4 MiB for a message to it.
const MAX_NACK_DETAIL_BYTES: usize = 64 << 10;

/// Resources of one type for the consumer.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) resource_type: ResourceType,
    pub(crate) upserted: Vec<Resource>,
    pub(crate) removed: Vec<String>,
}

/// The protocol state of one workload, over all its connections.
#[derive(Debug)]
pub(crate) struct DeltaAds {
    node: Node,
    types: PerType<TypeState>,
    /// Requests not yet taken by the transport; empty while disconnected.
    outbox: VecDeque<DeltaDiscoveryRequest>,
    connected: bool,
    /// The type whose batch the consumer has.
    outstanding: Option<ResourceType>,
    /// Until when listeners and routes wait for endpoints.
    hold_until: Option<Instant>,
}

impl DeltaAds {
    pub(crate) fn new(node: Node) -> Self {
        let hasher = RandomState::new();
        Self {
            node,
            types: PerType::new(|resource_type| TypeState::new(resource_type, hasher.clone())),
            outbox: VecDeque::new(),
            connected: false,
            outstanding: None,
            hold_until: None,
        }
    }

    /// A stream opened: subscribes anew to everything that is wanted.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.disconnected();
        self.connected = true;
        for resource_type in ResourceType::ALL {
            let requests = self.state(resource_type).subscribe();
            self.outbox.extend(requests);
        }
        if let Some(first) = self.outbox.front_mut() {
            first.node = Some(self.node.clone());
        }
        self.hold(now);
    }

    /// The stream ended. What the consumer holds stays; what it did not get yet will be sent again.
    pub(crate) fn disconnected(&mut self) {
        self.connected = false;
        self.outbox.clear();
        for resource_type in ResourceType::ALL {
            self.state(resource_type).disconnect();
        }
    }

    /// The server sent something.
    pub(crate) fn response(&mut self, response: DeltaDiscoveryResponse) {
        let Some(resource_type) = ResourceType::from_type_url(&response.type_url) else {
            let detail = format!("type '{}' was not asked for", response.type_url);
            self.outbox.push_back(answer(response.type_url, response.nonce, Some(detail)));
            return;
        };
        self.state(resource_type).receive(response);
        self.answer_if_empty(resource_type);
    }

    /// The next batch for the consumer, unless it still has one. Types come in order of dependency.
    pub(crate) fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        if self.outstanding.is_some() {
            return None;
        }
        let held = self.held_until().is_some_and(|until| now < until);
        let resource_type = ResourceType::ALL
            .into_iter()
            .filter(|resource_type| !(held && waits_for_endpoints(*resource_type)))
            .find(|resource_type| self.state(*resource_type).has_batch())?;
        self.outstanding = Some(resource_type);
        let (upserted, removed) = self.state(resource_type).take_batch();
        Some(Batch { resource_type, upserted, removed })
    }

    /// When [`next_batch`](Self::next_batch) may have something that it has not now, though no event came.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let mut held_back = ResourceType::ALL.into_iter().filter(|found| waits_for_endpoints(*found));
        let waiting = held_back.any(|resource_type| self.types.get(resource_type).has_batch());
        if waiting && self.outstanding.is_none() { self.held_until() } else { None }
    }

    /// The consumer's answer to the last batch.
    pub(crate) fn verdict(&mut self, verdict: Verdict, now: Instant) {
        if let Some(resource_type) = self.outstanding.take() {
            let answers = self.state(resource_type).settle(verdict.rejected);
            self.answer(resource_type, answers);
            self.answer_if_empty(resource_type);
        }
        let Some(subscribe) = verdict.subscribe else { return };
        let Subscriptions { endpoints, routes, secrets, extensions } = subscribe;
        if self.want(ResourceType::ClusterLoadAssignment, endpoints) {
            self.hold(now);
        }
        self.want(ResourceType::RouteConfiguration, routes);
        self.want(ResourceType::Secret, secrets);
        self.want(ResourceType::ExtensionConfig, extensions);
    }

    /// Whether this asks for names that were not asked for.
    fn want(&mut self, resource_type: ResourceType, names: BTreeSet<String>) -> bool {
        let connected = self.connected;
        let requests = self.state(resource_type).want(names, connected);
        let asks = requests.iter().any(|request| !request.resource_names_subscribe.is_empty());
        self.outbox.extend(requests);
        self.answer_if_empty(resource_type);
        asks
    }

    /// The next request to send, in order.
    pub(crate) fn poll_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.outbox.pop_front()
    }

    /// Whether [`poll_request`](Self::poll_request) has something.
    pub(crate) fn has_request(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What is known of a type, once a response of it came.
    pub(crate) fn status(&self, resource_type: ResourceType) -> Option<TypeStatus> {
        self.types.get(resource_type).status()
    }

    fn state(&mut self, resource_type: ResourceType) -> &mut TypeState {
        self.types.get_mut(resource_type)
    }

    /// Answers responses that left the consumer nothing to judge, once those before them are answered.
    fn answer_if_empty(&mut self, resource_type: ResourceType) {
        if self.outstanding != Some(resource_type) && !self.state(resource_type).has_batch() {
            let answers = self.state(resource_type).settle_empty();
            self.answer(resource_type, answers);
        }
    }

    fn answer(&mut self, resource_type: ResourceType, answers: type_state::Answers) {
        let type_url = resource_type.type_url();
        let requests = answers
            .nonces
            .into_iter()
            .map(|nonce| answer(type_url.to_owned(), nonce, answers.rejected.clone()));
        self.outbox.extend(requests);
    }

    fn hold(&mut self, now: Instant) {
        self.hold_until = now.checked_add(ENDPOINTS_FIRST);
    }

    /// Set while endpoints were asked for and are not there.
    fn held_until(&self) -> Option<Instant> {
        let endpoints = self.types.get(ResourceType::ClusterLoadAssignment);
        self.hold_until.filter(|_| endpoints.is_awaiting())
    }
}

fn waits_for_endpoints(resource_type: ResourceType) -> bool {
    matches!(resource_type, ResourceType::Listener | ResourceType::RouteConfiguration)
}

fn answer(type_url: String, nonce: String, rejected: Option<String>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url,
        response_nonce: nonce,
        error_detail: rejected.map(|mut message| {
            message.truncate(message.floor_char_boundary(MAX_NACK_DETAIL_BYTES));
            Status { code: INTERNAL, message, ..Status::default() }
        }),
        ..DeltaDiscoveryRequest::default()
    }
}
