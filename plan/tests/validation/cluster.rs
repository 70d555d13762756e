//! `cluster.v3.Cluster`

use std::sync::Arc;
use std::time::Duration;

use orlop_plan::resource::cluster::{
    CircuitBreakers, ClusterDiscovery, IstioService, LbPolicy, SlowStart, UpstreamProtocol,
    UpstreamTransportSocket,
};
use orlop_plan::resource::tls::UpstreamTlsContext;
use orlop_plan::snapshot::ResourceType;
use serde_json::{Value, json};

use crate::support::{any, cluster, cluster_refusals, deliver};

const HTTP: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn http(options: Value) -> Value {
    let mut options = options;
    options["@type"] = format!("type.googleapis.com/{HTTP}").into();
    json!({ "typed_extension_protocol_options": { HTTP: options } })
}

fn tls() -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "backend",
        },
    })
}

fn raw_buffer() -> Value {
    json!({
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" },
    })
}

#[test]
fn fields_that_are_left_out_have_the_defaults_of_envoy() {
    let cluster = cluster(&json!({}));

    assert!(
        matches!(&cluster.discovery, ClusterDiscovery::Eds { service_name } if &**service_name == "backend")
    );
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.lb_policy, LbPolicy::RoundRobin);
    assert_eq!(cluster.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.transport_socket, UpstreamTransportSocket::RawBuffer);
    assert_eq!(cluster.idle_timeout, Some(Duration::from_hours(1)));
    assert_eq!(cluster.healthy_panic_threshold, 50);
    assert_eq!(
        cluster.circuit_breakers,
        CircuitBreakers {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3
        }
    );
    assert_eq!(cluster.outlier_detection, None);
}

#[test]
fn every_offending_field_is_named() {
    let refusals = cluster_refusals(&json!({
        "health_checks": [{ "timeout": "1s", "interval": "1s", "tcp_health_check": {} }],
        "lb_subset_config": { "locality_weight_aware": true },
        "upstream_bind_config": { "source_address": { "address": "localhost", "port_value": 0 } },
    }));

    assert_eq!(refusals.len(), 3, "{refusals:#?}");
    for field in ["health_checks: ", "lb_subset_config: ", "upstream_bind_config.source_address.address: "] {
        assert!(refusals.iter().any(|refusal| refusal.starts_with(field)), "{field} is not in {refusals:#?}");
    }
}

#[test]
fn a_static_cluster_may_have_no_endpoint() {
    let cluster = cluster(&json!({ "type": "STATIC" }));

    assert!(
        matches!(&cluster.discovery, ClusterDiscovery::Static(assignment) if assignment.localities.is_empty())
    );
}

#[test]
fn a_cluster_of_a_custom_type_is_refused_by_name() {
    let fields = json!({ "name": "dns", "cluster_type": { "name": "envoy.clusters.dynamic_forward_proxy" } });
    let (_, outcome) =
        deliver(ResourceType::Cluster, [("dns".to_owned(), any(ResourceType::Cluster, &fields))]);

    let refusal = outcome.errors[0].to_string();
    assert!(
        refusal.contains("cluster_type") && refusal.contains("envoy.clusters.dynamic_forward_proxy"),
        "{refusal}"
    );
}

#[test]
fn only_an_original_destination_provides_its_own_load_balancing() {
    assert_eq!(cluster_refusals(&json!({ "lb_policy": "CLUSTER_PROVIDED" })).len(), 1);
    assert_eq!(cluster_refusals(&json!({ "type": "ORIGINAL_DST", "lb_policy": "RANDOM" })).len(), 1);

    let cluster = cluster(&json!({ "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED" }));
    assert_eq!(cluster.lb_policy, LbPolicy::ClusterProvided);
}

#[test]
fn least_request_takes_two_samples_unless_told() {
    let two = cluster(&json!({ "lb_policy": "LEAST_REQUEST" }));
    let five =
        cluster(&json!({ "lb_policy": "LEAST_REQUEST", "least_request_lb_config": { "choice_count": 5 } }));

    assert_eq!(two.lb_policy, LbPolicy::LeastRequest { choice_count: 2 });
    assert_eq!(five.lb_policy, LbPolicy::LeastRequest { choice_count: 5 });
}

