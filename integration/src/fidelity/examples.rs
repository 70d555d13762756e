//! Resources that are accepted and have every message in them, and values that fit where an empty one does not.

use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use orlop_proto::ResourceType;
use serde_json::{Value, json};

use crate::authority::Authority;

/// Types of Istio's own filters, which come as themselves or as `TypedStruct`s.
pub(super) const ISTIO_TYPES: [&str; 4] = [
    "io.istio.http.peer_metadata.Config",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "envoy.tcp.metadataexchange.config.MetadataExchange",
    "stats.PluginConfig",
];

const HTTP_MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const FILE_ACCESS_LOG: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";

const STATIC_DETECTOR: &str =
    "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig";
const HTTP_INSPECTOR: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";

/// An extension's `typed_config`.
fn typed(name: &str, fields: &Value) -> Value {
    let mut json = fields.clone();
    if let Some(object) = json.as_object_mut() {
        object.insert("@type".to_owned(), json!(format!("type.googleapis.com/{name}")));
    }
    json
}

/// Accepted resources of one kind. Together they give every field a place where it matters.
pub(super) fn of_resource(resource_type: ResourceType) -> Vec<Value> {
    let eds = json!({ "eds_config": { "ads": {} } });
    match resource_type {
        ResourceType::Cluster => vec![
            json!({ "name": "c", "type": "EDS", "eds_cluster_config": eds, "lb_policy": "LEAST_REQUEST" }),
            json!({ "name": "c", "type": "EDS", "eds_cluster_config": eds }),
            json!({ "name": "c", "type": "EDS", "eds_cluster_config": eds, "lb_policy": "RING_HASH" }),
            json!({ "name": "c", "type": "EDS", "eds_cluster_config": eds, "lb_policy": "MAGLEV" }),
            json!({ "name": "c", "type": "STATIC" }),
            json!({ "name": "c", "type": "STRICT_DNS" }),
            json!({ "name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED" }),
        ],
        ResourceType::ClusterLoadAssignment => of_message("envoy.config.endpoint.v3.ClusterLoadAssignment"),
        ResourceType::Listener => {
            let manager = typed(HTTP_MANAGER, &manager());
            let listener = |filter: Value| {
                json!({
                    "name": "l",
                    "address": address(),
                    "bind_to_port": false,
                    "listener_filters": [{ "name": "tls", "typed_config": typed(TLS_INSPECTOR, &json!({})) }],
                    "filter_chains": [{ "filters": [{ "name": "f", "typed_config": filter }] }],
                })
            };
            let mut bound = listener(manager.clone());
            if let Some(object) = bound.as_object_mut() {
                object.insert("use_original_dst".to_owned(), json!(true));
            }
            let mut inbound = bound.clone();
            if let Some(object) = inbound.as_object_mut() {
                object.insert("traffic_direction".to_owned(), json!("INBOUND"));
            }
            vec![listener(manager), bound, inbound]
        }
        ResourceType::RouteConfiguration => of_message("envoy.config.route.v3.RouteConfiguration"),
        ResourceType::NameTable | ResourceType::ProxyConfig => vec![json!({})],
        ResourceType::Secret => vec![
            json!({ "name": "s", "tls_certificate": certificate() }),
            json!({ "name": "s", "validation_context": {} }),
        ],
        ResourceType::ExtensionConfig => {
            let stats = typed("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", &json!({}));
            vec![json!({ "name": "e", "typed_config": stats })]
        }
    }
}

/// A certificate, its key and a revocation list in one text, of which everything that reads PEM takes its part.
static PEM: LazyLock<String> = LazyLock::new(|| {
    let everything = || {
        let authority = Authority::new()?;
        let issued = authority.issue("example")?;
        anyhow::Ok(issued.certificate + &issued.key + &authority.revocation_list()?)
    };
    everything().unwrap_or_default()
});

/// Keys for tokens.
const JWKS: &str = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;

