//! Two listeners with one address: as in Envoy, the later one is refused by the names of both.

use envoy_types::pb::envoy::config::listener::v3::{AdditionalAddress, Listener};
use orlop_plan::classify::{Destination, Path};
use orlop_plan::kernel::Frontend;
use orlop_plan::snapshot::Outcome;

use crate::build::{World, address, assignment, chain, eds_cluster, endpoint, listener, locality, tcp_proxy};

fn at(name: &str, address: &str) -> Listener {
    listener(name, address, vec![chain(vec![tcp_proxy("a")])])
}

fn errors(outcome: &Outcome) -> Vec<String> {
    outcome.errors.iter().map(ToString::to_string).collect()
}

fn served(world: &World, name: &str) -> Option<String> {
    Some(world.snapshot.listeners().get(name)?.addresses[0].to_string())
}

#[test]
fn the_later_one_is_refused_and_connections_go_on_being_the_earlier_ones() {
    let mut world = World::default();
    world.clusters(&[eds_cluster("a")]);
    world.endpoints(&[assignment("a", vec![locality(vec![endpoint("10.0.1.1:80")])])]);

    let outcome = world.listeners(&[at("one", "10.0.0.1:80"), at("other", "10.0.0.1:80")]);

    assert_eq!(errors(&outcome), [r#"other: address: 10.0.0.1:80 is the address of listener "one""#]);
    let plans = world.compile(None);
    let frontend = Frontend { addr: Some("10.0.0.1".parse().unwrap()), port: 80 };
    assert_eq!(plans.verdicts()[&Destination::Outbound(frontend)].path, Path::Kernel);
}

#[test]
fn when_the_earlier_one_goes_connections_to_the_refused_one_are_refused() {
    let mut world = World::default();
    world.listeners(&[at("one", "10.0.0.1:80"), at("other", "10.0.0.1:80")]);
    let plans = world.compile(None);
    world.deliver::<Listener>(&[], &["one"]);

    let frontend = Frontend { addr: Some("10.0.0.1".parse().unwrap()), port: 80 };
    let plans = world.compile(Some(&plans));
    assert_eq!(plans.verdicts()[&Destination::Outbound(frontend)].path, Path::Blocked);
}

#[test]
fn a_refused_change_of_address_leaves_the_old_one() {
    let mut world = World::default();
    world.listeners(&[at("one", "10.0.0.1:80"), at("other", "10.0.0.2:80")]);

    let outcome = world.listeners(&[at("other", "10.0.0.1:80")]);

    assert_eq!(errors(&outcome).len(), 1);
    assert_eq!(served(&world, "other").as_deref(), Some("10.0.0.2:80"));
}

#[test]
fn an_address_is_free_when_its_listener_is_removed_or_has_moved() {
    let mut world = World::default();
    world.listeners(&[at("one", "10.0.0.1:80")]);

    let moved = world.listeners(&[at("one", "10.0.0.2:80"), at("other", "10.0.0.1:80")]);
    let removed = world.deliver(&[("third", at("third", "10.0.0.2:80"))], &["one"]);

    assert_eq!(errors(&moved), [""; 0]);
    assert_eq!(errors(&removed), [""; 0]);
}

#[test]
fn every_address_of_a_listener_counts_and_every_place_is_named() {
    let mut world = World::default();
    let both = Listener {
        additional_addresses: vec![AdditionalAddress {
            address: address("10.0.0.2:80"),
            ..AdditionalAddress::default()
        }],
        ..at("both", "10.0.0.3:80")
    };

    let outcome = world.listeners(&[at("one", "10.0.0.2:80"), both]);

    assert_eq!(
        errors(&outcome),
        [r#"both: additional_addresses[0].address: 10.0.0.2:80 is the address of listener "one""#]
    );
}

#[test]
fn virtual_outbound_goes_on_when_another_one_is_refused() {
    let mut world = World::default();
    let virtual_outbound =
        |name: &str| Listener { use_original_dst: crate::build::flag(true), ..at(name, "0.0.0.0:15001") };
    world.clusters(&[eds_cluster("a")]);
    world.endpoints(&[assignment("a", vec![locality(vec![endpoint("10.0.1.1:80")])])]);

    let outcome = world.listeners(&[virtual_outbound("one"), virtual_outbound("other")]);

    assert_eq!(errors(&outcome).len(), 1);
    assert_eq!(world.compile(None).verdicts()[&Destination::OutboundElsewhere].path, Path::Kernel);
}
