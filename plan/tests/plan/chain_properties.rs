//! The choice of a chain against nested maps, which is how Envoy documents and builds it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch};
use ipnet::IpNet;
use orlop_plan::chain_match::{ConnectionFacts, select_chain};
use orlop_plan::resource::listener::TransportProtocol;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::build::{chain, listener, number, tcp_proxy};
use crate::chain_matching::accepted;

#[derive(Debug, Clone)]
struct Criteria {
    port: Option<u16>,
    prefixes: Vec<IpNet>,
    names: Vec<&'static str>,
    transport: &'static str,
    protocols: Vec<&'static str>,
    source_type: i32,
    sources: Vec<IpNet>,
    source_ports: Vec<u16>,
}

fn net() -> impl Strategy<Value = IpNet> {
    select(vec!["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "127.0.0.0/8"])
        .prop_map(|text| text.parse().unwrap())
}

fn criteria() -> impl Strategy<Value = Criteria> {
    (
        prop::option::of(select(vec![80, 81])),
        vec(net(), 0..2),
        vec(select(vec!["a.b.c", "*.b.c", "*.c"]), 0..2),
        select(vec!["", "tls", "raw_buffer"]),
        vec(select(vec!["h2", "http/1.1"]), 0..2),
        0..3_i32,
        vec(net(), 0..2),
        vec(select(vec![1000_u16, 1001]), 0..2),
    )
        .prop_map(|(port, prefixes, names, transport, protocols, source_type, sources, source_ports)| {
            Criteria { port, prefixes, names, transport, protocols, source_type, sources, source_ports }
        })
}

fn cidrs(nets: &[IpNet]) -> Vec<CidrRange> {
    nets.iter()
        .map(|net| CidrRange {
            address_prefix: net.addr().to_string(),
            prefix_len: number(net.prefix_len().into()),
        })
        .collect()
}

fn proto(name: usize, criteria: &Criteria) -> FilterChain {
    let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    FilterChain {
        name: name.to_string(),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: criteria.port.and_then(|port| number(port.into())),
            prefix_ranges: cidrs(&criteria.prefixes),
            server_names: strings(&criteria.names),
            transport_protocol: criteria.transport.to_owned(),
            application_protocols: strings(&criteria.protocols),
            source_type: criteria.source_type,
            source_prefix_ranges: cidrs(&criteria.sources),
            source_ports: criteria.source_ports.iter().map(|port| (*port).into()).collect(),
            ..FilterChainMatch::default()
        }),
        ..chain(vec![tcp_proxy("a")])
    }
}

/// Chains by the keys of one level, then those of the key that is looked for first and is there.
fn level(chains: Vec<usize>, keys: impl Fn(usize) -> Vec<String>, wanted: &[String]) -> Vec<usize> {
    let mut map: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for chain in chains {
        for key in keys(chain) {
            map.entry(key).or_default().push(chain);
        }
    }
    wanted.iter().find_map(|key| map.get(key)).cloned().unwrap_or_default()
}

fn or_any(keys: Vec<String>) -> Vec<String> {
    if keys.is_empty() { vec![String::new()] } else { keys }
}

/// Every prefix that an address could be found under, the longest first; length 0 is written as no prefix.
fn prefixes_of(address: IpAddr) -> Vec<String> {
    (1..=32)
        .rev()
        .map(|len| IpNet::new(address, len).unwrap().trunc().to_string())
        .chain([String::new()])
        .collect()
}

fn naive(all: &[Criteria], facts: &ConnectionFacts<'_>) -> Option<usize> {
    let text = |values: Vec<String>| values;
    let nets = |nets: &[IpNet]| or_any(nets.iter().map(ToString::to_string).collect());
    let (destination, source) = (facts.destination, facts.source);
    let mut left: Vec<usize> = (0..all.len()).collect();
    left = level(
        left,
        |i| vec![all[i].port.map(|port| port.to_string()).unwrap_or_default()],
        &text(vec![destination.port().to_string(), String::new()]),
    );
    left = level(left, |i| nets(&all[i].prefixes), &prefixes_of(destination.ip()));
    let name = facts.server_name.unwrap_or_default();
    let mut names = vec![name.to_owned()];
    names.extend(name.match_indices('.').map(|(at, _)| format!("*{}", &name[at..])));
    names.push(String::new());
    left = level(left, |i| or_any(all[i].names.iter().map(ToString::to_string).collect()), &names);
    let transport = if facts.transport == TransportProtocol::Tls { "tls" } else { "raw_buffer" };
    left =
        level(left, |i| vec![all[i].transport.to_owned()], &text(vec![transport.to_owned(), String::new()]));
    let mut protocols: Vec<_> = facts.application_protocols.iter().map(ToString::to_string).collect();
    protocols.push(String::new());
    left = level(left, |i| or_any(all[i].protocols.iter().map(ToString::to_string).collect()), &protocols);
    let local = source.ip().is_loopback() || source.ip() == destination.ip();
    let source_type = if local { "1" } else { "2" };
    left = level(
        left,
        |i| vec![all[i].source_type.to_string()],
        &text(vec![source_type.to_owned(), "0".to_owned()]),
    );
    left = level(left, |i| nets(&all[i].sources), &prefixes_of(source.ip()));
    left = level(
        left,
        |i| or_any(all[i].source_ports.iter().map(ToString::to_string).collect()),
        &text(vec![source.port().to_string(), String::new()]),
    );
    left.first().copied()
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(vec!["10.0.0.1", "10.0.0.2", "10.1.0.1", "127.0.0.1", "192.0.2.1"])
        .prop_map(|text| IpAddr::V4(text.parse::<Ipv4Addr>().unwrap()))
}

proptest! {
    #[test]
    fn the_chain_is_the_one_that_nested_maps_find(
        all in vec(criteria(), 1..8),
        destination in address(),
        port in select(vec![80_u16, 81, 82]),
        source in address(),
        source_port in select(vec![1000_u16, 1001, 1002]),
        tls: bool,
        offered in vec(select(vec!["h2", "http/1.1", "x"]), 0..3),
        server_name in prop::option::of(select(vec!["a.b.c", "x.b.c", "x.c", "c"])),
    ) {
        // The same criteria twice are refused.
        let mut distinct: Vec<Criteria> = Vec::new();
        for one in all {
            let same = |other: &Criteria| proto(0, other).filter_chain_match == proto(0, &one).filter_chain_match;
            if !distinct.iter().any(same) {
                distinct.push(one);
            }
        }
        let chains = distinct.iter().enumerate().map(|(i, one)| proto(i, one)).collect();
        let listener = accepted(listener("l", "0.0.0.0:1", chains));
        let facts = ConnectionFacts {
            destination: SocketAddr::new(destination, port),
            source: SocketAddr::new(source, source_port),
            transport: if tls { TransportProtocol::Tls } else { TransportProtocol::RawBuffer },
            application_protocols: &offered,
            server_name,
        };
        let found = select_chain(&listener, &facts).map(|chain| chain.name.parse::<usize>().unwrap());
        prop_assert_eq!(found, naive(&distinct, &facts));
    }
}
