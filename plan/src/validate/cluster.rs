//! `cluster.v3.Cluster`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, ClusterProtocolSelection, DiscoveryType, EdsClusterConfig, LbConfig,
    OriginalDstLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers as ProtoBreakers, Cluster as Proto, Filter, UpstreamConnectionOptions,
};
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, ExtraSourceAddress, Metadata, SocketAddress, TcpKeepalive as ProtoKeepalive,
};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::google::protobuf::{ListValue, Value, value::Kind};

use super::at::{At, no_effect, refuse_set};
use super::decode::{Extension, string_of};
use super::dns::{DnsSettings, dns_discovery};
use super::endpoint::load_assignment;
use super::load_balancing::{common_lb, lb_policy_of};
use super::metadata::{ISTIO_METADATA, unread_metadata};
use super::network_filter::is_metadata_exchange;
use super::outlier_detection::outlier_detection as outlier_detection_of;
use super::scalar::{duration, expect_own_source, port, socket_address};
use super::telemetry::is_true;
use super::transport_socket;
use super::upstream_http::{Legacy, upstream_http};
use crate::resource::cluster::{
    CircuitBreakers, Cluster, ClusterDiscovery, IstioService, LbPolicy, TcpKeepalive, ToldOfPeers,
    UpstreamProtocol,
};

/// Envoy's connect timeout.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What sidecars connect from, so that their own connections are not captured again.
const OWN_SOURCES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)), IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6))];

