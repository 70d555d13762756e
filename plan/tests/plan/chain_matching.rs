//! Which filter chain takes a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener as Proto};
use orlop_plan::chain_match::{ConnectionFacts, select_chain};
use orlop_plan::resource::listener::{Listener, TransportProtocol};

use crate::build::{World, chain, listener, number, tcp_proxy};

pub(crate) fn accepted(proto: Proto) -> Arc<Listener> {
    let mut world = World::default();
    let outcome = world.listeners(std::slice::from_ref(&proto));
    assert_eq!(outcome.errors, []);
    Arc::clone(world.snapshot.listeners().get(&proto.name).unwrap())
}

fn named(name: &str, criteria: FilterChainMatch) -> FilterChain {
    FilterChain { name: name.to_owned(), filter_chain_match: Some(criteria), ..chain(vec![tcp_proxy("a")]) }
}

fn cidr(text: &str) -> CidrRange {
    let (address, length) = text.split_once('/').unwrap();
    CidrRange { address_prefix: address.to_owned(), prefix_len: number(length.parse().unwrap()) }
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

fn plaintext(destination: &str) -> ConnectionFacts<'static> {
    ConnectionFacts {
        destination: destination.parse().unwrap(),
        source: SocketAddr::from(([10, 0, 0, 9], 40_000)),
        transport: TransportProtocol::RawBuffer,
        application_protocols: &[],
        server_name: None,
    }
}

fn chosen(listener: &Listener, facts: &ConnectionFacts<'_>) -> Option<String> {
    select_chain(listener, facts).map(|chain| chain.name.clone())
}

#[test]
fn a_port_of_its_own_keeps_out_the_chains_for_any_port() {
    let for_port = FilterChainMatch {
        destination_port: number(80),
        transport_protocol: "tls".to_owned(),
        ..FilterChainMatch::default()
    };
    let proto =
        listener("l", "0.0.0.0:1", vec![named("80", for_port), named("any", FilterChainMatch::default())]);
    let without_default = accepted(proto.clone());
    assert_eq!(chosen(&without_default, &plaintext("10.0.0.1:81")).as_deref(), Some("any"));
    assert_eq!(chosen(&without_default, &plaintext("10.0.0.1:80")), None);
    let default = named("default", FilterChainMatch::default());
    let with_default = accepted(Proto { default_filter_chain: Some(default), ..proto });
    assert_eq!(chosen(&with_default, &plaintext("10.0.0.1:80")).as_deref(), Some("default"));
}

#[test]
fn the_longest_prefix_wins() {
    let within =
        |range: &str| FilterChainMatch { prefix_ranges: vec![cidr(range)], ..FilterChainMatch::default() };
    let proto = listener(
        "l",
        "0.0.0.0:1",
        vec![
            named("8", within("10.0.0.0/8")),
            named("24", within("10.0.1.0/24")),
            named("all", FilterChainMatch::default()),
        ],
    );
    let listener = accepted(proto);
    for (destination, chain) in [("10.0.1.7:1", "24"), ("10.0.2.7:1", "8"), ("11.0.0.1:1", "all")] {
        assert_eq!(chosen(&listener, &plaintext(destination)).as_deref(), Some(chain), "{destination}");
    }
}

#[test]
fn the_most_specific_server_name_wins() {
    let name =
        |names: &[&str]| FilterChainMatch { server_names: strings(names), ..FilterChainMatch::default() };
    let listener = accepted(listener(
        "l",
        "0.0.0.0:1",
        vec![
            named("exact", name(&["www.example.com"])),
            named("long", name(&["*.www.example.com"])),
            named("short", name(&["*.example.com", "*.Example.org"])),
            named("none", FilterChainMatch::default()),
        ],
    ));
    for (server_name, chain) in [
        (Some("www.example.com"), "exact"),
        (Some("a.www.example.com"), "long"),
        (Some("api.example.com"), "short"),
        (Some("a.example.org"), "short"),
        (Some("example.com"), "none"),
        (None, "none"),
    ] {
        let facts =
            ConnectionFacts { server_name, transport: TransportProtocol::Tls, ..plaintext("10.0.0.1:443") };
        assert_eq!(chosen(&listener, &facts).as_deref(), Some(chain), "{server_name:?}");
    }
}

#[test]
fn the_clients_first_protocol_that_a_chain_lists_wins() {
    let alpn = |names: &[&str]| FilterChainMatch {
        application_protocols: strings(names),
        ..FilterChainMatch::default()
    };
    let listener = accepted(listener(
        "l",
        "0.0.0.0:1",
        vec![
            named("h2", alpn(&["h2"])),
            named("http", alpn(&["http/1.1", "http/1.0"])),
            named("any", alpn(&[])),
        ],
    ));
    for (offered, chain) in
        [(&["http/1.1", "h2"][..], "http"), (&["x", "h2", "http/1.1"], "h2"), (&["x"], "any"), (&[], "any")]
    {
        let facts = ConnectionFacts { application_protocols: offered, ..plaintext("10.0.0.1:80") };
        assert_eq!(chosen(&listener, &facts).as_deref(), Some(chain), "{offered:?}");
    }
}

#[test]
fn what_virtual_inbound_does_with_plaintext_and_tls() {
    let of_port = |transport: &str, protocols: &[&str]| FilterChainMatch {
        destination_port: number(8080),
        transport_protocol: transport.to_owned(),
        application_protocols: strings(protocols),
        ..FilterChainMatch::default()
    };
    let listener = accepted(listener(
        "l",
        "0.0.0.0:1",
        vec![
            named("mutual tls", of_port("tls", &["istio", "istio-peer-exchange", "istio-http/1.1"])),
            named("own tls", of_port("tls", &[])),
            named("plaintext", of_port("raw_buffer", &[])),
        ],
    ));
    let tls = |application_protocols| ConnectionFacts {
        transport: TransportProtocol::Tls,
        application_protocols,
        ..plaintext("10.0.0.1:8080")
    };
    assert_eq!(chosen(&listener, &plaintext("10.0.0.1:8080")).as_deref(), Some("plaintext"));
    assert_eq!(chosen(&listener, &tls(&["istio-peer-exchange", "istio"])).as_deref(), Some("mutual tls"));
    assert_eq!(chosen(&listener, &tls(&["h2"])).as_deref(), Some("own tls"));
}
