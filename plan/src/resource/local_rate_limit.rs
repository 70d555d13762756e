//! `envoy.filters.http.local_ratelimit`: how many requests are let through, counted by the proxy itself.

use std::time::Duration;

use http::StatusCode;

use super::header::HeaderMutations;

/// `LocalRateLimit`, of a connection manager or of a route.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// `stat_prefix`
    pub stat_prefix: String,
    /// `status`: what whoever is too many is told; Envoy's default is 429.
    pub status: StatusCode,
    /// `token_bucket`; `None` limits nothing.
    pub token_bucket: Option<TokenBucket>,
    /// `filter_enabled`: for how many requests of a million the bucket is asked; Envoy's default is none.
    pub enabled_per_million: u32,
    /// `filter_enforced`: how many of a million that are too many are stopped; Envoy's default is none.
    pub enforced_per_million: u32,
    /// `request_headers_to_add_when_not_enforced`, and `response_headers_to_add` for the answers to those that are stopped.
    pub headers: HeaderMutations,
    /// `enable_x_ratelimit_headers`
    pub tells_limits: bool,
    /// `enable_retry_after_header`
    pub tells_when_to_retry: bool,
    /// `rate_limited_as_resource_exhausted`: so a gRPC client is told; otherwise that the service is unavailable.
    pub is_resource_exhausted: bool,
}

impl LocalRateLimit {
    /// Whether it may stop or change anything.
    pub fn is_of_use(&self) -> bool {
        self.token_bucket.is_some() && self.enabled_per_million > 0
    }
}

/// `TokenBucket`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// `max_tokens`, at least 1: also what it begins with.
    pub max_tokens: u32,
    /// `tokens_per_fill`, at least 1.
    pub tokens_per_fill: u32,
    /// `fill_interval`, at least 50 ms.
    pub fill_interval: Duration,
}
