//! Resources that are damaged, or that say impossible things, are refused by name and nothing panics.

use envoy_types::pb::google::protobuf::Any;
use orlop_plan::snapshot::ResourceType;
use serde_json::json;

use crate::support::{
    accepted, any, cluster_refusals, deliver, endpoint_refusals, load_assignment_refusals, refused, route,
    route_refusals,
};

#[test]
fn every_truncation_is_refused_or_is_a_smaller_resource() {
    let whole = any(
        ResourceType::Cluster,
        &json!({ "name": "c", "type": "EDS", "connect_timeout": "1s", "lb_policy": "RANDOM" }),
    );
    for length in 0..whole.value.len() {
        let body = Any { value: whole.value[..length].to_vec(), ..whole.clone() };
        let (snapshot, outcome) = deliver(ResourceType::Cluster, [("c".to_owned(), body)]);
        assert_eq!(snapshot.clusters().len() + outcome.errors.len(), 1, "{length} bytes");
    }
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let body =
        Any { type_url: ResourceType::Cluster.type_url().to_owned(), value: b"\x0a\x02\xff\xfe".to_vec() };
    let (_, outcome) = deliver(ResourceType::Cluster, [("c".to_owned(), body)]);
    assert!(outcome.errors[0].to_string().contains("UTF-8"), "{:?}", outcome.errors);
}

#[test]
fn a_negative_duration_is_refused_where_it_stands() {
    assert_eq!(cluster_refusals(&json!({ "connect_timeout": "-1s" })), ["connect_timeout: is negative"]);
}

#[test]
fn a_percentage_that_is_no_number_is_refused() {
    for value in ["NaN", "Infinity", "-1", "101"] {
        let value = value.parse::<i32>().map_or_else(|_| json!(value), |number| json!(number));
        let refusals = cluster_refusals(
            &json!({ "common_lb_config": { "healthy_panic_threshold": { "value": value } } }),
        );
        assert_eq!(refusals.len(), 1, "{value}");
        assert!(refusals[0].starts_with("common_lb_config.healthy_panic_threshold: "), "{refusals:?}");
    }
}

#[test]
fn weights_whose_sum_overflows_are_refused() {
    let endpoint = json!({
        "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": 1 } } },
        "load_balancing_weight": u32::MAX,
    });
    let refusals = load_assignment_refusals(&json!({
        "cluster_name": "backend", "endpoints": [{ "lb_endpoints": [endpoint.clone(), endpoint] }],
    }));
    assert_eq!(refusals, ["endpoints[0].lb_endpoints: the sum of the weights does not fit into 32 bits"]);
}

#[test]
fn a_port_above_65535_is_refused() {
    let refusals = endpoint_refusals(&json!({
        "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": 65536 } } },
    }));
    assert!(refusals[0].contains("65536 is not a port"), "{refusals:?}");
}

#[test]
fn regular_expressions_that_explode_are_refused_with_the_limit() {
    let patterns = [
        "((a{1,100}){1,100}){1,100}".to_owned(),
        "(a{0,1000}){0,1000}".to_owned(),
        "(x+x+)+y{1,1000}(.{1,1000}){1,1000}".to_owned(),
        r"[\pL\pN]{1,1000}".to_owned(),
    ];
    for regex in patterns {
        let refusals = route_refusals(&json!({ "match": { "safe_regex": { "regex": regex } } }));
        assert_eq!(refusals.len(), 1, "{regex}");
        assert!(refusals[0].starts_with("match.safe_regex.regex: "), "{refusals:?}");
        assert!(refusals[0].contains("exceeds size limit of 1048576 bytes"), "{refusals:?}");
    }
}

#[test]
fn a_regular_expression_of_excessive_length_is_refused_without_being_repeated() {
    let regex = "a".repeat(100_000);
    let refusals = route_refusals(&json!({ "match": { "safe_regex": { "regex": regex } } }));
    assert_eq!(refusals, ["match.safe_regex.regex: is 100000 bytes long; the limit is 65536"]);
}

#[test]
fn a_regular_expression_that_takes_other_engines_for_ever_is_none_here() {
    let regex = "(x+x+)+y";
    assert_eq!(route(&json!({ "match": { "safe_regex": { "regex": regex } } })).route_match.headers.len(), 0);
}

#[test]
fn a_prefix_longer_than_the_address_is_refused() {
    let listener = |prefix: &str, length: u32| {
        let chain = json!({
            "filter_chain_match": { "prefix_ranges": [{ "address_prefix": prefix, "prefix_len": length }] },
            "filters": [{ "name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "cluster": "c",
            } }],
        });
        let address = json!({ "socket_address": { "address": "10.0.0.8", "port_value": 80 } });
        json!({ "name": "l", "address": address, "bind_to_port": false, "filter_chains": [chain] })
    };
    let at = "filter_chains[0].filter_chain_match.prefix_ranges[0]: ";
    for (prefix, length) in [("10.0.0.0", 33), ("10.0.0.0", 256 + 8), ("fd00::", 129), ("10.0.0", 8)] {
        let refusals = refused(ResourceType::Listener, &listener(prefix, length));
        assert_eq!(refusals, [format!("{at}{prefix}/{length} is not an address range")]);
    }
    for (prefix, length) in [("10.0.0.0", 0), ("10.0.0.0", 32), ("fd00::", 128)] {
        accepted(ResourceType::Listener, &listener(prefix, length));
    }
}
