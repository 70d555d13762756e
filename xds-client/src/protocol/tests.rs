//! The protocol's rules, one by one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::google::protobuf::Any;

use super::{Ads, Protocol, Request, Response};
use crate::ResourceType::{self, Cluster, ClusterLoadAssignment, Listener, RouteConfiguration};
use crate::delivery::Verdict;
use crate::shared::Shared;
use crate::{Names, Resource, Restored, Subscriptions};

/// A stream and the clock that it is told.
struct Session {
    ads: Ads,
    now: Instant,
}

impl Session {
    /// Not connected yet.
    fn new() -> Self {
        Self::with_names(true)
    }

    fn with_names(names: bool) -> Self {
        let node = Node { id: "sidecar~1".into(), ..Node::default() };
        Self { ads: Ads::new(Protocol::Delta, node, names, &Shared::default()), now: Instant::now() }
    }

    /// Connected, with the first requests taken.
    fn connected() -> Self {
        let mut session = Self::new();
        session.reconnect();
        session
    }

    fn reconnect(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.ads.disconnected();
        self.ads.connected(self.now);
        self.requests()
    }

    fn requests(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let requests = std::iter::from_fn(|| self.ads.poll_request());
        requests
            .map(|request| match request {
                Request::Delta(request) => request,
                Request::StateOfTheWorld(_) => panic!("another protocol"),
            })
            .collect()
    }

    fn response(&mut self, response: DeltaDiscoveryResponse) {
        self.ads.response(Response::Delta(response), self.now);
    }

    fn receive(
        &mut self,
        resource_type: ResourceType,
        nonce: &str,
        resources: &[(&str, u8)],
        removed: &[&str],
    ) {
        let resource = |(name, value): &(&str, u8)| WireResource {
            name: (*name).into(),
            version: value.to_string(),
            resource: Some(Any { type_url: resource_type.type_url().into(), value: vec![*value] }),
            ..WireResource::default()
        };
        self.response(DeltaDiscoveryResponse {
            type_url: resource_type.type_url().into(),
            nonce: nonce.into(),
            resources: resources.iter().map(resource).collect(),
            removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryResponse::default()
        });
    }

    /// The next batch as type, upserted names and removed names.
    fn batch(&mut self) -> Option<(ResourceType, Vec<String>, Vec<String>)> {
        let batch = self.ads.next_batch(self.now)?;
        let upserted = batch.upserted.into_iter().map(|resource| resource.name).collect();
        Some((batch.resource_type, upserted, batch.removed))
    }

    fn accept(&mut self, endpoints: &[&str], routes: &[&str]) {
        self.judge(None, endpoints, routes);
    }

    fn reject(&mut self, detail: &str) {
        self.judge(Some(detail.into()), &[], &[]);
    }

    fn judge(&mut self, rejected: Option<String>, endpoints: &[&str], routes: &[&str]) {
        let (endpoints, routes) = (names(endpoints), names(routes));
        let subscribe = Some(Subscriptions { endpoints, routes, ..Subscriptions::default() });
        self.ads.verdict(Verdict { rejected, subscribe }, self.now);
    }
}

fn names(names: &[&str]) -> Names {
    crate::names(names.iter().copied())
}

fn nonces(requests: &[DeltaDiscoveryRequest]) -> Vec<&str> {
    requests.iter().map(|request| request.response_nonce.as_str()).collect()
}

#[test]
fn a_stream_opens_with_the_node_and_wildcards_and_names_nothing_that_is_not_wanted() {
    let mut session = Session::connected();

    let requests = session.reconnect();

    let types: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    let wildcards = [Cluster, Listener, ResourceType::NameTable, ResourceType::ProxyConfig];
    assert_eq!(types, wildcards.map(ResourceType::type_url));
    assert_eq!(requests[0].node.as_ref().map(|node| &*node.id), Some("sidecar~1"));
    assert!(requests[1..].iter().all(|request| request.node.is_none()));
    assert!(requests.iter().all(|request| request.resource_names_subscribe.is_empty()), "as Envoy does");
}

#[test]
fn the_table_of_names_is_not_asked_for_without_a_use_for_it() {
    let mut session = Session::with_names(false);

    let requests = session.reconnect();

    let types: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(types, [Cluster, Listener, ResourceType::ProxyConfig].map(ResourceType::type_url));
}

#[test]
fn a_name_table_has_no_name() {
    let mut session = Session::connected();

    session.receive(ResourceType::NameTable, "n1", &[("", 1)], &[]);

    assert_eq!(session.batch(), Some((ResourceType::NameTable, vec![String::new()], vec![])));
}

#[test]
fn secrets_and_extensions_are_asked_for_by_name() {
    let mut session = Session::connected();
    let subscribe = Subscriptions {
        secrets: names(&["kubernetes://cert"]),
        extensions: names(&["default.waf"]),
        ..Subscriptions::default()
    };

    session.ads.verdict(Verdict { rejected: None, subscribe: Some(subscribe) }, session.now);

    let [secrets, extensions] = &*session.requests() else { panic!("two requests") };
    assert_eq!(secrets.type_url, ResourceType::Secret.type_url());
    assert_eq!(secrets.resource_names_subscribe, ["kubernetes://cert"]);
    assert_eq!(extensions.type_url, ResourceType::ExtensionConfig.type_url());
    assert_eq!(extensions.resource_names_subscribe, ["default.waf"]);
}

