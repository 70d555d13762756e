//! The ADS protocols as a state machine: no sockets, no clock, no tasks.
//!
//! It owns what one workload has subscribed to, which resources its consumer holds, and which responses wait
//! for an answer. In go events: [`connected`](Ads::connected), [`response`](Ads::response),
//! [`verdict`](Ads::verdict), [`disconnected`](Ads::disconnected), and the time with each. Out come requests to send
//! ([`poll_request`](Ads::poll_request)) and batches for the consumer ([`next_batch`](Ads::next_batch)).
//!
//! - Every response of the current stream is answered exactly once, in the order of arrival. Responses that
//!   arrive while the consumer is busy are merged by resource name into one batch, whose verdict answers all.
//! - Refusals of a type that follow one another go out with growing delays; an acceptance, or a change of what is wanted,
//!   goes out at once, with what is due before it.
//! - A response of a type that was not asked for is dropped and counted; Envoy does not answer it either.
//! - A response that contradicts itself is refused as a whole.
//! - A disconnection withdraws nothing. After it, a server hears what the consumer holds (incremental) or sends
//!   everything again; resources whose bytes did not change are not delivered again.
//! - A resource with a time to live is removed when the server does not prolong it, also while there is none.
//!
//! Source: Envoy's xDS protocol documentation.

mod delta;
mod pending;
mod per_type;
#[cfg(test)]
mod properties;
mod refusals;
mod state_of_the_world;
#[cfg(test)]
mod tests;
mod type_state;
mod wire;
#[cfg(any(test, fuzzing))]
#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a check fails by panicking"
)]
pub(crate) mod world;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;

use crate::delivery::Verdict;
use crate::resource::Names;
use crate::shared::Shared;
use crate::{Resource, ResourceType, Restored, Subscriptions, TypeStatus};
use per_type::PerType;
use type_state::TypeState;
use wire::Said;
pub(crate) use wire::{Request, Response};

/// How long listeners and routes wait for the endpoints that were asked for before them. Endpoints follow
/// their clusters within milliseconds where they exist; a server may leave unknown names unanswered.
const ENDPOINTS_FIRST: Duration = Duration::from_secs(1);

/// How a server says what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Incremental: `DeltaAggregatedResources`.
    #[default]
    Delta,
    /// The whole state of a type each time: `StreamAggregatedResources`.
    StateOfTheWorld,
}

/// Resources of one type for the consumer.
#[derive(Debug, PartialEq)]
pub(crate) struct Batch {
    pub(crate) resource_type: ResourceType,
    pub(crate) upserted: Vec<Resource>,
    pub(crate) removed: Vec<String>,
}

/// The protocol state of one workload, over all its connections.
#[derive(Debug)]
pub(crate) struct Ads {
    node: Node,
    /// The table of names is asked for.
    names: bool,
    types: PerType<TypeState>,
    /// Requests not yet taken by the transport; empty while disconnected.
    outbox: VecDeque<Request>,
    connected: bool,
    /// The type whose batch the consumer has.
    outstanding: Option<ResourceType>,
    /// Until when listeners and routes wait for endpoints.
    hold_until: Option<Instant>,
    /// Responses that were dropped: of types that were not asked for.
    unasked: u64,
}

impl Ads {
    /// `names` asks for the table of names, which a server makes for each workload by itself.
    pub(crate) fn new(protocol: Protocol, node: Node, names: bool, shared: &Shared) -> Self {
        Self {
            node,
            names,
            types: PerType::new(|resource_type| TypeState::new(resource_type, protocol, shared.clone())),
            outbox: VecDeque::new(),
            connected: false,
            outstanding: None,
            hold_until: None,
            unasked: 0,
        }
    }

    /// Before the first stream: what the consumer has already. It is not delivered again unless it changed, and a server
    /// that does not have it any more says so.
    pub(crate) fn restore(&mut self, restored: Restored, now: Instant) {
        for (resource_type, resources) in restored.resources {
            self.state(resource_type).restore(resources);
        }
        self.subscribe(restored.subscribe, now);
    }