#[test]
fn slow_start_is_of_envoys_shape_unless_told() {
    let plain = cluster(&json!({
        "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": { "slow_start_config": { "slow_start_window": "30s" } },
    }));
    let told = cluster(&json!({
        "lb_policy": "ROUND_ROBIN",
        "round_robin_lb_config": { "slow_start_config": {
            "slow_start_window": "60s", "aggression": { "default_value": 2 }, "min_weight_percent": { "value": 25 },
        } },
    }));

    let seconds = Duration::from_secs;
    assert_eq!(plain.slow_start, Some(SlowStart { window: seconds(30), aggression: 1.0, min_weight: 0.1 }));
    let told = told.slow_start.unwrap();
    assert_eq!(told, SlowStart { window: seconds(60), aggression: 2.0, min_weight: 0.25 });
    let percent = |age| (told.factor(seconds(age)) * 100.0).round().to_string();
    assert_eq!([0, 15, 60].map(percent), ["25", "50", "100"]);
}

#[test]
fn slow_start_without_a_time_or_with_a_share_above_all_of_it_is_none() {
    let window = |config| json!({ "round_robin_lb_config": { "slow_start_config": config } });

    assert_eq!(cluster(&window(json!({ "slow_start_window": "0s" }))).slow_start, None);
    let refusals = cluster_refusals(&window(json!({
        "slow_start_window": "1s", "min_weight_percent": { "value": 101 },
    })));
    assert_eq!(refusals, ["round_robin_lb_config.slow_start_config.min_weight_percent: is not a percentage"]);
}

#[test]
fn rings_and_tables_have_the_sizes_of_envoy_unless_told() {
    let policy = |fields| cluster(&fields).lb_policy;
    let largest = 8 * 1024 * 1024;

    let ring = json!({ "lb_policy": "RING_HASH" });
    assert_eq!(policy(ring), LbPolicy::RingHash { minimum: 1024, maximum: largest });
    let small = json!({ "lb_policy": "RING_HASH", "ring_hash_lb_config": { "minimum_ring_size": 10 } });
    assert_eq!(policy(small), LbPolicy::RingHash { minimum: 10, maximum: largest });
    assert_eq!(policy(json!({ "lb_policy": "MAGLEV" })), LbPolicy::Maglev { table_size: 65537 });
    let small = json!({ "lb_policy": "MAGLEV", "maglev_lb_config": { "table_size": 11 } });
    assert_eq!(policy(small), LbPolicy::Maglev { table_size: 11 });
}

#[test]
fn rings_and_tables_that_envoy_would_refuse_are_refused() {
    let ring = |config| cluster_refusals(&json!({ "lb_policy": "RING_HASH", "ring_hash_lb_config": config }));
    let maglev = |size| {
        cluster_refusals(&json!({ "lb_policy": "MAGLEV", "maglev_lb_config": { "table_size": size } }))
    };

    assert_eq!(
        ring(json!({ "minimum_ring_size": 100, "maximum_ring_size": 10 })),
        ["ring_hash_lb_config.minimum_ring_size: is above the largest size, 10"]
    );
    assert_eq!(
        ring(json!({ "maximum_ring_size": 100_000_000 })),
        ["ring_hash_lb_config.maximum_ring_size: is above 8388608"]
    );
    assert_eq!(
        ring(json!({ "hash_function": "MURMUR_HASH_2" })),
        ["ring_hash_lb_config.hash_function: is not supported but for XX_HASH"]
    );
    assert_eq!(maglev(10), ["maglev_lb_config.table_size: is 10, which is no prime"]);
    assert_eq!(maglev(100_000_007), ["maglev_lb_config.table_size: is above 5000011"]);
}

/// What `tls` says.
fn with_sni() -> Arc<UpstreamTlsContext> {
    Arc::new(UpstreamTlsContext { sni: "backend".to_owned(), ..UpstreamTlsContext::default() })
}