fn certificate() -> Value {
    json!({ "certificate_chain": { "filename": "chain" }, "private_key": { "filename": "key" } })
}

fn address() -> Value {
    json!({ "socket_address": { "address": "10.0.0.8", "port_value": 80 } })
}

fn manager() -> Value {
    json!({
        "rds": { "route_config_name": "r", "config_source": { "ads": {} } },
        "http_filters": [{ "name": "router", "typed_config": typed(ROUTER, &json!({})) }],
    })
}

fn route() -> Value {
    json!({ "match": { "prefix": "/" }, "route": { "cluster": "c" } })
}

/// Messages of one type that are accepted wherever the type is. An empty one unless more is needed.
pub(super) fn of_message(name: &str) -> Vec<Value> {
    let name = name.strip_prefix("envoy.").unwrap_or(name);
    let first = one_of_message(name);
    match name {
        // The last of its chain.
        "config.listener.v3.Filter" => {
            vec![first, json!({ "name": "http", "typed_config": typed(HTTP_MANAGER, &manager()) })]
        }
        // The last of its manager.
        "extensions.filters.network.http_connection_manager.v3.HttpFilter" => {
            vec![first, json!({ "name": "router", "typed_config": typed(ROUTER, &json!({})) })]
        }
        // What the example of a listener has.
        "config.listener.v3.ListenerFilter" => {
            vec![first, json!({ "name": "tls", "typed_config": typed(TLS_INSPECTOR, &json!({})) })]
        }
        // One of two services.
        "config.trace.v3.OpenTelemetryConfig" => {
            vec![first, json!({ "http_service": one_of_trace_message("config.core.v3.HttpService") })]
        }
        _ => vec![first],
    }
}

