//! `route.v3.RetryPolicy`, as data.

use std::time::Duration;

use super::header::HeaderMatcher;

/// When a request is tried again, how often and after what pause. `retry::decide` in the proxy applies it.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Conditions of `retry_on`.
    pub retry_on: RetryOn,
    /// `num_retries`; Envoy's default is 1.
    pub num_retries: u32,
    /// `per_try_timeout`; `None` is the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// `retry_back_off.base_interval`; Envoy's default is 25 ms.
    pub base_interval: Duration,
    /// `retry_back_off.max_interval`; Envoy's default is 10 × base.
    pub max_interval: Duration,
    /// `retriable_status_codes`, for [`RetryOn::retriable_status_codes`].
    pub retriable_status_codes: Vec<u16>,
    /// `retriable_headers`: response headers that make a response retriable.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// `retriable_request_headers`: only requests that match one are retried; empty is all.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// `retry_host_predicate: previous_hosts`: another attempt avoids hosts already tried.
    pub avoid_previous_hosts: bool,
    /// `host_selection_retry_max_attempts`; Envoy's default is 1.
    pub host_selection_attempts: u32,
    /// `retry_priority: previous_priorities`.
    pub avoid_previous_priorities: bool,
}

/// The conditions of `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent condition, named as Envoy names it"
)]
pub struct RetryOn {
    /// `5xx`
    pub status_5xx: bool,
    /// `gateway-error`: 502, 503, 504
    pub gateway_error: bool,
    /// `reset`
    pub reset: bool,
    /// `reset-before-request`
    pub reset_before_request: bool,
    /// `connect-failure`
    pub connect_failure: bool,
    /// `envoy-ratelimited`
    pub envoy_ratelimited: bool,
    /// `retriable-4xx`: 409
    pub retriable_4xx: bool,
    /// `refused-stream`
    pub refused_stream: bool,
    /// `retriable-status-codes`
    pub retriable_status_codes: bool,
    /// `retriable-headers`
    pub retriable_headers: bool,
    /// `http3-post-connect-failure`: never happens here
    pub http3_post_connect_failure: bool,
    /// gRPC `cancelled`
    pub grpc_cancelled: bool,
    /// gRPC `deadline-exceeded`
    pub grpc_deadline_exceeded: bool,
    /// gRPC `internal`
    pub grpc_internal: bool,
    /// gRPC `resource-exhausted`
    pub grpc_resource_exhausted: bool,
    /// gRPC `unavailable`
    pub grpc_unavailable: bool,
}
