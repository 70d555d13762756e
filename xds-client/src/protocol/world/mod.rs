//! A world for the state machine to live in, for property tests and for fuzzing.
//!
//! A correct server that at times says nonsense, a consumer, a clock and a network that may break at any point play events
//! with it. After each event the rules of the protocol are checked; at the end everything comes to rest, and the
//! consumer must hold exactly what the server has of what is wanted.

mod peer;
mod rules;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::google::protobuf::Any;

use super::{Ads, Batch, Protocol, Request, Response};
use crate::delivery::Verdict;
use crate::shared::Shared;
use crate::{Names, Resource, ResourceType, Subscriptions};
use peer::{Peer, TTL, is_mortal};
use rules::Rules;

pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];
/// Listeners wait for endpoints no longer.
const PATIENCE: Duration = Duration::from_secs(2);

type Key = (ResourceType, String);

#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A resource is written, or deleted, at the server.
    Edit(ResourceType, &'static str, Option<u8>),
    Connect,
    Disconnect,
    /// The server gets the oldest request under way.
    Upload,
    /// The client gets the oldest response under way.
    Download,
    /// The client gets a response that makes no sense.
    Nonsense(ResourceType, Nonsense),
    /// The consumer takes a batch, if there is one.
    Take,
    Judge(Judgement, Subscriptions),
    Wait(Duration),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Nonsense {
    Twice,
    UpsertedAndRemoved,
    OfAnotherType,
    OfUnknownType,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Judgement {
    Accept,
    Reject,
    Drop,
}

struct World {
    protocol: Protocol,
    now: Instant,
    content: BTreeMap<Key, Arc<Resource>>,
    generation: u64,
    server: Option<Peer>,
    uplink: VecDeque<Request>,
    downlink: VecDeque<Response>,
    nonsense: u64,
    /// Something mortal was written.
    mortals: bool,
    rules: Rules,
    open: Option<Batch>,
    wanted: Subscriptions,
    applied: BTreeMap<Key, Any>,
    accepted: BTreeMap<Key, Any>,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            now: Instant::now(),
            content: BTreeMap::new(),
            generation: 0,
            server: None,
            uplink: VecDeque::new(),
            downlink: VecDeque::new(),
            nonsense: 0,
            mortals: false,
            rules: Rules::default(),
            open: None,
            wanted: Subscriptions::default(),
            applied: BTreeMap::new(),
            accepted: BTreeMap::new(),
        }
    }

    fn play(&mut self, ads: &mut Ads, event: Event) {
        match event {
            Event::Edit(resource_type, name, value) => self.edit(resource_type, name, value),
            Event::Connect => self.connect(ads),
            Event::Disconnect => self.disconnect(ads),
            Event::Upload => {
                if let Some(request) = self.uplink.pop_front() {
                    self.downlink.extend(self.server.as_mut().unwrap().request(request));
                }
            }
            Event::Download => {
                if let Some(response) = self.downlink.pop_front() {
                    self.rules.came(&response, false);
                    ads.response(response, self.now);
                }
            }
            Event::Nonsense(resource_type, nonsense) => self.talk_nonsense(ads, resource_type, nonsense),
            Event::Take => self.take(ads),
            Event::Judge(judgement, subscribe) => self.judge(ads, judgement, subscribe),
            Event::Wait(time) => self.now += time,
        }
        while let Some(request) = ads.poll_request() {
            assert!(self.server.is_some(), "nothing is sent while disconnected");
            self.rules.check(&request);
            self.uplink.push_back(request);
        }
    }

    fn edit(&mut self, resource_type: ResourceType, name: &str, value: Option<u8>) {
        let name = if resource_type.is_singleton() { "" } else { name };
        let key = (resource_type, name.to_owned());
        match value {
            // Nothing in this protocol tells that a resource is gone that was asked for by name.
            None if self.protocol == Protocol::StateOfTheWorld && !resource_type.is_wildcard() => return,
            None => drop(self.content.remove(&key)),
            Some(value) => {
                let body = body(resource_type, name, value);
                self.mortals |= is_mortal(&body);
                let resource = Resource { name: name.into(), version: value.to_string(), body };
                self.content.insert(key, Arc::new(resource));
            }
        }
        self.generation += 1;
        if let Some(server) = &mut self.server {
            self.downlink.extend(server.update(self.content.clone(), self.generation));
        }
    }

    fn connect(&mut self, ads: &mut Ads) {
        self.disconnect(ads);
        let mut server = Peer::new(self.protocol);
        server.update(self.content.clone(), self.generation);
        self.server = Some(server);
        ads.connected(self.now);
    }

    fn disconnect(&mut self, ads: &mut Ads) {
        ads.disconnected();
        self.server = None;
        self.uplink.clear();
        self.downlink.clear();
        self.rules = Rules::default();
    }

    fn talk_nonsense(&mut self, ads: &mut Ads, resource_type: ResourceType, nonsense: Nonsense) {
        let Some(server) = &mut self.server else { return };
        self.nonsense += 1;
        let nonce = format!("nonsense {}", self.nonsense);
        let mut good = body(resource_type, "a", 77);
        let mut type_url = resource_type.type_url().to_owned();
        match nonsense {
            Nonsense::OfUnknownType => type_url = "acme.Thing".into(),
            Nonsense::OfAnotherType => good.type_url = "acme.Thing".into(),
            Nonsense::Twice | Nonsense::UpsertedAndRemoved => {}
        }
        if self.downlink.is_empty() && self.uplink.is_empty() {
            server.sent(resource_type, &nonce);
        } else if self.protocol == Protocol::StateOfTheWorld {
            // What overtakes another response would confuse any client about the nonce.
            return;
        }
        let response = match self.protocol {
            Protocol::Delta => {
                let name = if resource_type.is_singleton() { "" } else { "a" };
                let wire =
                    WireResource { name: name.into(), resource: Some(good), ..WireResource::default() };
                let removed = matches!(nonsense, Nonsense::UpsertedAndRemoved).then(|| name.to_owned());
                let twice = matches!(nonsense, Nonsense::Twice).then(|| wire.clone());
                Response::Delta(DeltaDiscoveryResponse {
                    type_url,
                    nonce,
                    resources: twice.into_iter().chain([wire]).collect(),
                    removed_resources: removed.into_iter().collect(),
                    ..DeltaDiscoveryResponse::default()
                })
            }
            Protocol::StateOfTheWorld => Response::StateOfTheWorld(DiscoveryResponse {
                type_url,
                nonce,
                resources: vec![good.clone(), good],
                ..DiscoveryResponse::default()
            }),
        };
        self.rules.came(&response, true);
        ads.response(response, self.now);
    }

    fn take(&mut self, ads: &mut Ads) {
        let Some(batch) = ads.next_batch(self.now) else { return };
        assert!(self.open.is_none(), "one batch at a time");
        if self.server.is_none() {
            assert!(batch.upserted.is_empty(), "nothing arrives while disconnected");
            for name in &batch.removed {
                let dead = &self.applied[&(batch.resource_type, name.clone())];
                assert!(is_mortal(dead), "{name} is withdrawn while disconnected");
            }
        }
        for resource in &batch.upserted {
            let key = (batch.resource_type, resource.name.clone());
            assert_ne!(self.accepted.get(&key), Some(&resource.body), "{key:?} is known");
        }
        self.open = Some(batch);
    }

    fn judge(&mut self, ads: &mut Ads, judgement: Judgement, subscribe: Subscriptions) {
        let Some(batch) = self.open.take() else { return };
        for resource in batch.upserted {
            let key = (batch.resource_type, resource.name);
            if judgement == Judgement::Accept {
                self.accepted.insert(key.clone(), resource.body.clone());
            } else {
                self.accepted.remove(&key);
            }
            self.applied.insert(key, resource.body);
        }
        for name in batch.removed {
            self.applied.remove(&(batch.resource_type, name.clone()));
            self.accepted.remove(&(batch.resource_type, name));
        }
        let rejected = (judgement == Judgement::Reject).then(|| "bad".to_owned());
        if judgement == Judgement::Drop {
            ads.verdict(Verdict::dropped(), self.now);
            return;
        }
        self.wanted = subscribe.clone();
        self.applied = self.only_wanted(&self.applied);
        self.accepted = self.only_wanted(&self.accepted);
        ads.verdict(Verdict { rejected, subscribe: Some(subscribe) }, self.now);
    }

    fn only_wanted<T: Clone>(&self, resources: &BTreeMap<Key, T>) -> BTreeMap<Key, T> {
        let wanted = |(resource_type, name): &Key| {
            resource_type.is_wildcard() || self.wanted_of(*resource_type).contains_key(name.as_str())
        };
        let resources = resources.iter().filter(|(key, _)| wanted(key));
        resources.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn wanted_of(&self, resource_type: ResourceType) -> Names {
        match resource_type {
            ResourceType::ClusterLoadAssignment => self.wanted.endpoints.clone(),
            ResourceType::RouteConfiguration => self.wanted.routes.clone(),
            ResourceType::Secret => self.wanted.secrets.clone(),
            ResourceType::ExtensionConfig => self.wanted.extensions.clone(),
            _ => Names::default(),
        }
    }

    /// What the consumer should have of what the server has.
    fn expected(&self) -> BTreeMap<Key, Any> {
        let there = self.only_wanted(&self.content).into_iter();
        there.map(|(key, resource)| (key, resource.body.clone())).collect()
    }

    /// Everything under way arrives, and the consumer accepts it.
    fn settle(&mut self, ads: &mut Ads) {
        self.now += PATIENCE;
        loop {
            let wanted = self.wanted.clone();
            self.play(ads, Event::Take);
            let event = if self.open.is_some() {
                Event::Judge(Judgement::Accept, wanted)
            } else if !self.uplink.is_empty() {
                Event::Upload
            } else if !self.downlink.is_empty() {
                Event::Download
            } else if let Some(due) = ads.wake_at().filter(|_| !self.rules.all_answered()) {
                Event::Wait(due.saturating_duration_since(self.now))
            } else {
                return;
            };
            self.play(ads, event);
        }
    }
}

/// Field 1 is the name, in every type that has one.
fn body(resource_type: ResourceType, name: &str, value: u8) -> Any {
    let mut bytes = Vec::new();
    if !resource_type.is_singleton() {
        bytes.extend([10, u8::try_from(name.len()).unwrap()]);
        bytes.extend(name.as_bytes());
    }
    bytes.extend([120, value]);
    Any { type_url: resource_type.type_url().into(), value: bytes }
}

fn played(protocol: Protocol, events: Vec<Event>) -> (World, Ads) {
    let node = Node { id: "sidecar~1".into(), ..Node::default() };
    let mut ads = Ads::new(protocol, node, true, &Shared::default());
    let mut world = World::new(protocol);
    for event in events {
        world.play(&mut ads, event);
    }
    (world, ads)
}

/// Plays the events, brings everything to rest, and compares.
pub(crate) fn the_consumer_ends_with_what_the_server_has(protocol: Protocol, events: Vec<Event>) {
    let (mut world, mut ads) = played(protocol, events);
    // What has died at the client comes again on another stream only.
    if world.server.is_none() || world.mortals {
        world.play(&mut ads, Event::Connect);
    }
    world.settle(&mut ads);

    assert_eq!(world.applied, world.expected());
    assert!(world.rules.all_answered());
    for resource_type in ResourceType::ALL {
        let wanted = world.wanted_of(resource_type).keys().map(ToString::to_string).collect();
        assert_eq!(world.rules.subscribed(resource_type), wanted);
    }

    world.play(&mut ads, Event::Wait(TTL));
    world.settle(&mut ads);
    let mut immortal = world.expected();
    immortal.retain(|_, body| !is_mortal(body));
    assert_eq!(world.applied, immortal);
}
