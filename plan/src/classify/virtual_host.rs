//! Whether a virtual host, and the connection manager in front of it, ask for anything at L7.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::Cause;
use crate::resource::FieldPath;
use crate::resource::http_connection_manager::{HttpConnectionManager, HttpFilter};
use crate::resource::retry::{RetryOn, RetryPolicy};
use crate::resource::route::{
    Action, ClusterSpecifier, FilterConfig, FilterConfigs, PathMatch, Route, RouteAction, RouteConfiguration,
    RouteMatch, VirtualHost,
};

/// The one cluster that every request of a virtual host goes to, if nothing more is asked for.
pub(super) fn only_cluster(virtual_host: &VirtualHost) -> Result<&Arc<str>, (FieldPath, Cause)> {
    if let Some(asked) = own_asks(virtual_host) {
        return Err(asked);
    }
    let mut only = None;
    for (index, route) in virtual_host.routes.iter().enumerate() {
        let cluster = route_cluster(route).map_err(|asked| route_asks(virtual_host, index, route, asked))?;
        // The first one takes everything: those behind it are never reached.
        only = only.or(Some(cluster));
    }
    only.ok_or_else(|| host_ask(virtual_host, "routes", "has no route"))
}

/// The cluster of the route that takes what no other route does, whatever else it asks for.
pub(super) fn catch_all(virtual_host: &VirtualHost) -> Option<&Arc<str>> {
    let route = virtual_host.routes.iter().find(|route| match_asks(&route.route_match).is_none())?;
    match &route.action {
        Action::Route(action) => match &action.cluster {
            ClusterSpecifier::Cluster(name) => Some(name),
            ClusterSpecifier::Weighted(_) | ClusterSpecifier::ClusterHeader(_) => None,
        },
        Action::Redirect(_) | Action::DirectResponse(_) | Action::Unsupported(_) => None,
    }
}

/// Everything that a virtual host asks for, one thing of each route.
pub(super) fn host_asks(virtual_host: &VirtualHost) -> Vec<(FieldPath, Cause)> {
    let of_routes = virtual_host.routes.iter().enumerate().filter_map(|(index, route)| {
        Some(route_asks(virtual_host, index, route, route_cluster(route).err()?))
    });
    own_asks(virtual_host).into_iter().chain(of_routes).collect()
}

fn host_ask(virtual_host: &VirtualHost, field: &str, what: &'static str) -> (FieldPath, Cause) {
    (FieldPath::root().field(field), Cause::VirtualHost { virtual_host: virtual_host.name.clone(), what })
}

fn route_asks(host: &VirtualHost, index: usize, route: &Route, (field, what): Asks) -> (FieldPath, Cause) {
    let cause = Cause::Route { virtual_host: host.name.clone(), route: route.name.clone(), what };
    (FieldPath::root().field("routes").index(index).field(&field), cause)
}

/// What a virtual host asks for beside its routes.
fn own_asks(virtual_host: &VirtualHost) -> Option<(FieldPath, Cause)> {
    let VirtualHost {
        name: _,
        domains: _,
        routes: _,
        require_tls,
        retry_policy,
        // istiod sets it everywhere.
        include_request_attempt_count: _,
        include_attempt_count_in_response,
        unsupported,
        headers,
        filters,
    } = virtual_host;
    if let Some(first) = unsupported.first() {
        return Some(host_ask(virtual_host, &first.path.to_string(), UNSUPPORTED));
    }
    let (field, what) = if *require_tls {
        ("require_tls", "redirects plaintext to https")
    } else if !headers.is_empty() {
        ("request_headers_to_add", "changes headers")
    } else if let Some(what) = filters_ask(filters) {
        ("typed_per_filter_config", what)
    } else if *include_attempt_count_in_response {
        ("include_attempt_count_in_response", "adds a header to responses")
    } else if retry_policy.as_deref().is_some_and(|policy| !is_mesh_default(policy)) {
        ("retry_policy", "has a retry policy of its own")
    } else {
        return None;
    };
    Some(host_ask(virtual_host, field, what))
}

