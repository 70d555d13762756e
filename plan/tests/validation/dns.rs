//! Clusters whose endpoints have names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use orlop_plan::resource::cluster::ClusterDiscovery;
use orlop_plan::resource::dns_discovery::{DnsDiscovery, DnsLookupFamily};
use serde_json::{Value, json};

use crate::support::{cluster, cluster_refusals};

fn endpoint(name: &str, port: u16) -> Value {
    json!({ "endpoint": { "address": { "socket_address": { "address": name, "port_value": port } } } })
}

/// A cluster of that type with these endpoints.
fn of_type(kind: &str, endpoints: &[Value], more: &Value) -> Value {
    let mut fields = json!({
        "type": kind,
        "load_assignment": { "cluster_name": "backend", "endpoints": [{ "lb_endpoints": endpoints }] },
    });
    for (key, value) in more.as_object().expect("fields") {
        fields[key] = value.clone();
    }
    fields
}

fn discovery(fields: &Value) -> Arc<DnsDiscovery> {
    match &cluster(fields).discovery {
        ClusterDiscovery::Dns(discovery) => Arc::clone(discovery),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_asked_for_as_envoy_asks_unless_told() {
    let plain = discovery(&of_type("STRICT_DNS", &[endpoint("a.example", 80)], &json!({})));
    assert!(!plain.logical && !plain.respect_ttl);
    assert_eq!((plain.family, plain.refresh_rate), (DnsLookupFamily::Auto, Duration::from_secs(5)));
    assert_eq!(plain.failure_refresh_rate, (Duration::from_secs(5), Duration::from_secs(5)));

    let told = discovery(&of_type(
        "LOGICAL_DNS",
        &[endpoint("a.example", 80)],
        &json!({
            "respect_dns_ttl": true,
            "dns_lookup_family": "V4_ONLY",
            "dns_refresh_rate": "60s",
            "dns_jitter": "0.1s",
            "dns_failure_refresh_rate": { "base_interval": "2s" },
        }),
    ));
    assert!(told.logical && told.respect_ttl);
    assert_eq!((told.family, told.refresh_rate), (DnsLookupFamily::V4Only, Duration::from_mins(1)));
    assert_eq!(told.failure_refresh_rate, (Duration::from_secs(2), Duration::from_secs(20)));
}

#[test]
fn each_address_of_a_name_is_an_endpoint_that_bears_it() {
    let endpoints = [endpoint("a.example", 80), endpoint("b.example", 81), endpoint("gone.example", 82)];
    let names = discovery(&of_type("STRICT_DNS", &endpoints, &json!({})));
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let addresses = BTreeMap::from([
        ("a.example".to_owned(), vec![ip("192.0.2.1"), ip("192.0.2.2")]),
        ("b.example".to_owned(), vec![ip("2001:db8::1")]),
    ]);

    let resolved = names.resolved(&addresses);
    let endpoints = resolved.localities.iter().flat_map(|locality| &locality.endpoints);
    let found: Vec<_> =
        endpoints.map(|endpoint| format!("{} {}", endpoint.about.hostname, endpoint.address)).collect();
    assert_eq!(found, ["a.example 192.0.2.1:80", "a.example 192.0.2.2:80", "b.example [2001:db8::1]:81"]);
}

#[test]
fn what_envoy_would_refuse_is_refused() {
    let refusals = |fields: &Value| cluster_refusals(fields);
    let two = [endpoint("a.example", 80), endpoint("b.example", 80)];

    assert_eq!(
        refusals(&of_type("LOGICAL_DNS", &two, &json!({}))),
        ["load_assignment.endpoints: has not exactly one endpoint, as LOGICAL_DNS needs"]
    );
    assert_eq!(
        refusals(&of_type("STRICT_DNS", &[endpoint("", 80)], &json!({}))),
        ["load_assignment.endpoints: has an endpoint without an address"]
    );
    assert_eq!(
        refusals(&of_type("STRICT_DNS", &[endpoint("a.example", 80)], &json!({ "dns_refresh_rate": "0s" }))),
        ["dns_refresh_rate: must be above 0"]
    );
}

#[test]
fn other_resolvers_are_refused_by_name() {
    let resolver =
        json!({ "dns_resolvers": [{ "socket_address": { "address": "192.0.2.53", "port_value": 53 } }] });
    assert_eq!(
        cluster_refusals(&of_type("STRICT_DNS", &[endpoint("a.example", 80)], &resolver)),
        ["dns_resolvers: is not supported"]
    );
}