#[expect(clippy::too_many_lines, reason = "one message, taken apart in one place")]
pub(super) fn cluster(value: Proto, at: &At<'_>) -> Option<Cluster> {
    let Proto {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = value;
    no_effect!(at; "feeds statistics alone"; alt_stat_name, stats_matcher, track_timeout_budgets, track_cluster_stats);
    no_effect!(at; "is a hint for memory; the proxy bounds its buffers itself"; per_connection_buffer_limit_bytes);
    no_effect!(at; "does not matter: what has not come is waited for in any case"; wait_for_warm_on_init);
    no_effect!(at; "is of original destinations that are kept while unused; none are"; cleanup_interval);
    no_effect!(at; "is of active health checks, which are refused"; ignore_health_on_host_removal);
    refuse_set!(
        at; dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config, transport_socket_matcher, per_connection_buffer_high_watermark_timeout, health_checks,
        lb_subset_config, close_connections_on_host_health_failure, load_balancing_policy, lrs_server,
        lrs_report_endpoint_metrics, upstream_config, preconnect_policy, connection_pool_per_downstream_connection,
        queuing_policies
    );
    let dns = DnsSettings {
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        typed_dns_resolver_config,
    };
    let connect_timeout = match connect_timeout {
        None => Some(DEFAULT_CONNECT_TIMEOUT),
        Some(value) => duration(value, &at.field("connect_timeout")),
    };
    let discovery = discovery(
        &name,
        cluster_discovery_type,
        eds_cluster_config,
        load_assignment,
        dns,
        lb_config.as_ref(),
        at,
    );
    let lb_policy = lb_policy_of(lb_policy, lb_config, at);
    if let (Some(discovery), Some((lb_policy, _))) = (&discovery, lb_policy)
        && matches!(discovery, ClusterDiscovery::OriginalDst { .. })
            != (lb_policy == LbPolicy::ClusterProvided)
    {
        return at.field("lb_policy").refuse("ORIGINAL_DST and CLUSTER_PROVIDED only go together");
    }
    let protocol_options = upstream_http(
        typed_extension_protocol_options,
        Legacy {
            common: common_http_protocol_options,
            http1: http_protocol_options,
            http2: http2_protocol_options,
            upstream: upstream_http_protocol_options,
        },
        at,
    );
    let downstream_protocol =
        protocol_selection == i32::from(ClusterProtocolSelection::UseDownstreamProtocol);
    let transport_socket = transport_socket::upstream(transport_socket, transport_socket_matches, at);
    let outlier_detection = match outlier_detection {
        None => Some(None),
        Some(value) => outlier_detection_of(value, &at.field("outlier_detection")).map(Some),
    };
    let circuit_breakers = breakers(circuit_breakers.unwrap_or_default(), &at.field("circuit_breakers"));
    let lb = common_lb(common_lb_config.unwrap_or_default(), &at.field("common_lb_config"));
    let tcp_keepalive = connection_options(
        upstream_connection_options.unwrap_or_default(),
        &at.field("upstream_connection_options"),
    );
    let bound = bind(upstream_bind_config, &at.field("upstream_bind_config"));
    let upstream_filters = at.field("filters").each(filters, upstream_filter);
    upstream_filters?;
    bound?;
    let protocol_options = protocol_options?;
    let (healthy_panic_threshold, locality_weighted) = lb?;
    let (lb_policy, slow_start) = lb_policy?;
    Some(Cluster {
        name: name.into(),
        discovery: discovery?,
        connect_timeout: connect_timeout?,
        lb_policy,
        slow_start,
        protocol: if downstream_protocol { UpstreamProtocol::Downstream } else { protocol_options.protocol },
        transport_socket: transport_socket?,
        circuit_breakers,
        outlier_detection: outlier_detection?,
        idle_timeout: protocol_options.idle_timeout,
        max_requests_per_connection: max_requests_per_connection
            .map(|limit| limit.value)
            .or(protocol_options.max_requests_per_connection)
            .filter(|limit| *limit > 0),
        tcp_keepalive,
        healthy_panic_threshold,
        locality_weighted,
        server_name: protocol_options.server_name,
        alpn_override: !metadata.as_ref().is_some_and(keeps_alpn),
        told_of_peers: metadata.as_ref().map(told_of_peers).unwrap_or_default(),
        service: metadata.and_then(|metadata| istio_service(&metadata, &at.field("metadata"))).map(Arc::new),
    })
}

fn discovery(
    name: &str,
    kind: Option<ClusterDiscoveryType>,
    eds: Option<EdsClusterConfig>,
    endpoints: Option<ClusterLoadAssignment>,
    dns: DnsSettings,
    lb_config: Option<&LbConfig>,
    at: &At<'_>,
) -> Option<ClusterDiscovery> {
    let kind = match kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(kind).ok().or_else(|| at.field("type").refuse("is unknown"))?
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return at.field("cluster_type").refuse(format!("{:?} is not supported", custom.name));
        }
    };
    if kind != DiscoveryType::Eds && eds.is_some() {
        at.field("eds_cluster_config").no_effect("is of clusters of the type EDS");
    }
    let has_endpoints =
        matches!(kind, DiscoveryType::Static | DiscoveryType::StrictDns | DiscoveryType::LogicalDns);
    if !has_endpoints && endpoints.is_some() {
        at.field("load_assignment").no_effect("is of clusters of the types STATIC and DNS");
    }
    if !matches!(kind, DiscoveryType::StrictDns | DiscoveryType::LogicalDns) {
        dns.clone().have_no_effect(at);
    }
    let mut endpoints = endpoints.unwrap_or_default();
    if endpoints.cluster_name.is_empty() {
        name.clone_into(&mut endpoints.cluster_name);
    }
    if kind != DiscoveryType::OriginalDst && matches!(lb_config, Some(LbConfig::OriginalDstLbConfig(_))) {
        at.field("original_dst_lb_config").no_effect("is of clusters of the type ORIGINAL_DST");
    }
    match kind {
        DiscoveryType::Eds => {
            let EdsClusterConfig { eds_config, service_name } = eds.unwrap_or_default();
            expect_own_source(eds_config, &at.field("eds_cluster_config").field("eds_config"));
            let service_name = if service_name.is_empty() { name.to_owned() } else { service_name };
            Some(ClusterDiscovery::Eds { service_name: service_name.into() })
        }
        DiscoveryType::Static => load_assignment(endpoints, &at.field("load_assignment"))
            .map(|assignment| ClusterDiscovery::Static(assignment.into())),
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            let logical = kind == DiscoveryType::LogicalDns;
            dns_discovery(logical, dns, endpoints, at).map(|names| ClusterDiscovery::Dns(names.into()))
        }
        DiscoveryType::OriginalDst => {
            let at = at.field("original_dst_lb_config");
            let OriginalDstLbConfig {
                use_http_header,
                http_header_name,
                upstream_port_override,
                metadata_key,
            } = match lb_config {
                Some(LbConfig::OriginalDstLbConfig(config)) => config.clone(),
                _ => OriginalDstLbConfig::default(),
            };
            refuse_set!(at; http_header_name, metadata_key);
            let port_override = match upstream_port_override {
                None => None,
                Some(value) => Some(port(value.value, &at.field("upstream_port_override"))?),
            };
            Some(ClusterDiscovery::OriginalDst { use_http_header, port_override })
        }
    }
}