fn one_of_message(name: &str) -> Value {
    match name {
        "config.cluster.v3.Cluster.SlowStartConfig" => json!({ "slow_start_window": "30s" }),
        "config.core.v3.Address" => address(),
        "config.core.v3.ExtraSourceAddress" => json!({ "address": { "address": "::6" } }),
        "config.endpoint.v3.Endpoint.AdditionalAddress" => json!({ "address": address() }),
        "config.core.v3.SocketAddress" => json!({ "address": "10.0.0.9" }),
        "config.core.v3.CidrRange" => json!({ "address_prefix": "10.0.0.0", "prefix_len": 8 }),
        "extensions.transport_sockets.tls.v3.TlsCertificate" => certificate(),
        "extensions.transport_sockets.tls.v3.SdsSecretConfig" => {
            json!({ "name": "s", "sds_config": { "ads": {} } })
        }
        "extensions.transport_sockets.tls.v3.SubjectAltNameMatcher" => {
            json!({ "san_type": "DNS", "matcher": { "exact": "x" } })
        }
        "config.core.v3.ExtensionConfigSource" => json!({
            "config_source": { "ads": {} },
            "default_config": typed("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", &json!({})),
        }),
        "config.core.v3.HttpUri" => json!({ "uri": "u", "cluster": "d", "timeout": "1s" }),
        "config.core.v3.GrpcService" => json!({ "envoy_grpc": { "cluster_name": "d" } }),
        "config.core.v3.GrpcService.EnvoyGrpc" => json!({ "cluster_name": "d" }),
        "type.matcher.v3.MetadataMatcher" => json!({
            "filter": "envoy.filters.http.rbac",
            "path": [{ "key": "istio_ext_authz_shadow_effective_policy_id" }],
            "value": { "string_match": { "prefix": "x" } },
        }),
        "type.matcher.v3.MetadataMatcher.PathSegment" => json!({ "key": "x" }),
        "config.core.v3.DataSource" => json!({ "inline_string": "text" }),
        "config.core.v3.HeaderValueOption" => json!({ "header": { "key": "x-test", "value": "1" } }),
        "config.core.v3.HeaderValue" => json!({ "key": "x-other", "value": "1" }),
        "config.core.v3.TransportSocket" => json!({
            "name": "tls",
            "typed_config": typed("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", &json!({})),
        }),
        "config.cluster.v3.Cluster.TransportSocketMatch" => json!({
            "name": "tls",
            "match": { "tlsMode": "istio" },
            "transport_socket": {
                "name": "tls",
                "typed_config":
                    typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", &json!({})),
            },
        }),
        "config.cluster.v3.Filter" | "config.listener.v3.Filter" => json!({
            "name": "mx",
            "typed_config": typed("envoy.tcp.metadataexchange.config.MetadataExchange", &json!({})),
        }),
        "config.listener.v3.ListenerFilter" => {
            json!({ "name": "http", "typed_config": typed(HTTP_INSPECTOR, &json!({})) })
        }
        "config.listener.v3.FilterChain" => json!({
            "filter_chain_match": { "destination_port": 99 },
            "filters": [{ "name": "tcp", "typed_config": typed(TCP_PROXY, &json!({ "cluster": "c" })) }],
        }),
        "config.listener.v3.FilterChainMatch" => json!({ "destination_port": 77 }),
        "config.listener.v3.ListenerFilterChainMatchPredicate" => json!({ "any_match": true }),
        "config.listener.v3.AdditionalAddress" | "config.endpoint.v3.Endpoint" => {
            json!({ "address": address() })
        }
        "config.endpoint.v3.ClusterLoadAssignment" => json!({
            "cluster_name": "c",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address() } }] }],
        }),
        "config.endpoint.v3.LbEndpoint" => json!({ "endpoint": { "address": address() } }),
        "config.rbac.v3.Policy" => {
            json!({ "permissions": [{ "any": true }], "principals": [{ "any": true }] })
        }
        "config.rbac.v3.Permission" | "config.rbac.v3.Principal" => json!({ "any": true }),
        "config.rbac.v3.Permission.Set" => json!({ "rules": [{ "any": true }] }),
        "config.rbac.v3.Principal.Set" => json!({ "ids": [{ "any": true }] }),
        name if name.starts_with("config.route.") => one_of_route_message(name),
        "type.v3.HashPolicy" => json!({ "source_ip": {} }),
        "type.v3.FractionalPercent" => json!({ "numerator": 7 }),
        "type.v3.Int32Range" => json!({ "start": 7, "end": 100 }),
        "type.matcher.v3.RegexMatcher" => json!({ "regex": "x" }),
        "type.matcher.v3.RegexMatchAndSubstitute" => {
            json!({ "pattern": { "regex": "x" }, "substitution": "y" })
        }
        "type.matcher.v3.StringMatcher" => json!({ "exact": "x" }),
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => manager(),
        "extensions.filters.network.http_connection_manager.v3.HttpFilter" => {
            let stats = typed("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", &json!({}));
            // The name by which routes know the filter that they say most to.
            json!({ "name": "envoy.filters.http.fault", "typed_config": stats })
        }
        name if name.starts_with("extensions.filters.http.") || name.contains(".ext_authz.") => {
            one_of_http_filter_message(name)
        }
        "type.v3.HttpStatus" => json!({ "code": "ServiceUnavailable" }),
        "type.v3.TokenBucket" => json!({ "max_tokens": 3, "fill_interval": "2s" }),
        "extensions.filters.common.fault.v3.FaultDelay" => json!({ "fixed_delay": "7s" }),
        "extensions.filters.network.tcp_proxy.v3.TcpProxy" => json!({ "cluster": "c" }),
        "extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster" => {
            json!({ "clusters": [{ "name": "c", "weight": 1 }] })
        }
        "extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight" => {
            json!({ "name": "d", "weight": 1 })
        }
        _ => one_of_log_message(name),
    }
}