/// What a route or virtual host does that is refused by itself.
const UNSUPPORTED: &str = "asks for what is not supported and answers 503";

/// What a route or virtual host has filters do.
fn filters_ask(filters: &FilterConfigs) -> Option<&'static str> {
    let FilterConfigs { fault, cors, by_name } = filters;
    if fault.as_ref().is_some_and(|fault| !fault.is_none()) {
        return Some("injects faults");
    }
    if cors.is_some() {
        return Some("answers pages of other origins");
    }
    by_name.values().find_map(|config| match config {
        // Authorizers are asked about what comes in alone.
        FilterConfig::ExtAuthz(_) => None,
        FilterConfig::LocalRateLimit(limit) => limit.is_of_use().then_some("limits the rate of requests"),
    })
}

/// A field of a route, and what it does.
type Asks = (Cow<'static, str>, String);

fn asks<T>(field: &'static str, what: impl Into<String>) -> Result<T, Asks> {
    Err((field.into(), what.into()))
}

fn route_cluster(route: &Route) -> Result<&Arc<str>, Asks> {
    let Route { name: _, route_match, action, headers, filters, decorator: _, tracing: _ } = route;
    if let Some(asked) = match_asks(route_match) {
        return Err(asked);
    }
    if !headers.is_empty() {
        return asks("request_headers_to_add", "changes headers");
    }
    if let Some(what) = filters_ask(filters) {
        return asks("typed_per_filter_config", what);
    }
    match action {
        Action::Route(action) => action_cluster(action),
        Action::Redirect(_) => asks("redirect", "redirects"),
        Action::DirectResponse(_) => asks("direct_response", "answers by itself"),
        Action::Unsupported(fields) => {
            let first = fields.first().map_or_else(String::new, |field| field.path.to_string());
            Err((first.into(), UNSUPPORTED.to_owned()))
        }
    }
}

/// What keeps a route from taking every request.
fn match_asks(route_match: &RouteMatch) -> Option<Asks> {
    let RouteMatch {
        path,
        // No difference for the prefix `/`.
        case_sensitive: _,
        headers,
        query_parameters,
        grpc,
        runtime_fraction_per_million,
    } = route_match;
    if let Some(header) = headers.first() {
        return Some(("match.headers[0]".into(), format!("matches on headers[0] `{}`", header.name)));
    }
    if let Some(parameter) = query_parameters.first() {
        let what = format!("matches on query_parameters[0] `{}`", parameter.name);
        return Some(("match.query_parameters[0]".into(), what));
    }
    if !matches!(path, PathMatch::Prefix(prefix) if prefix == "/") {
        return Some(("match".into(), "matches on the path".to_owned()));
    }
    if *grpc {
        return Some(("match.grpc".into(), "takes gRPC only".to_owned()));
    }
    if runtime_fraction_per_million.is_some() {
        return Some(("match.runtime_fraction".into(), "takes a fraction of requests".to_owned()));
    }
    None
}

fn action_cluster(action: &RouteAction) -> Result<&Arc<str>, Asks> {
    let RouteAction {
        cluster,
        cluster_not_found_response: _,
        path_rewrite,
        host_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        max_stream_duration,
        grpc_timeout_header_max,
        retry_policy,
        mirrors,
        // Of clusters that balance by hash, which are the proxy's.
        hash_policy: _,
        upgrades,
    } = action;
    if path_rewrite.is_some() {
        return asks("route.prefix_rewrite", "rewrites the path");
    }
    if host_rewrite.is_some() || *append_x_forwarded_host {
        return asks("route.host_rewrite_literal", "rewrites the host");
    }
    if timeout.is_some() {
        return asks("route.timeout", "has a timeout");
    }
    if idle_timeout.is_some_and(|timeout| !timeout.is_zero()) {
        return asks("route.idle_timeout", "has an idle timeout");
    }
    if max_stream_duration.is_some_and(|limit| !limit.is_zero()) {
        return asks("route.max_stream_duration", "limits a request's duration");
    }
    if grpc_timeout_header_max.is_some_and(|limit| !limit.is_zero()) {
        return asks("route.max_stream_duration.grpc_timeout_header_max", "limits a gRPC call's duration");
    }
    if retry_policy.as_deref().is_some_and(|policy| !is_mesh_default(policy)) {
        return asks("route.retry_policy", "has a retry policy of its own");
    }
    if !mirrors.is_empty() {
        return asks("route.request_mirror_policies", "mirrors requests");
    }
    if !upgrades.is_empty() {
        return asks("route.upgrade_configs", "allows upgrades of its own");
    }
    match cluster {
        ClusterSpecifier::Cluster(name) => Ok(name),
        ClusterSpecifier::Weighted(_) => asks("route.weighted_clusters", "draws among weighted clusters"),
        ClusterSpecifier::ClusterHeader(_) => asks("route.cluster_header", "takes the cluster from a header"),
    }
}

/// Whether a retry policy is the one that istiod writes where nobody asked for one: outbound, twice after a failure to
/// connect or a refusal by the peer; inbound, twice after a reset before the request was sent.
fn is_mesh_default(policy: &RetryPolicy) -> bool {
    let RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        base_interval,
        max_interval,
        retriable_status_codes,
        retriable_headers,
        retriable_request_headers,
        avoid_previous_hosts: _,
        host_selection_attempts: _,
        avoid_previous_priorities,
    } = policy;
    let outbound = RetryOn {
        connect_failure: true,
        refused_stream: true,
        grpc_unavailable: true,
        grpc_cancelled: true,
        retriable_status_codes: true,
        ..RetryOn::default()
    };
    let inbound = RetryOn { reset_before_request: true, ..RetryOn::default() };
    (*retry_on == outbound || *retry_on == inbound)
        && *num_retries == 2
        && per_try_timeout.is_none()
        && *base_interval == Duration::from_millis(25)
        && *max_interval == Duration::from_millis(250)
        // Releases before 1.24 named 503 here.
        && retriable_status_codes.iter().all(|code| *code == 503)
        && retriable_headers.is_empty()
        && retriable_request_headers.is_empty()
        && !avoid_previous_priorities
}