/// The thresholds of the default priority. Routes of high priority are refused, so that its own are not read.
fn breakers(value: ProtoBreakers, at: &At<'_>) -> CircuitBreakers {
    let ProtoBreakers { thresholds, per_host_thresholds } = value;
    refuse_set!(at; per_host_thresholds);
    for (i, _) in thresholds.iter().enumerate().filter(|(_, threshold)| threshold.priority != 0) {
        let at = at.field("thresholds").index(i).field("priority");
        at.no_effect("is of routes of high priority, which are refused");
    }
    let default_priority = thresholds.into_iter().enumerate().find(|(_, threshold)| threshold.priority == 0);
    let (index, threshold) = default_priority.unwrap_or_default();
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = threshold;
    let at = at.field("thresholds").index(index);
    no_effect!(at; "feeds statistics alone"; track_remaining);
    refuse_set!(at; retry_budget, max_connection_pools);
    CircuitBreakers {
        max_connections: max_connections.map_or(1024, |limit| limit.value),
        max_pending_requests: max_pending_requests.map_or(1024, |limit| limit.value),
        max_requests: max_requests.map_or(1024, |limit| limit.value),
        max_retries: max_retries.map_or(3, |limit| limit.value),
    }
}

fn connection_options(value: UpstreamConnectionOptions, at: &At<'_>) -> Option<TcpKeepalive> {
    let UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    } = value;
    refuse_set!(at; set_local_interface_name_on_upstream_connections, happy_eyeballs_config);
    tcp_keepalive.map(|ProtoKeepalive { keepalive_probes, keepalive_time, keepalive_interval }| {
        let seconds = |value: u32| Duration::from_secs(u64::from(value));
        TcpKeepalive {
            probes: keepalive_probes.map(|probes| probes.value),
            time: keepalive_time.map(|time| seconds(time.value)),
            interval: keepalive_interval.map(|interval| seconds(interval.value)),
        }
    })
}

/// istiod writes its own addresses into every inbound cluster; any other is a wish.
fn bind(value: Option<BindConfig>, at: &At<'_>) -> Option<()> {
    let Some(value) = value else { return Some(()) };
    let BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = value;
    refuse_set!(
        at; freebind, socket_options, additional_source_addresses, local_address_selector, validate_network_namespaces
    );
    let extra = at.field("extra_source_addresses").each(extra_source_addresses, extra_source);
    source_address.map_or(Some(()), |source| source_of(source, &at.field("source_address")))?;
    extra.map(drop)
}

/// That of the other family.
fn extra_source(value: ExtraSourceAddress, at: &At<'_>) -> Option<()> {
    let ExtraSourceAddress { address, socket_options } = value;
    refuse_set!(at; socket_options);
    let at = at.field("address");
    at.required(address).and_then(|address| source_of(address, &at))
}

fn source_of(value: SocketAddress, at: &At<'_>) -> Option<()> {
    let address = socket_address(value, at)?;
    if address.port() != 0 {
        return at.field("port_value").refuse("is not supported");
    }
    if OWN_SOURCES.contains(&address.ip()) {
        at.no_effect("tells Envoy's own connections from a pod's, which takes no mark here");
    } else {
        at.not_yet("connections come from an address that the kernel chooses");
    }
    Some(())
}

/// Network filters of upstream connections: only the exchange of peer metadata, which happens on mutual TLS alone.
fn upstream_filter(value: Filter, at: &At<'_>) -> Option<()> {
    let Filter { name, typed_config, config_discovery } = value;
    no_effect!(at; "is named in errors alone"; name);
    refuse_set!(at; config_discovery);
    let at_config = at.field("typed_config");
    let extension = Extension::open(at_config.required(typed_config)?, &at_config)?;
    if is_metadata_exchange(&extension, &at_config) {
        return Some(());
    }
    extension.refuse("filter", &name, &at_config)
}

/// Whether Istio's metadata keeps the filter `istio.alpn` from replacing the ALPN.
fn keeps_alpn(metadata: &Metadata) -> bool {
    let istio = metadata.filter_metadata.get(ISTIO_METADATA);
    istio.and_then(|istio| string_of(istio, "alpn_override")).is_some_and(|value| value == "false")
}

fn told_of_peers(metadata: &Metadata) -> ToldOfPeers {
    match metadata.filter_metadata.get(ISTIO_METADATA) {
        Some(istio) if is_true(istio, "disable_mx") => ToldOfPeers::Never,
        Some(istio) if is_true(istio, "external") => ToldOfPeers::External,
        _ => ToldOfPeers::Always,
    }
}

/// The first of the services in istiod's metadata.
fn istio_service(metadata: &Metadata, at: &At<'_>) -> Option<IstioService> {
    unread_metadata(metadata, &[ISTIO_METADATA], at);
    let istio = metadata.filter_metadata.get(ISTIO_METADATA)?;
    let Some(Value { kind: Some(Kind::ListValue(ListValue { values })) }) = istio.fields.get("services")
    else {
        return None;
    };
    let Some(Value { kind: Some(Kind::StructValue(service)) }) = values.first() else { return None };
    let text = |key| string_of(service, key).unwrap_or_default().to_owned();
    Some(IstioService { host: text("host"), name: text("name"), namespace: text("namespace") })
}