fn one_of_log_message(name: &str) -> Value {
    match name {
        "config.accesslog.v3.AccessLog" => json!({
            "name": "log",
            "filter": { "response_flag_filter": { "flags": ["NR"] } },
            "typed_config": typed(FILE_ACCESS_LOG, &json!({ "path": "/dev/stdout" })),
        }),
        "extensions.access_loggers.file.v3.FileAccessLog" => json!({ "path": "/dev/stderr" }),
        "config.core.v3.SubstitutionFormatString" => {
            json!({ "text_format_source": { "inline_string": "%DURATION%" } })
        }
        "config.accesslog.v3.AccessLogFilter" => {
            json!({ "response_flag_filter": { "flags": ["NR"] } })
        }
        _ => one_of_trace_message(name),
    }
}

fn one_of_trace_message(name: &str) -> Value {
    match name {
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing" => {
            json!({ "provider": { "name": "zipkin", "typed_config": zipkin() } })
        }
        "config.trace.v3.Tracing.Http" => json!({ "name": "zipkin", "typed_config": zipkin() }),
        "config.trace.v3.ZipkinConfig" => json!({
            "collector_cluster": "c", "collector_endpoint": "/s", "collector_endpoint_version": "HTTP_JSON",
        }),
        "config.trace.v3.OpenTelemetryConfig" => {
            json!({ "grpc_service": { "envoy_grpc": { "cluster_name": "c" } } })
        }
        "config.core.v3.HttpService" => {
            json!({ "http_uri": { "uri": "http://u/p", "cluster": "c", "timeout": "1s" } })
        }
        "type.tracing.v3.CustomTag" => json!({ "tag": "t", "literal": { "value": "v" } }),
        "type.tracing.v3.CustomTag.Header" => json!({ "name": "x-test" }),
        "type.tracing.v3.CustomTag.Metadata" => json!({
            "kind": { "request": {} },
            "metadata_key": {
                "key": "envoy.filters.http.rbac",
                "path": [{ "key": "istio_dry_run_allow_shadow_engine_result" }],
            },
        }),
        _ => json!({}),
    }
}

fn zipkin() -> Value {
    let config = json!({ "collector_cluster": "c", "collector_endpoint_version": "HTTP_JSON" });
    typed("envoy.config.trace.v3.ZipkinConfig", &config)
}

fn one_of_http_filter_message(name: &str) -> Value {
    match name.strip_prefix("extensions.filters.http.").unwrap_or(name) {
        "ext_authz.v3.ExtAuthz" => {
            json!({ "http_service": { "server_uri": { "uri": "u", "cluster": "c", "timeout": "1s" } } })
        }
        "ext_authz.v3.HttpService" => {
            json!({ "server_uri": { "uri": "u", "cluster": "d", "timeout": "1s" } })
        }
        "ext_authz.v3.ExtAuthzPerRoute" => json!({ "disabled": true }),
        "ext_authz.v3.BufferSettings" => json!({ "max_request_bytes": 9 }),
        "jwt_authn.v3.JwtClaimToHeader" => {
            json!({ "header_name": "x-test", "claim_name": "c" })
        }
        "jwt_authn.v3.JwtHeader" => json!({ "name": "x-test" }),
        "jwt_authn.v3.JwtProvider" => {
            json!({ "local_jwks": { "inline_string": "{}" } })
        }
        "jwt_authn.v3.JwtRequirement" => json!({ "allow_missing": {} }),
        "jwt_authn.v3.RequirementRule" => json!({ "match": { "prefix": "/" } }),
        "fault.v3.FaultAbort" => json!({ "http_status": 418 }),
        "local_ratelimit.v3.LocalRateLimit" => json!({ "stat_prefix": "s" }),
        // Of connections.
        "extensions.filters.network.ext_authz.v3.ExtAuthz" => json!({ "filter_enabled_metadata": {
            "filter": "envoy.filters.network.rbac",
            "path": [{ "key": "istio_ext_authz_shadow_effective_policy_id" }],
            "value": { "string_match": { "prefix": "x" } },
        } }),
        _ => json!({}),
    }
}

