//! Whatever happens in whatever order: nothing is lost, answered twice, or delivered in vain.
//!
//! A correct server, a consumer and a network that may break at any point play random events with the state
//! machine. After each event the rules of the protocol are checked; at the end everything comes to rest, and
//! the consumer must hold exactly what the server has of what is wanted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use proptest::prelude::*;

use super::{Batch, DeltaAds};
use crate::delivery::Verdict;
use crate::directory::Server;
use crate::{Resource, ResourceType, Subscriptions};

const NAMES: [&str; 3] = ["a", "b", "c"];

type Key = (ResourceType, String);

#[derive(Debug, Clone)]
enum Event {
    /// A resource is written, or deleted, at the server.
    Edit(ResourceType, &'static str, Option<u8>),
    Connect,
    Disconnect,
    /// The server gets the oldest request under way.
    Upload,
    /// The client gets the oldest response under way.
    Download,
    /// The consumer takes a batch, if there is one.
    Take,
    Judge(Judgement, Subscriptions),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Judgement {
    Accept,
    Reject,
    Drop,
}

#[derive(Default)]
struct World {
    content: BTreeMap<Key, Arc<Resource>>,
    generation: u64,
    server: Option<Server>,
    uplink: VecDeque<DeltaDiscoveryRequest>,
    downlink: VecDeque<DeltaDiscoveryResponse>,
    /// Nonces of responses that the client got on this stream and did not answer.
    unanswered: BTreeSet<(String, String)>,
    /// What this stream's server was asked for.
    subscribed: BTreeMap<String, BTreeSet<String>>,
    first_request: bool,
    open: Option<Batch>,
    wanted: Subscriptions,
    applied: BTreeMap<Key, Any>,
    accepted: BTreeMap<Key, Any>,
}

impl World {
    fn play(&mut self, ads: &mut DeltaAds, event: Event, now: Instant) {
        match event {
            Event::Edit(resource_type, name, value) => self.edit(resource_type, name, value),
            Event::Connect => self.connect(ads, now),
            Event::Disconnect => self.disconnect(ads),
            Event::Upload => {
                if let Some(request) = self.uplink.pop_front() {
                    let server = self.server.as_mut().unwrap();
                    self.downlink.extend(server.request(request));
                }
            }
            Event::Download => {
                if let Some(response) = self.downlink.pop_front() {
                    self.unanswered.insert((response.type_url.clone(), response.nonce.clone()));
                    ads.response(response);
                }
            }
            Event::Take => self.take(ads, now),
            Event::Judge(judgement, subscribe) => self.judge(ads, judgement, subscribe, now),
        }
        while let Some(request) = ads.poll_request() {
            self.check(&request);
            self.uplink.push_back(request);
        }
    }

    fn edit(&mut self, resource_type: ResourceType, name: &str, value: Option<u8>) {
        let key = (resource_type, name.to_owned());
        match value {
            None => drop(self.content.remove(&key)),
            Some(value) => {
                let body = Any { type_url: resource_type.type_url().into(), value: vec![value] };
                let resource = Resource { name: name.into(), version: value.to_string(), body };
                self.content.insert(key, Arc::new(resource));
            }
        }
        self.generation += 1;
        if let Some(server) = &mut self.server {
            self.downlink.extend(server.update(self.content.clone(), self.generation));
        }
    }

    fn connect(&mut self, ads: &mut DeltaAds, now: Instant) {
        self.disconnect(ads);
        let mut server = Server::default();
        server.update(self.content.clone(), self.generation);
        self.server = Some(server);
        self.first_request = true;
        ads.connected(now);
    }

    fn disconnect(&mut self, ads: &mut DeltaAds) {
        ads.disconnected();
        self.server = None;
        self.uplink.clear();
        self.downlink.clear();
        self.unanswered.clear();
        self.subscribed.clear();
    }

    fn take(&mut self, ads: &mut DeltaAds, now: Instant) {
        let Some(batch) = ads.next_batch(now) else { return };
        assert!(self.open.is_none(), "one batch at a time");
        assert!(self.server.is_some(), "nothing is delivered while disconnected");
        for resource in &batch.upserted {
            let key = (batch.resource_type, resource.name.clone());
            assert_ne!(self.accepted.get(&key), Some(&resource.body), "{key:?} is known");
        }
        self.open = Some(batch);
    }

    fn judge(&mut self, ads: &mut DeltaAds, judgement: Judgement, subscribe: Subscriptions, now: Instant) {
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
            ads.verdict(Verdict::dropped(), now);
            return;
        }
        self.wanted = subscribe.clone();
        self.applied = self.only_wanted(&self.applied);
        self.accepted = self.only_wanted(&self.accepted);
        ads.verdict(Verdict { rejected, subscribe: Some(subscribe) }, now);
    }

    fn only_wanted<T: Clone>(&self, resources: &BTreeMap<Key, T>) -> BTreeMap<Key, T> {
        let wanted = |(resource_type, name): &Key| match resource_type {
            ResourceType::ClusterLoadAssignment => self.wanted.endpoints.contains(name),
            ResourceType::RouteConfiguration => self.wanted.routes.contains(name),
            ResourceType::Secret => self.wanted.secrets.contains(name),
            ResourceType::ExtensionConfig => self.wanted.extensions.contains(name),
            ResourceType::Cluster
            | ResourceType::Listener
            | ResourceType::NameTable
            | ResourceType::ProxyConfig => true,
        };
        resources
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// The rules that every request must keep.
    fn check(&mut self, request: &DeltaDiscoveryRequest) {
        assert!(self.server.is_some(), "nothing is sent while disconnected");
        assert_eq!(request.node.is_some(), std::mem::take(&mut self.first_request), "the node comes first");
        if !request.response_nonce.is_empty() {
            let answer = (request.type_url.clone(), request.response_nonce.clone());
            assert!(self.unanswered.remove(&answer), "{answer:?} is answered once, on its own stream");
            assert!(request.resource_names_subscribe.is_empty());
            assert!(request.resource_names_unsubscribe.is_empty());
            return;
        }
        let first = !self.subscribed.contains_key(&request.type_url);
        let subscribed = self.subscribed.entry(request.type_url.clone()).or_default();
        let wildcard = ResourceType::from_type_url(&request.type_url).is_some_and(ResourceType::is_wildcard);
        if first {
            let empty = request.resource_names_subscribe.is_empty();
            assert_eq!(empty, wildcard, "an empty first subscription means all");
        } else {
            assert!(request.initial_resource_versions.is_empty());
        }
        for name in &request.resource_names_subscribe {
            assert!(subscribed.insert(name.clone()), "{name} is subscribed once");
        }
        for name in &request.resource_names_unsubscribe {
            assert!(subscribed.remove(name), "{name} was subscribed");
        }
    }

    fn settle(&mut self, ads: &mut DeltaAds, now: Instant) {
        let much_later = now + Duration::from_mins(1);
        if self.server.is_none() {
            self.play(ads, Event::Connect, now);
        }
        loop {
            let wanted = self.wanted.clone();
            self.play(ads, Event::Take, much_later);
            let event = if self.open.is_some() {
                Event::Judge(Judgement::Accept, wanted)
            } else if !self.uplink.is_empty() {
                Event::Upload
            } else if !self.downlink.is_empty() {
                Event::Download
            } else {
                return;
            };
            self.play(ads, event, much_later);
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let resource_type = || prop::sample::select(ResourceType::ALL.to_vec());
    let name = || prop::sample::select(NAMES.to_vec());
    let names = || prop::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len());
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    let subscriptions =
        (names(), names(), names(), names()).prop_map(move |(endpoints, routes, secrets, extensions)| {
            Subscriptions {
                endpoints: owned(endpoints),
                routes: owned(routes),
                secrets: owned(secrets),
                extensions: owned(extensions),
            }
        });
    let judgement = prop_oneof![
        4 => Just(Judgement::Accept),
        2 => Just(Judgement::Reject),
        1 => Just(Judgement::Drop),
    ];
    let event = prop_oneof![
        4 => (resource_type(), name(), prop::option::weighted(0.7, 0..3_u8))
            .prop_map(|(resource_type, name, value)| Event::Edit(resource_type, name, value)),
        1 => Just(Event::Connect),
        1 => Just(Event::Disconnect),
        6 => Just(Event::Upload),
        6 => Just(Event::Download),
        4 => Just(Event::Take),
        4 => (judgement, subscriptions).prop_map(|(judgement, wanted)| Event::Judge(judgement, wanted)),
    ];
    prop::collection::vec(event, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_consumer_ends_with_what_the_server_has_of_what_is_wanted(events in events()) {
        let now = Instant::now();
        let mut ads = DeltaAds::new(Node { id: "sidecar~1".into(), ..Node::default() });
        let mut world = World::default();

        for event in events {
            world.play(&mut ads, event, now);
        }
        world.settle(&mut ads, now);

        let there: BTreeMap<Key, Any> = world
            .only_wanted(&world.content)
            .into_iter()
            .map(|(key, resource)| (key, resource.body.clone()))
            .collect();
        prop_assert_eq!(&world.applied, &there);
        prop_assert!(world.unanswered.is_empty());
        for (resource_type, wanted) in [
            (ResourceType::ClusterLoadAssignment, &world.wanted.endpoints),
            (ResourceType::RouteConfiguration, &world.wanted.routes),
            (ResourceType::Secret, &world.wanted.secrets),
            (ResourceType::ExtensionConfig, &world.wanted.extensions),
        ] {
            let subscribed = world.subscribed.get(resource_type.type_url()).cloned().unwrap_or_default();
            prop_assert_eq!(&subscribed, wanted);
        }
    }
}