/// What a route configuration as a whole asks for.
pub(super) fn route_configuration_asks(routes: &RouteConfiguration) -> Option<(&'static str, &'static str)> {
    (!routes.headers.is_empty()).then_some(("request_headers_to_add", "changes headers"))
}

/// What a connection manager asks for beyond the filters that the stock installation puts everywhere.
pub(super) fn manager_asks(manager: &HttpConnectionManager) -> Option<(&'static str, &'static str)> {
    if !manager.access_logs.is_empty() {
        return Some(("access_log", "writes an access log of requests"));
    }
    if manager.tracing_provider().is_some() {
        return Some(("tracing", "traces requests"));
    }
    manager.http_filters.iter().find_map(|filter| match filter {
        HttpFilter::GrpcWeb => Some(("http_filters", "translates gRPC-Web")),
        HttpFilter::JwtAuthn(_) => Some(("http_filters", "asks requests for tokens")),
        HttpFilter::ExtAuthz(..) => Some(("http_filters", "asks an authorizer")),
        HttpFilter::LocalRateLimit(_, limit) if limit.is_of_use() => {
            Some(("http_filters", "limits the rate of requests"))
        }
        HttpFilter::Fault(fault) if !fault.is_none() => Some(("http_filters", "injects faults")),
        HttpFilter::Rbac(filter) if filter.shadow_rules.is_some() => {
            Some(("http_filters", "tries a policy on requests, in a dry run"))
        }
        // The stock installation's; and what RBAC enforces, which is in what comes in alone and judged for the chain as a whole. Whatever
        // enforces a policy must not be forgone: it does not belong here, unless it is
        // refused on the way out.
        HttpFilter::PeerMetadata(_)
        | HttpFilter::GrpcStats
        | HttpFilter::Alpn(_)
        | HttpFilter::Stats(_)
        | HttpFilter::Fault(_)
        | HttpFilter::Cors
        | HttpFilter::LocalRateLimit(..)
        | HttpFilter::Discovered(_)
        | HttpFilter::Rbac(_)
        | HttpFilter::Router => None,
    })
}
