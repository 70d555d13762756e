//! Connection managers and routes as istiod makes them for a sidecar, with defaults for what a test does not care about.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use orlop_plan::resource::header::HeaderMutations;
use orlop_plan::resource::http_connection_manager::{
    ClientCertDetails, CodecType, EscapedSlashes, ForwardClientCert, HeadersWithUnderscores,
    HttpConnectionManager, HttpFilter, RouteSpecifier, ServerHeader, StripPort,
};
use orlop_plan::resource::listener::{
    DownstreamTransportSocket, FilterChain, FilterChainMatch, Listener, TerminalFilter,
};
use orlop_plan::resource::retry::{RetryOn, RetryPolicy};
use orlop_plan::resource::route::{
    Action, ClusterSpecifier, DirectResponseAction, Domain, FilterConfigs, PathMatch, Route, RouteAction,
    RouteConfiguration, RouteMatch, VirtualHost,
};
use orlop_plan::resource::tracing::RequestId;
use orlop_plan::route_match::VirtualHostIndex;

use super::plan::listener;

/// A listener that takes every connection as HTTP, by these routes.
pub fn http_listener(routes: Vec<Route>) -> Listener {
    listener(vec![http_chain(manager(route_configuration(vec![virtual_host(routes)])))])
}

pub fn http_chain(manager: HttpConnectionManager) -> FilterChain {
    FilterChain {
        name: String::new(),
        filter_chain_match: FilterChainMatch::default(),
        transport_socket: DownstreamTransportSocket::RawBuffer,
        transport_socket_connect_timeout: None,
        filters: Vec::new(),
        terminal: TerminalFilter::HttpConnectionManager(Arc::new(manager)),
    }
}

/// As in a sidecar, but for the request id.
pub fn manager(routes: RouteConfiguration) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: String::new(),
        codec: CodecType::Auto,
        routes: RouteSpecifier::Inline(Arc::new(routes)),
        http_filters: vec![HttpFilter::Router],
        max_request_headers_bytes: 60 * 1024,
        max_headers_count: 100,
        idle_timeout: None,
        stream_idle_timeout: None,
        request_headers_timeout: None,
        accept_http_10: false,
        use_remote_address: false,
        xff_num_trusted_hops: 0,
        skip_xff_append: false,
        server_name: "istio-envoy".to_owned(),
        server_header: ServerHeader::Overwrite,
        generate_request_id: false,
        preserve_external_request_id: false,
        always_set_request_id_in_response: false,
        normalize_path: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::KeepUnchanged,
        underscores: HeadersWithUnderscores::Allow,
        forward_client_cert: ForwardClientCert::Sanitize,
        client_cert_details: ClientCertDetails::default(),
        upgrades: vec!["websocket".to_owned()],
        strip_port: StripPort::Keep,
        access_logs: Vec::new(),
        tracing: None,
        request_id: RequestId { pack_trace_reason: true, use_for_trace_sampling: true },
    }
}

pub fn route_configuration(virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    let virtual_hosts: Vec<_> = virtual_hosts.into_iter().map(Arc::new).collect();
    RouteConfiguration {
        name: String::new(),
        index: VirtualHostIndex::new(&virtual_hosts).unwrap(),
        virtual_hosts,
        headers: HeaderMutations::default(),
        most_specific_header_mutations_wins: false,
        ignore_port_in_host_matching: false,
        internal_only_headers: Vec::new(),
    }
}

/// For every domain.
pub fn virtual_host(routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: String::new(),
        domains: vec![Domain::Any],
        routes: routes.into_iter().map(Arc::new).collect::<Vec<_>>().into(),
        require_tls: false,
        retry_policy: None,
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        unsupported: Vec::new(),
        headers: HeaderMutations::default(),
        filters: FilterConfigs::default(),
    }
}

/// A route for paths that begin with `prefix`.
pub fn route(prefix: &str, action: Action) -> Route {
    Route {
        name: String::new(),
        route_match: RouteMatch {
            path: PathMatch::Prefix(prefix.to_owned()),
            case_sensitive: true,
            headers: Vec::new(),
            query_parameters: Vec::new(),
            grpc: false,
            runtime_fraction_per_million: None,
        },
        action,
        headers: HeaderMutations::default(),
        filters: FilterConfigs::default(),
        decorator: None,
        tracing: None,
    }
}

/// Everything to one cluster.
pub fn all_to(cluster: &str) -> Vec<Route> {
    vec![route("/", to(cluster))]
}

pub fn to(cluster: &str) -> Action {
    Action::Route(Box::new(route_action(cluster)))
}

/// Without timeout and retries.
pub fn route_action(cluster: &str) -> RouteAction {
    RouteAction {
        cluster: ClusterSpecifier::Cluster(cluster.into()),
        cluster_not_found_response: StatusCode::SERVICE_UNAVAILABLE,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        max_stream_duration: None,
        grpc_timeout_header_max: None,
        retry_policy: None,
        mirrors: Vec::new(),
        hash_policy: Vec::new(),
        upgrades: Vec::new(),
    }
}

pub fn direct(status: u16, body: &str) -> Action {
    let status = StatusCode::from_u16(status).unwrap();
    Action::DirectResponse(DirectResponseAction { status, body: body.as_bytes().to_vec() })
}

/// Istio's default retry policy.
pub fn istio_retry_policy() -> RetryPolicy {
    RetryPolicy {
        retry_on: RetryOn {
            connect_failure: true,
            refused_stream: true,
            grpc_unavailable: true,
            grpc_cancelled: true,
            retriable_status_codes: true,
            ..RetryOn::default()
        },
        num_retries: 2,
        per_try_timeout: None,
        base_interval: Duration::from_millis(25),
        max_interval: Duration::from_millis(250),
        retriable_status_codes: vec![503],
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        avoid_previous_hosts: true,
        host_selection_attempts: 5,
        avoid_previous_priorities: false,
    }
}
