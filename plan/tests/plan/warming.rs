//! Nothing is served that points at something which has not arrived.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use orlop_plan::classify::{Destination, Path};
use orlop_plan::kernel::{Frontend, InboundAction, OutboundAction};
use orlop_plan::snapshot::ResourceType;

use crate::build::{
    World, assignment, chain, eds_cluster, endpoint, http_chain, http_listener, listener, locality, manager,
    passthrough_cluster, refusal, route_configuration, route_to, tcp_proxy, virtual_host,
};

fn endpoints(name: &str, address: &str) -> ClusterLoadAssignment {
    assignment(name, vec![locality(vec![endpoint(address)])])
}

fn frontend(addr: Option<&str>, port: u16) -> Frontend {
    Frontend { addr: addr.map(|addr| addr.parse().unwrap()), port }
}

/// One TCP service, complete.
fn world() -> World {
    let mut world = World::default();
    world.clusters(&[eds_cluster("a"), passthrough_cluster()]);
    world.endpoints(&[endpoints("a", "10.0.0.1:9000")]);
    world.listeners(&[listener("tcp", "10.96.0.1:9000", vec![chain(vec![tcp_proxy("a")])])]);
    world
}

#[test]
fn plans_are_not_ready_before_everything_named_has_come() {
    let mut world = World::default();
    assert!(!world.compile(None).ready());
    world.clusters(&[eds_cluster("a")]);
    world.listeners(&[http_listener(8080)]);
    assert!(!world.compile(None).ready());
    world.endpoints(&[endpoints("a", "10.0.0.1:80")]);
    assert!(!world.compile(None).ready());
    world.routes(&[route_configuration("8080", vec![virtual_host("h", &["*"], vec![route_to("a")])])]);
    assert!(world.compile(None).ready());
}

#[test]
fn a_listener_keeps_its_version_until_the_endpoints_of_its_next_one_are_there() {
    let mut world = world();
    let before = world.compile(None);
    world.clusters(&[eds_cluster("b")]);
    world.listeners(&[listener("tcp", "10.96.0.1:9000", vec![chain(vec![tcp_proxy("b")])])]);
    let during = world.compile(Some(&before));
    assert_eq!(during.kernel(), before.kernel());
    assert_eq!(during.held()[0].to_string(), "listener `tcp` waits for load assignment `b`");
    world.endpoints(&[endpoints("b", "10.0.0.2:9000")]);
    let after = world.compile(Some(&during));
    assert_eq!(after.held(), []);
    let OutboundAction::Balance(backends) =
        &after.kernel().frontends.get(&frontend(Some("10.96.0.1"), 9000)).unwrap()
    else {
        panic!("the kernel balances")
    };
    assert_eq!(backends.backends[0].address, "10.0.0.2:9000".parse().unwrap());
}

#[test]
fn a_route_configuration_keeps_its_version_likewise() {
    let mut world = world();
    let routes = |cluster: &str| {
        [route_configuration("8080", vec![virtual_host("h", &["web", "10.96.0.2"], vec![route_to(cluster)])])]
    };
    world.listeners(&[http_listener(8080)]);
    world.routes(&routes("a"));
    let before = world.compile(None);
    assert!(before.ready());
    world.clusters(&[eds_cluster("b")]);
    world.routes(&routes("b"));
    let during = world.compile(Some(&before));
    assert_eq!(during.kernel(), before.kernel());
    assert_eq!(during.held()[0].to_string(), "route configuration `8080` waits for load assignment `b`");
    assert!(during.ready());
}

#[test]
fn a_new_listener_whose_routes_have_not_come_is_not_served_yet() {
    let mut world = world();
    let before = world.compile(None);
    world.listeners(&[http_listener(8080)]);
    let during = world.compile(Some(&before));
    assert_eq!(during.kernel(), before.kernel());
    assert_eq!(during.held()[0].to_string(), "listener `0.0.0.0_8080` waits for route configuration `8080`");
}

#[test]
fn a_cluster_keeps_its_endpoints_when_they_are_taken_away() {
    let mut world = world();
    let before = world.compile(None);
    world.deliver::<ClusterLoadAssignment>(&[], &["a"]);
    assert_eq!(world.compile(Some(&before)).kernel(), before.kernel());
}