fn one_of_route_message(name: &str) -> Value {
    match name {
        "config.route.v3.RouteConfiguration" => json!({
            "name": "r",
            "virtual_hosts": [{ "name": "v", "domains": ["v"], "routes": [route()] }],
        }),
        "config.route.v3.VirtualHost" => json!({ "name": "w", "domains": ["w"], "routes": [route()] }),
        "config.route.v3.Route" => route(),
        "config.route.v3.RouteMatch" => json!({ "prefix": "/" }),
        "config.route.v3.RouteAction" | "config.route.v3.RouteAction.RequestMirrorPolicy" => {
            json!({ "cluster": "c" })
        }
        "config.route.v3.RouteAction.HashPolicy" => json!({ "query_parameter": { "name": "q" } }),
        "config.route.v3.RouteAction.HashPolicy.Header" => json!({ "header_name": "x-test" }),
        "config.route.v3.RouteAction.HashPolicy.Cookie" => json!({ "name": "c", "ttl": "60s" }),
        "config.route.v3.RouteAction.HashPolicy.ConnectionProperties" => json!({ "source_ip": true }),
        "config.route.v3.DirectResponseAction" => json!({ "status": 200 }),
        "config.route.v3.WeightedCluster" => json!({ "clusters": [{ "name": "c", "weight": 1 }] }),
        "config.route.v3.WeightedCluster.ClusterWeight" => json!({ "name": "d", "weight": 1 }),
        "config.route.v3.HeaderMatcher" => json!({ "name": "x-test", "string_match": { "exact": "x" } }),
        "config.route.v3.QueryParameterMatcher" => json!({ "name": "q" }),
        "config.route.v3.RetryPolicy.RetryBackOff" => json!({ "base_interval": "3s" }),
        "config.route.v3.RetryPolicy.RetryHostPredicate" => json!({
            "name": "previous_hosts",
            "typed_config": typed(
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                &json!({}),
            ),
        }),
        "config.route.v3.RetryPolicy.RetryPriority" => json!({
            "name": "previous_priorities",
            "typed_config": typed(
                "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                &json!({}),
            ),
        }),
        _ => json!({}),
    }
}

/// Values of a field that fits few.
pub(super) fn of_field(field: &str) -> Vec<Value> {
    match field.strip_prefix("envoy.").unwrap_or(field) {
        "extensions.transport_sockets.tls.v3.TlsCertificate.certificate_chain"
        | "extensions.transport_sockets.tls.v3.TlsCertificate.private_key"
        | "extensions.transport_sockets.tls.v3.CertificateValidationContext.trusted_ca" => {
            vec![json!({ "filename": "other" })]
        }
        "extensions.transport_sockets.tls.v3.CertificateValidationContext.crl" => {
            vec![json!({ "filename": "crl" })]
        }
        "config.core.v3.DataSource.inline_string" | "istio.mesh.v1alpha1.ProxyConfig.ca_certificates_pem" => {
            vec![json!(*PEM), json!(JWKS)]
        }
        "config.core.v3.DataSource.inline_bytes" => {
            vec![json!(BASE64_STANDARD.encode(&*PEM)), json!(BASE64_STANDARD.encode(JWKS))]
        }
        "config.core.v3.ConfigSource.api_config_source" => vec![json!({
            "api_type": "GRPC",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }],
        })],
        "config.core.v3.HeaderValue.value" => vec![json!("%PROTOCOL%")],
        "config.accesslog.v3.ResponseFlagFilter.flags" => vec![json!("UH")],
        "extensions.access_loggers.file.v3.FileAccessLog.path" => {
            ["/dev/stderr", "/x"].map(|path| json!(path)).into()
        }
        "config.core.v3.SocketAddress.address" => vec![json!("10.0.0.9")],
        "config.core.v3.CidrRange.address_prefix" => vec![json!("11.0.0.0")],
        "config.core.v3.BindConfig.source_address" | "config.core.v3.ExtraSourceAddress.address" => {
            ["127.0.0.6", "10.0.0.9"].map(|address| json!({ "address": address })).into()
        }
        "config.cluster.v3.Cluster.TransportSocketMatch.transport_socket" => vec![json!({
            "name": "other",
            "typed_config": typed("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", &json!({ "sni": "s" })),
        })],
        "config.cluster.v3.Cluster.MaglevLbConfig.table_size" => vec![json!(11)],
        "config.cluster.v3.Cluster.RingHashLbConfig.maximum_ring_size" => vec![json!(2000)],
        "config.cluster.v3.OutlierDetection.max_ejection_time" => vec![json!("400s")],
        "config.trace.v3.OpenTelemetryConfig.resource_detectors" => vec![json!({
            "name": "static",
            "typed_config": typed(STATIC_DETECTOR, &json!({ "attributes": { "place": "here" } })),
        })],
        "config.route.v3.WeightedCluster.total_weight" => vec![json!(1)],
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.tracing" => {
            vec![
                json!({}),
                json!({ "custom_tags": [{ "tag": "x", "literal": { "value": "v" } }] }),
                json!({ "provider": { "name": "zipkin", "typed_config": zipkin() } }),
            ]
        }
        _ => Vec::new(),
    }
}