    /// A stream opened: subscribes anew to everything that is wanted.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.disconnected();
        self.connected = true;
        let names = self.names;
        let asked_for = |resource_type: &ResourceType| names || *resource_type != ResourceType::NameTable;
        for resource_type in ResourceType::ALL.into_iter().filter(asked_for) {
            let requests = self.state(resource_type).subscribe();
            self.outbox.extend(requests);
        }
        let node = Some(self.node.clone());
        match self.outbox.front_mut() {
            Some(Request::Delta(first)) => first.node = node,
            Some(Request::StateOfTheWorld(first)) => first.node = node,
            None => {}
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
    pub(crate) fn response(&mut self, response: Response, now: Instant) {
        let taken = ResourceType::from_type_url(response.type_url()).is_some_and(|resource_type| {
            let taken = self.state(resource_type).receive(Said::new(resource_type, response), now);
            self.answer_if_empty(resource_type, now);
            taken
        });
        if !taken {
            self.unasked = self.unasked.saturating_add(1);
        }
    }

    /// The next batch for the consumer, unless it still has one. Types come in order of dependency.
    pub(crate) fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        for resource_type in ResourceType::ALL {
            self.state(resource_type).expire(now);
            let answers = self.state(resource_type).answers_due(now);
            self.outbox.extend(answers);
        }
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

    /// When [`next_batch`](Self::next_batch) may have something that it has not now, or makes a request due, though no
    /// event came.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let answers = ResourceType::ALL.into_iter().filter_map(|found| self.types.get(found).answers_at());
        if self.outstanding.is_some() {
            return answers.min();
        }
        let waits = |found: &ResourceType| waits_for_endpoints(*found) && self.types.get(*found).has_batch();
        let held = self.held_until().filter(|_| ResourceType::ALL.iter().any(waits));
        let deadlines =
            ResourceType::ALL.into_iter().filter_map(|found| self.types.get(found).next_deadline());
        answers.chain(deadlines).chain(held).min()
    }

    /// The consumer's answer to the last batch.
    pub(crate) fn verdict(&mut self, verdict: Verdict, now: Instant) {
        if let Some(resource_type) = self.outstanding.take() {
            let answers = self.state(resource_type).settle(verdict.rejected.as_deref(), now);
            self.outbox.extend(answers);
            self.answer_if_empty(resource_type, now);
        }
        if let Some(subscribe) = verdict.subscribe {
            self.subscribe(subscribe, now);
        }
    }

    fn subscribe(&mut self, subscribe: Subscriptions, now: Instant) {
        let Subscriptions { endpoints, routes, secrets, extensions } = subscribe;
        if self.want(ResourceType::ClusterLoadAssignment, endpoints, now) {
            self.hold(now);
        }
        self.want(ResourceType::RouteConfiguration, routes, now);
        self.want(ResourceType::Secret, secrets, now);
        self.want(ResourceType::ExtensionConfig, extensions, now);
    }

    /// Whether this asks for names that were not asked for.
    fn want(&mut self, resource_type: ResourceType, names: Names, now: Instant) -> bool {
        let connected = self.connected;
        let (requests, asks) = self.state(resource_type).want(names, connected);
        self.outbox.extend(requests);
        self.answer_if_empty(resource_type, now);
        asks
    }

    /// The next request to send, in order.
    pub(crate) fn poll_request(&mut self) -> Option<Request> {
        self.outbox.pop_front()
    }

    /// Whether [`poll_request`](Self::poll_request) has something.
    pub(crate) fn has_request(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What is known of a type, once a response of it came.
    pub(crate) fn status(&self, resource_type: ResourceType) -> Option<&TypeStatus> {
        self.types.get(resource_type).status()
    }

    /// Responses that were dropped because nobody had asked for their type.
    pub(crate) fn unasked(&self) -> u64 {
        self.unasked
    }

    fn state(&mut self, resource_type: ResourceType) -> &mut TypeState {
        self.types.get_mut(resource_type)
    }

    fn answer_if_empty(&mut self, resource_type: ResourceType, now: Instant) {
        let answers = self.state(resource_type).settle_empty(now);
        self.outbox.extend(answers);
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