#[test]
fn the_answer_and_a_change_of_subscription_are_separate_requests() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("web", 1)], &[]);
    session.batch();

    session.accept(&["web"], &[]);

    let [answer, subscription] = &*session.requests() else { panic!("two requests") };
    assert_eq!(answer.response_nonce, "n1");
    assert!(answer.resource_names_subscribe.is_empty());
    assert_eq!(subscription.type_url, ClusterLoadAssignment.type_url());
    assert_eq!(subscription.response_nonce, "");
    assert_eq!(subscription.resource_names_subscribe, ["web"]);
}

#[test]
fn a_rejection_carries_the_detail() {
    let mut session = Session::connected();
    session.receive(Listener, "n1", &[("a", 1)], &[]);
    session.batch();

    session.reject("Listener 'a': filter_chains: is missing");

    let [answer] = &*session.requests() else { panic!("one request") };
    assert_eq!(answer.error_detail.as_ref().unwrap().message, "Listener 'a': filter_chains: is missing");
    let status = session.ads.status(Listener).unwrap();
    assert_eq!((status.acked, status.nacked), (0, 1));
}

#[test]
fn responses_that_arrive_while_the_consumer_is_busy_are_merged_and_all_answered() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("a", 1)], &[]);
    session.batch();
    session.receive(Cluster, "n2", &[("a", 2), ("b", 1)], &[]);
    session.receive(Cluster, "n3", &[("c", 1)], &["b"]);
    assert_eq!(session.batch(), None, "one batch at a time");

    session.accept(&[], &[]);

    assert_eq!(nonces(&session.requests()), ["n1"]);
    assert_eq!(session.batch(), Some((Cluster, vec!["a".into(), "c".into()], vec![])));
    session.accept(&[], &[]);
    assert_eq!(nonces(&session.requests()), ["n2", "n3"]);
}

#[test]
fn a_response_that_changes_nothing_is_accepted_without_the_consumer() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("a", 1)], &[]);
    session.batch();
    session.accept(&[], &[]);
    session.requests();

    session.receive(Cluster, "n2", &[("a", 1)], &[]);

    assert_eq!(session.batch(), None);
    assert_eq!(nonces(&session.requests()), ["n2"]);
}

#[test]
fn a_rejected_resource_is_delivered_again_when_it_comes_again() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("a", 1)], &[]);
    session.batch();
    session.reject("bad");

    session.receive(Cluster, "n2", &[("a", 1)], &[]);

    assert_eq!(session.batch(), Some((Cluster, vec!["a".into()], vec![])));
}

#[test]
fn after_a_reconnection_the_server_learns_what_is_held_and_nothing_unchanged_is_delivered() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("a", 1), ("b", 1)], &[]);
    session.batch();
    session.accept(&["a", "b"], &[]);

    let requests = session.reconnect();

    let held: BTreeSet<_> = requests[0].initial_resource_versions.keys().map(String::as_str).collect();
    assert_eq!(held, BTreeSet::from(["a", "b"]));
    assert_eq!(requests[1].resource_names_subscribe, ["a", "b"]);
    session.receive(Cluster, "m1", &[("a", 1)], &["b"]);
    assert_eq!(session.batch(), Some((Cluster, vec![], vec!["b".into()])));
}

#[test]
fn what_was_restored_is_asked_for_and_not_delivered_again_and_the_server_says_what_is_gone() {
    let mut session = Session::new();
    let cluster = |name: &str| Resource {
        name: name.to_owned(),
        version: "7".to_owned(),
        body: Any { type_url: Cluster.type_url().into(), value: vec![1] },
    };
    let subscribe = Subscriptions { endpoints: names(&["a", "b"]), ..Subscriptions::default() };
    let resources = vec![(Cluster, vec![cluster("a"), cluster("b")])];
    session.ads.restore(Restored { resources, subscribe }, session.now);

    let requests = session.reconnect();

    assert_eq!(requests[0].initial_resource_versions["a"], "7");
    assert_eq!(requests[1].resource_names_subscribe, ["a", "b"]);
    session.receive(Cluster, "n1", &[("a", 1)], &["b"]);
    assert_eq!(session.batch(), Some((Cluster, vec![], vec!["b".into()])));
}

#[test]
fn a_verdict_that_comes_after_a_reconnection_answers_nothing() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("a", 1)], &[]);
    session.batch();
    session.reconnect();

    session.accept(&[], &[]);

    assert!(session.requests().is_empty());
    session.receive(Cluster, "m1", &[("a", 1)], &[]);
    assert_eq!(session.batch(), None, "the accepted resource is known");
}

#[test]
fn what_was_not_delivered_before_a_disconnection_is_forgotten() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("a", 1)], &[]);
    session.ads.disconnected();

    assert_eq!(session.batch(), None);
    assert!(session.reconnect()[0].initial_resource_versions.is_empty());
}