/// Keys of a map that mean something, with their values.
pub(super) fn of_keys(field: &str) -> Vec<(String, Value)> {
    let pairs = match field.strip_prefix("envoy.").unwrap_or(field) {
        "config.core.v3.Metadata.filter_metadata" => vec![
            (
                "istio",
                json!({ "services": [{ "host": "h", "name": "n", "namespace": "s" }], "workload": "w" }),
            ),
            ("envoy.transport_socket_match", json!({ "tlsMode": "istio" })),
            ("other", json!({ "key": "value" })),
        ],
        "istio.networking.nds.v1.NameTable.table" => vec![(
            "web.shop.svc.cluster.local",
            json!({ "registry": "Kubernetes", "shortname": "web", "namespace": "shop" }),
        )],
        _ => Vec::new(),
    };
    pairs.into_iter().map(|(key, json)| (key.to_owned(), json)).collect()
}

/// Where the types of an extension point lie. A `TypedExtensionConfig` as a resource is a filter's; as a field of another
/// message it may be anything.
pub(super) fn extension_prefix(resource_type: ResourceType, field: &str) -> &'static str {
    match field.strip_prefix("envoy.").unwrap_or(field) {
        "config.core.v3.TransportSocket.typed_config" => "envoy.extensions.transport_sockets.",
        "config.cluster.v3.Filter.typed_config" | "config.listener.v3.Filter.typed_config" => {
            "envoy.extensions.filters.network."
        }
        "config.cluster.v3.Cluster.typed_extension_protocol_options" => "envoy.extensions.upstreams.",
        "config.listener.v3.ListenerFilter.typed_config" => "envoy.extensions.filters.listener.",
        "config.accesslog.v3.AccessLog.typed_config" => "envoy.extensions.access_loggers.",
        "config.route.v3.RetryPolicy.RetryHostPredicate.typed_config" => "envoy.extensions.retry.host.",
        "config.route.v3.RetryPolicy.RetryPriority.typed_config" => "envoy.extensions.retry.priority.",
        "config.route.v3.RouteConfiguration.typed_per_filter_config"
        | "config.route.v3.VirtualHost.typed_per_filter_config"
        | "config.route.v3.Route.typed_per_filter_config"
        | "config.route.v3.WeightedCluster.ClusterWeight.typed_per_filter_config"
        | "config.core.v3.ExtensionConfigSource.default_config"
        | "extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config" => {
            "envoy.extensions.filters.http."
        }
        "config.core.v3.TypedExtensionConfig.typed_config"
            if resource_type == ResourceType::ExtensionConfig =>
        {
            "envoy.extensions.filters.http."
        }
        "config.trace.v3.Tracing.Http.typed_config" => "envoy.config.trace.",
        "extensions.filters.network.http_connection_manager.v3.RequestIDExtension.typed_config" => {
            "envoy.extensions.request_id."
        }
        _ => "",
    }
}
