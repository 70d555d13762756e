//! What a snapshot keeps of what it is given.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::HealthCheck;
use orlop_plan::snapshot::{Resource, ResourceType, Wanted};

use crate::build::{
    World, any, assignment, chain, eds_cluster, endpoint, http, listener, locality, manager, seconds,
    tcp_proxy,
};

fn names(wanted: &Wanted) -> Vec<&str> {
    wanted.keys().map(|name| &**name).collect()
}

fn unsupported(name: &str) -> Cluster {
    Cluster { health_checks: vec![HealthCheck::default()], ..eds_cluster(name) }
}

#[test]
fn good_and_bad_of_one_delivery_are_judged_one_by_one() {
    let mut world = World::default();
    let outcome = world.clusters(&[eds_cluster("a"), unsupported("b"), eds_cluster("c")]);
    assert_eq!(outcome.accepted, 2);
    assert_eq!(outcome.errors.len(), 1);
    assert_eq!(outcome.errors[0].to_string(), "b: health_checks: is not supported");
    assert!(world.snapshot.clusters().get("b").is_none());
}

#[test]
fn the_last_good_version_stays_and_the_refusal_is_remembered() {
    let mut world = World::default();
    world.clusters(&[Cluster { connect_timeout: seconds(7), ..eds_cluster("a") }]);
    world.clusters(&[unsupported("a")]);
    assert_eq!(world.snapshot.clusters().get("a").unwrap().connect_timeout.as_secs(), 7);
    let rejection = world.snapshot.rejection(ResourceType::Cluster, "a").unwrap();
    assert_eq!(rejection.error.fields[0].path.to_string(), "health_checks");
    world.clusters(&[eds_cluster("a")]);
    assert!(world.snapshot.rejection(ResourceType::Cluster, "a").is_none());
}

#[test]
fn a_removed_resource_is_forgotten_with_its_refusal() {
    let mut world = World::default();
    world.clusters(&[eds_cluster("a")]);
    world.clusters(&[unsupported("a")]);
    let outcome = world.deliver::<Cluster>(&[], &["a"]);
    assert!(world.snapshot.clusters().is_empty());
    assert!(world.snapshot.rejections().is_empty());
    assert!(outcome.endpoints_wanted.is_empty());
}

#[test]
fn subscriptions_follow_what_was_accepted() {
    let mut world = World::default();
    let outcome = world.clusters(&[eds_cluster("a"), unsupported("b")]);
    assert_eq!(names(&outcome.endpoints_wanted), ["a"]);
    let outcome = world.listeners(&[
        listener("l", "0.0.0.0:80", vec![chain(vec![http(&manager("web"))])]),
        listener("t", "10.0.0.1:80", vec![chain(vec![tcp_proxy("a")])]),
    ]);
    assert_eq!(names(&outcome.routes_wanted), ["web"]);
}

#[test]
fn a_resource_must_be_what_it_is_called() {
    let mut world = World::default();
    let outcome = world.deliver(&[("other", eds_cluster("a"))], &[]);
    assert_eq!(
        outcome.errors[0].to_string(),
        r#"other: name: calls itself "a"; the two names must be the same"#
    );
    let body = any(&assignment("a", vec![]));
    let wrong = Resource { name: "a".to_owned(), version: "1".to_owned(), body };
    let outcome = world.apply(ResourceType::Cluster, &[wrong], &[]);
    assert!(outcome.errors[0].to_string().contains("ClusterLoadAssignment"), "{}", outcome.errors[0]);
}

#[test]
fn equal_resources_are_parsed_once_and_forgotten_with_the_last_user() {
    let mut one = World::default();
    let assignments = [assignment("a", vec![locality(vec![endpoint("10.0.0.1:80")])])];
    one.endpoints(&assignments);
    one.endpoints(&assignments);
    assert_eq!(one.interner.len(), 1);
    one.snapshot = orlop_plan::snapshot::Snapshot::new();
    assert!(one.interner.is_empty());
}