#[test]
fn a_resource_that_is_no_longer_wanted_is_ignored_and_its_response_answered() {
    let mut session = Session::connected();
    session.accept(&[], &["a", "b"]);
    session.accept(&[], &["b"]);
    session.requests();

    session.receive(RouteConfiguration, "n1", &[("a", 1)], &[]);

    assert_eq!(session.batch(), None);
    assert_eq!(nonces(&session.requests()), ["n1"]);
}

#[test]
fn a_name_that_does_not_exist_is_reported_to_the_consumer_that_asked_for_it() {
    let mut session = Session::connected();
    session.accept(&["a"], &[]);

    session.receive(ClusterLoadAssignment, "n1", &[], &["a"]);

    assert_eq!(session.batch(), Some((ClusterLoadAssignment, vec![], vec!["a".into()])));
}

#[test]
fn listeners_wait_for_the_endpoints_that_were_asked_for() {
    let mut session = Session::connected();
    session.receive(Cluster, "n1", &[("a", 1)], &[]);
    session.batch();
    session.receive(Listener, "n2", &[("l", 1)], &[]);
    session.accept(&["a"], &[]);
    assert_eq!(session.batch(), None);

    session.receive(ClusterLoadAssignment, "n3", &[("a", 1)], &[]);

    assert_eq!(session.batch().unwrap().0, ClusterLoadAssignment);
    session.accept(&["a"], &[]);
    assert_eq!(session.batch().unwrap().0, Listener);
}

#[test]
fn listeners_do_not_wait_for_ever() {
    let mut session = Session::connected();
    session.accept(&["a"], &[]);
    session.receive(Listener, "n1", &[("l", 1)], &[]);
    assert_eq!(session.batch(), None);

    session.now = session.ads.wake_at().expect("a time to look again");

    assert_eq!(session.batch().unwrap().0, Listener);
    assert!(session.now.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_resource_of_another_type_than_its_response_is_refused() {
    let mut session = Session::connected();
    let mut response = DeltaDiscoveryResponse {
        type_url: Cluster.type_url().into(),
        nonce: "n1".into(),
        ..DeltaDiscoveryResponse::default()
    };
    response.resources.push(WireResource {
        name: "a".into(),
        resource: Some(Any { type_url: "acme.Thing".into(), value: vec![] }),
        ..WireResource::default()
    });

    session.response(response);

    let [answer] = &*session.requests() else { panic!("one request") };
    assert_eq!(
        answer.error_detail.as_ref().unwrap().message,
        "cluster 'a': resource.type_url: is 'acme.Thing'"
    );
}

#[test]
fn many_names_are_asked_for_in_several_requests() {
    let mut session = Session::connected();
    let endpoints: Vec<String> = (0..25_000).map(|index| format!("cluster-{index}")).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();

    session.accept(&endpoints, &[]);

    let asked: Vec<usize> =
        session.requests().iter().map(|request| request.resource_names_subscribe.len()).collect();
    assert_eq!(asked, [10_000, 10_000, 5_000]);
}

#[test]
fn a_server_that_repeats_what_is_refused_is_refused_ever_more_slowly() {
    let mut session = Session::connected();
    let start = session.now;
    let mut refused_after = Vec::new();

    // It sends again as soon as it hears the refusal.
    while session.now < start + Duration::from_mins(2) {
        session.receive(Cluster, "n", &[("a", 1)], &[]);
        session.batch().unwrap();
        session.reject("a: is bad");
        let mut answers = session.requests();
        if answers.is_empty() {
            session.now = session.ads.wake_at().unwrap();
            assert_eq!(session.batch(), None);
            answers = session.requests();
        }
        assert_eq!(nonces(&answers), ["n"]);
        refused_after.push((session.now - start).as_secs());
    }

    assert_eq!(refused_after, [0, 1, 3, 7, 15, 31, 61, 91, 121]);
}

#[test]
fn what_is_accepted_is_answered_at_once_after_any_number_of_refusals() {
    let mut session = Session::connected();
    for nonce in ["n1", "n2"] {
        session.receive(Cluster, nonce, &[("a", 1)], &[]);
        session.batch().unwrap();
        session.reject("a: is bad");
    }
    assert_eq!(nonces(&session.requests()), ["n1"], "the second waits");

    session.receive(Cluster, "n3", &[("a", 2)], &[]);
    session.batch().unwrap();
    session.accept(&[], &[]);

    assert_eq!(nonces(&session.requests()), ["n2", "n3"], "in order");
}

#[test]
fn a_response_that_names_a_resource_twice_is_refused_as_a_whole() {
    let mut session = Session::connected();

    session.receive(Cluster, "n1", &[("a", 1), ("b", 1), ("a", 2)], &[]);

    assert_eq!(session.batch(), None, "nothing of it counts");
    let requests = session.requests();
    let detail = requests[0].error_detail.as_ref().map(|detail| detail.message.as_str());
    assert_eq!(detail, Some("cluster 'a': is in the response twice"));
}