#[test]
fn tls_for_endpoints_with_a_metadata_value_and_plaintext_for_the_rest() {
    let cluster = cluster(&json!({
        "transport_socket_matches": [
            { "name": "tlsMode-istio", "match": { "tlsMode": "istio" }, "transport_socket": tls() },
            { "name": "tlsMode-disabled", "match": {}, "transport_socket": raw_buffer() },
        ],
    }));

    let with = UpstreamTransportSocket::TlsForEndpointsWith {
        key: "tlsMode".to_owned(),
        value: "istio".to_owned(),
        context: with_sni(),
        others: None,
    };
    assert_eq!(cluster.transport_socket, with);
}

#[test]
fn tls_for_all_endpoints() {
    assert_eq!(
        cluster(&json!({ "transport_socket": tls() })).transport_socket,
        UpstreamTransportSocket::Tls(with_sni())
    );
}

#[test]
fn another_transport_socket_is_refused_by_name_and_type() {
    let refusals = cluster_refusals(&json!({
        "transport_socket": {
            "name": "proxy-protocol",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            },
        },
    }));

    assert_eq!(refusals.len(), 1);
    for part in ["transport_socket", "\"proxy-protocol\"", "ProxyProtocolUpstreamTransport"] {
        assert!(refusals[0].contains(part), "{refusals:?}");
    }
}

#[test]
fn the_protocol_towards_endpoints() {
    let http1 = cluster(&http(json!({ "explicit_http_config": { "http_protocol_options": {} } })));
    let http2 = cluster(&http(json!({ "explicit_http_config": { "http2_protocol_options": {} } })));
    let downstream = cluster(&http(
        json!({ "use_downstream_protocol_config": { "http_protocol_options": {}, "http2_protocol_options": {} } }),
    ));

    assert_eq!(http1.protocol, UpstreamProtocol::Http1);
    assert_eq!(http2.protocol, UpstreamProtocol::Http2);
    assert_eq!(downstream.protocol, UpstreamProtocol::Downstream);
}

#[test]
fn limits_of_connections_to_endpoints() {
    let cluster = cluster(&http(json!({
        "explicit_http_config": { "http_protocol_options": {} },
        "common_http_protocol_options": { "idle_timeout": "0s", "max_requests_per_connection": 50 },
    })));

    assert_eq!(cluster.idle_timeout, None);
    assert_eq!(cluster.max_requests_per_connection, Some(50));
}

#[test]
fn protocol_options_that_are_not_honoured_are_refused_by_their_whole_path() {
    let refusals = cluster_refusals(&http(json!({
        "explicit_http_config": { "http_protocol_options": {} },
        "common_http_protocol_options": { "max_connection_duration": "300s" },
    })));

    let path = format!(
        "typed_extension_protocol_options[\"{HTTP}\"].common_http_protocol_options.max_connection_duration: "
    );
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].starts_with(&path), "{refusals:?}");
}

#[test]
fn the_exchange_of_peer_metadata_is_the_only_filter_of_upstream_connections() {
    let filter = |type_url: &str| {
        json!({
            "filters": [{
                "name": "filter",
                "typed_config": {
                    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                    "type_url": format!("type.googleapis.com/{type_url}"),
                    "value": { "protocol": "istio-peer-exchange", "enable_discovery": true },
                },
            }],
        })
    };

    cluster(&filter("envoy.tcp.metadataexchange.config.MetadataExchange"));
    let refusals = cluster_refusals(&filter("envoy.extensions.filters.network.wasm.v3.Wasm"));
    assert!(refusals[0].contains("envoy.extensions.filters.network.wasm.v3.Wasm"), "{refusals:?}");
}

#[test]
fn the_service_of_a_cluster_is_the_first_of_its_metadata() {
    let cluster = cluster(&json!({
        "metadata": { "filter_metadata": {
            "istio": { "services": [{ "host": "backend.default.svc.cluster.local", "name": "backend", "namespace": "default" }] },
            "empty": {},
        } },
    }));

    let service = IstioService {
        host: "backend.default.svc.cluster.local".to_owned(),
        name: "backend".to_owned(),
        namespace: "default".to_owned(),
    };
    assert_eq!(cluster.service.as_deref(), Some(&service));
}