#[test]
fn a_cluster_stays_until_the_listener_that_names_it_has_changed() {
    let mut world = world();
    let before = world.compile(None);
    // As istiod goes about it: the cluster goes first, then come the listeners that do without it.
    world.deliver::<Cluster>(&[("b", eds_cluster("b"))], &["a"]);
    let during = world.compile(Some(&before));
    assert_eq!(during.kernel(), before.kernel());
    assert_eq!(during.held()[0].to_string(), "listener `tcp` waits for cluster `a`");
    world.deliver::<Listener>(&[], &["tcp"]);
    let after = world.compile(Some(&during));
    assert!(after.kernel().frontends.is_empty());
    assert!(!after.proxy().clusters.contains_key("a"));
}

#[test]
fn a_cluster_that_is_still_named_goes_with_the_next_delivery_of_clusters() {
    let mut world = world();
    let before = world.compile(None);
    world.deliver::<Cluster>(&[], &["a"]);
    let during = world.compile(Some(&before));
    world.clusters(&[eds_cluster("c")]);
    let after = world.compile(Some(&during));
    assert_eq!(
        after.kernel().frontends.get(&frontend(Some("10.96.0.1"), 9000)).unwrap(),
        &OutboundAction::Block
    );
}

#[test]
fn a_listener_in_an_older_version_keeps_the_routes_of_that_version() {
    let mut world = world();
    world.listeners(&[http_listener(8080)]);
    world
        .routes(&[route_configuration("8080", vec![virtual_host("h", &["10.96.0.2"], vec![route_to("a")])])]);
    let before = world.compile(None);
    let other = http_chain(&manager("other"));
    world.listeners(&[Listener { filter_chains: vec![other], ..http_listener(8080) }]);
    let during = world.compile(Some(&before));
    assert_eq!(during.kernel(), before.kernel());
    assert_eq!(during.held()[0].to_string(), "listener `0.0.0.0_8080` waits for route configuration `other`");
}

#[test]
fn what_is_named_no_more_is_forgotten() {
    let mut world = world();
    world.deliver::<Cluster>(&[], &["a"]);
    assert!(world.snapshot.load_assignments().is_empty());
}

#[test]
fn a_route_to_a_cluster_that_is_not_there_holds_nothing_back() {
    let mut world = world();
    world.listeners(&[http_listener(8080)]);
    world.routes(&[route_configuration("8080", vec![virtual_host("h", &["*"], vec![route_to("nowhere")])])]);
    let plans = world.compile(None);
    assert!(plans.ready());
    assert_eq!(plans.held(), []);
    let verdict = &plans.verdicts()[&Destination::Outbound(frontend(None, 8080))];
    assert_eq!(verdict.path, Path::L7Proxy, "which answers 503 as Envoy does");
}

#[test]
fn what_a_refused_listener_would_have_taken_is_refused() {
    let mut world = world();
    let mut bad = http_listener(8080);
    bad.transparent = crate::build::flag(true);
    refusal("0.0.0.0_8080", bad.clone());
    world.listeners(&[bad]);
    let plans = world.compile(None);
    assert_eq!(plans.kernel().frontends.get(&frontend(None, 8080)).unwrap(), &OutboundAction::Block);
    let verdict = &plans.verdicts()[&Destination::Outbound(frontend(None, 8080))];
    assert!(verdict.reason.to_string().contains("transparent: is not supported"), "{}", verdict.reason);
}

#[test]
fn an_older_version_of_a_refused_listener_goes_on() {
    let mut world = world();
    let before = world.compile(None);
    let mut bad = listener("tcp", "10.96.0.1:9000", vec![chain(vec![tcp_proxy("a")])]);
    bad.transparent = crate::build::flag(true);
    world.listeners(&[bad]);
    assert_eq!(world.compile(Some(&before)).kernel(), before.kernel());
    assert!(world.snapshot.rejection(ResourceType::Listener, "tcp").is_some());
}

#[test]
fn without_listeners_everything_is_left_alone() {
    let plans = world().compile(None);
    assert_eq!(plans.kernel().default_outbound, OutboundAction::Passthrough);
    assert_eq!(plans.kernel().default_inbound, InboundAction::Direct);
}
