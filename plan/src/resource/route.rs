//! `route.v3`: route configurations, virtual hosts, routes and their actions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use regex::Regex;

use super::FieldError;
use super::cors::CorsPolicy;
use super::ext_authz::ExtAuthzPerRoute;
use super::fault::Fault;
use super::hash_policy::HashPolicy;
use super::header::{HeaderMatcher, HeaderMutations};
use super::local_rate_limit::LocalRateLimit;
use super::matcher::StringMatcher;
use super::retry::RetryPolicy;
use super::tracing::{Decorator, RouteTracing};
use crate::route_match::{Routes, VirtualHostIndex};

/// `RouteConfiguration`.
#[derive(Debug)]
pub struct RouteConfiguration {
    /// The name that RDS knows it by; inline ones have one too.
    pub name: String,
    /// In order; domains are unique over all of them.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Header operations of this level.
    pub headers: HeaderMutations,
    /// `most_specific_header_mutations_wins`: order of the levels when applying.
    pub most_specific_header_mutations_wins: bool,
    /// `ignore_port_in_host_matching`.
    pub ignore_port_in_host_matching: bool,
    /// `internal_only_headers`.
    pub internal_only_headers: Vec<HeaderName>,
    /// The domains of `virtual_hosts`, compiled; made of them by [`VirtualHostIndex::new`].
    pub index: VirtualHostIndex,
}

/// `VirtualHost`.
#[derive(Debug)]
pub struct VirtualHost {
    /// For statistics and `explain`.
    pub name: String,
    /// Lower-case domains.
    pub domains: Vec<Domain>,
    /// First match wins.
    pub routes: Routes,
    /// `require_tls`: a plaintext request is redirected to https.
    pub require_tls: bool,
    /// For routes without one of their own.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// `include_request_attempt_count`: sets `x-envoy-attempt-count` on requests.
    pub include_request_attempt_count: bool,
    /// `include_attempt_count_in_response`.
    pub include_attempt_count_in_response: bool,
    /// Fields for which requests are answered with 503, as seen from here: Envoy would honour them and the proxy does not.
    pub unsupported: Vec<FieldError>,
    /// Header operations of this level.
    pub headers: HeaderMutations,
    /// What it says to HTTP filters.
    pub filters: FilterConfigs,
}

/// A domain of a virtual host; the search order is exact, suffix (longest), prefix (longest), any (Envoy's documentation of
/// `VirtualHost.domains`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Domain {
    /// `www.example.com`
    Exact(String),
    /// `*.example.com`, kept without the star
    Suffix(String),
    /// `www.*`, kept without the star
    Prefix(String),
    /// `*`
    Any,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// `Route`.
#[derive(Debug)]
pub struct Route {
    /// For `explain`, logs and statistics; may be empty.
    pub name: String,
    /// What requests it takes.
    pub route_match: RouteMatch,
    /// What happens to them.
    pub action: Action,
    /// Header operations of this level.
    pub headers: HeaderMutations,
    /// What it says to HTTP filters.
    pub filters: FilterConfigs,
    /// `decorator`: what its spans are named.
    pub decorator: Option<Decorator>,
    /// `tracing`
    pub tracing: Option<Box<RouteTracing>>,
}

/// `RouteMatch`: all of it must hold.
#[derive(Debug)]
pub struct RouteMatch {
    /// The path without the query.
    pub path: PathMatch,
    /// `case_sensitive`; does not apply to `Regex`.
    pub case_sensitive: bool,
    /// All of them.
    pub headers: Vec<HeaderMatcher>,
    /// All of them.
    pub query_parameters: Vec<QueryParameterMatcher>,
    /// `grpc`: only requests whose content-type is gRPC.
    pub grpc: bool,
    /// `runtime_fraction`: numerator per million that are taken; `None` is all.
    pub runtime_fraction_per_million: Option<u32>,
}

/// `path_specifier`.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// `prefix`
    Prefix(String),
    /// `path`
    Exact(String),
    /// `safe_regex`, the whole path
    Regex(Regex),
    /// `path_separated_prefix`: the prefix itself or followed by `/`
    PathSeparatedPrefix(String),
}

/// `QueryParameterMatcher`.
#[derive(Debug)]
pub struct QueryParameterMatcher {
    /// The parameter; its first value counts.
    pub name: String,
    /// `None` is "present with any value".
    pub value: Option<StringMatcher>,
}

/// `typed_per_filter_config` of a virtual host or a route.
#[derive(Debug, Default)]
pub struct FilterConfigs {
    /// Of `envoy.filters.http.fault`, in the place of what a less specific level says.
    pub fault: Option<Box<Fault>>,
    /// Of `envoy.filters.http.cors`.
    pub cors: Option<Box<CorsPolicy>>,
    /// Of the others, by the names that the connection manager gives them.
    pub by_name: BTreeMap<String, FilterConfig>,
}

/// What is said to a filter by its name.
#[derive(Debug)]
pub enum FilterConfig {
    /// `ExtAuthzPerRoute`
    ExtAuthz(Box<ExtAuthzPerRoute>),
    /// `LocalRateLimit`, in the place of the filter's own.
    LocalRateLimit(Arc<LocalRateLimit>),
}

