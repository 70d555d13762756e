//! `ext_authz.v3.ExtAuthz`: a service is asked whether requests may pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::matcher::StringMatcher;

/// `ExtAuthz`.
#[derive(Debug)]
pub struct ExtAuthz {
    /// Whom to ask, and how.
    pub service: Authorizer,
    /// The cluster of its endpoints.
    pub cluster: Arc<str>,
    /// How long it may take.
    pub timeout: Duration,
    /// `failure_mode_allow`: requests pass while it cannot be asked.
    pub failure_mode_allow: bool,
    /// `failure_mode_allow_header_add`: and say so to the endpoint.
    pub failure_mode_allow_header_add: bool,
    /// `clear_route_cache`: a request that the service changes is routed anew.
    pub clear_route_cache: bool,
    /// `status_on_error`: what a client is told otherwise; Envoy's default is 403.
    pub status_on_error: StatusCode,
    /// `with_request_body`
    pub with_request_body: Option<BufferSettings>,
    /// `allowed_headers`: which of a request's headers the service sees; none where the service's kind decides.
    pub allowed_headers: Option<Vec<StringMatcher>>,
    /// `disallowed_headers`: which of them it does not see even so.
    pub disallowed_headers: Vec<StringMatcher>,
    /// `filter_enabled`: how many requests of a million are asked about.
    pub enabled_per_million: u32,
    /// `filter_enabled_metadata`: only requests are asked about for which an RBAC filter before this one has found a policy of
    /// such a name (Istio's action `CUSTOM`).
    pub enabled_by_policy: Option<StringMatcher>,
}

/// `services`.
#[derive(Debug)]
pub enum Authorizer {
    /// `grpc_service`
    Grpc {
        /// `authority`; the cluster's name where none is given.
        authority: String,
        /// `initial_metadata`
        initial_metadata: Vec<(HeaderName, HeaderValue)>,
    },
    /// `http_service`
    Http(HttpService),
}

/// `HttpService`.
#[derive(Debug, Default)]
pub struct HttpService {
    /// `path_prefix`
    pub path_prefix: String,
    /// `authorization_request.headers_to_add`
    pub headers_to_add: Vec<(HeaderName, HeaderValue)>,
    /// `allowed_upstream_headers`: what of an answer that lets a request pass replaces the request's own.
    pub upstream_headers: Vec<StringMatcher>,
    /// `allowed_upstream_headers_to_append`
    pub upstream_headers_to_append: Vec<StringMatcher>,
    /// `allowed_client_headers`: what of an answer that does not the client gets; all where `None`.
    pub client_headers: Option<Vec<StringMatcher>>,
    /// `allowed_client_headers_on_success`: what the client gets beside the response.
    pub client_headers_on_success: Vec<StringMatcher>,
}

/// `BufferSettings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferSettings {
    /// `max_request_bytes`
    pub max_request_bytes: usize,
    /// `allow_partial_message`: more than that is asked about by its beginning.
    pub allow_partial_message: bool,
    /// `pack_as_bytes`
    pub pack_as_bytes: bool,
}

/// `ExtAuthzPerRoute`.
#[derive(Debug)]
pub enum ExtAuthzPerRoute {
    /// `disabled`: requests are not asked about.
    Disabled,
    /// `check_settings`
    CheckSettings(CheckSettings),
}

/// `CheckSettings`.
#[derive(Debug)]
pub struct CheckSettings {
    /// `context_extensions`: what the service is told beside the request.
    pub context_extensions: BTreeMap<String, String>,
    /// Whether it sees the body.
    pub body: RouteBody,
}

/// What a route says of the body that the service sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteBody {
    /// Nothing: as the filter says.
    OfFilter,
    /// `disable_request_body_buffering`
    None,
    /// `with_request_body`
    Own(BufferSettings),
}