/// `Route.action`.
#[derive(Debug)]
pub enum Action {
    /// To a cluster.
    Route(Box<RouteAction>),
    /// 3xx.
    Redirect(RedirectAction),
    /// Answered by the proxy.
    DirectResponse(DirectResponseAction),
    /// What Envoy would do and the proxy does not: requests are answered with 503. The fields, as seen from the route.
    Unsupported(Vec<FieldError>),
}

/// `RouteAction`.
#[derive(Debug)]
pub struct RouteAction {
    /// Where to.
    pub cluster: ClusterSpecifier,
    /// `cluster_not_found_response_code`: 503, 404, or 500 (what istiod asks for behind a Gateway API route).
    pub cluster_not_found_response: StatusCode,
    /// How the path changes.
    pub path_rewrite: Option<PathRewrite>,
    /// How the authority changes.
    pub host_rewrite: Option<HostRewrite>,
    /// `append_x_forwarded_host`.
    pub append_x_forwarded_host: bool,
    /// `timeout`: `None` is no timeout (an explicit 0); Envoy's default is 15 s.
    pub timeout: Option<Duration>,
    /// `idle_timeout` of the stream; `None` is the connection manager's, 0 is none at all.
    pub idle_timeout: Option<Duration>,
    /// `max_stream_duration.max_stream_duration`; `None` is no limit (also an explicit 0).
    pub max_stream_duration: Option<Duration>,
    /// `max_stream_duration.grpc_timeout_header_max`: honours `grpc-timeout` up to this (0 = without limit).
    pub grpc_timeout_header_max: Option<Duration>,
    /// The route's own retry policy.
    pub retry_policy: Option<Arc<RetryPolicy>>,
    /// `request_mirror_policies`: who gets a copy.
    pub mirrors: Vec<MirrorPolicy>,
    /// `hash_policy`: what a request's hash is made of, where its cluster balances by one.
    pub hash_policy: Vec<HashPolicy>,
    /// `upgrade_configs` of the route that are enabled, lower-case (`websocket`).
    pub upgrades: Vec<String>,
}

/// `RequestMirrorPolicy`.
#[derive(Debug)]
pub struct MirrorPolicy {
    /// Where copies go.
    pub cluster: Arc<str>,
    /// `runtime_fraction`: numerator per million that are copied; `None` is all.
    pub fraction_per_million: Option<u32>,
    /// No `disable_shadow_host_suffix_append`: a copy's host ends in `-shadow`.
    pub marks_host: bool,
}

/// `cluster_specifier`.
#[derive(Debug)]
pub enum ClusterSpecifier {
    /// One.
    Cluster(Arc<str>),
    /// Drawn per request.
    Weighted(WeightedClusters),
    /// Named by a request header.
    ClusterHeader(HeaderName),
}

/// `WeightedCluster`; at least one cluster with a weight above zero.
#[derive(Debug)]
pub struct WeightedClusters {
    /// In order.
    pub clusters: Vec<WeightedCluster>,
    /// Sum of the weights, ≥ 1.
    pub total_weight: u32,
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub name: Arc<str>,
    /// May be 0: never drawn.
    pub weight: u32,
    /// `host_rewrite_literal`.
    pub host_rewrite: Option<String>,
    /// Header operations of this level.
    pub headers: HeaderMutations,
}

/// How the path is rewritten; the query stays.
#[derive(Debug)]
pub enum PathRewrite {
    /// `prefix_rewrite`: the matched prefix (or the whole matched path) is replaced.
    Prefix(String),
    /// `regex_rewrite`: every match is replaced; `substitution` in RE2's `\1` form was translated when validated.
    Regex {
        /// What is looked for.
        pattern: Regex,
        /// In the `regex` crate's `${1}` form.
        substitution: String,
    },
}

/// How the authority is rewritten.
#[derive(Debug)]
pub enum HostRewrite {
    /// `host_rewrite_literal`
    Literal(String),
    /// `auto_host_rewrite`: the endpoint's hostname
    Auto,
    /// `host_rewrite_header`
    Header(HeaderName),
}

/// `RedirectAction`.
#[derive(Debug)]
pub struct RedirectAction {
    /// `https_redirect` or `scheme_redirect`.
    pub scheme: Option<String>,
    /// `host_redirect`.
    pub host: Option<String>,
    /// `port_redirect`.
    pub port: Option<u16>,
    /// How the path changes.
    pub path: Option<RedirectPath>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// `strip_query`.
    pub strip_query: bool,
}

/// How a redirect changes the path.
#[derive(Debug)]
pub enum RedirectPath {
    /// `path_redirect`: replaces path, and query where it has one.
    Full(String),
    /// `prefix_rewrite`.
    Prefix(String),
    /// `regex_rewrite`.
    Regex {
        /// What is looked for.
        pattern: Regex,
        /// In the `regex` crate's `${1}` form.
        substitution: String,
    },
}

/// `DirectResponseAction`.
#[derive(Debug)]
pub struct DirectResponseAction {
    /// 200..=599.
    pub status: StatusCode,
    /// Empty is none.
    pub body: Vec<u8>,
}
