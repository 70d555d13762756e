//! Whether and when a request is tried again: Envoy's `RetryStateImpl`, as a function of the policy and the outcome.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};
use orlop_plan::resource::retry::RetryPolicy;

use super::grpc_status;
use super::head::RequestHead;

const X_ENVOY_RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

/// Why an attempt brought no response: Envoy's `StreamResetReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetReason {
    /// The connection could not be opened, for a reason on this side.
    LocalConnectionFailure,
    /// The host refused the connection or cannot be reached.
    RemoteConnectionFailure,
    /// The host did not answer within the connect timeout.
    ConnectionTimeout,
    /// The connection was closed before the response.
    ConnectionTermination,
    /// The host reset the stream.
    RemoteReset,
    /// The host refused the stream without having looked at it.
    RemoteRefusedStream,
    /// A circuit breaker.
    Overflow,
    /// What the host sent is not a response.
    ProtocolError,
    /// `per_try_timeout`
    PerTryTimeout,
}

impl ResetReason {
    /// As Envoy puts it in the answer's text.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::LocalConnectionFailure => "local connection failure",
            Self::RemoteConnectionFailure => "remote connection failure",
            Self::ConnectionTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RemoteRefusedStream => "remote refused stream reset",
            Self::Overflow => "overflow",
            Self::ProtocolError => "protocol error",
            Self::PerTryTimeout => "local reset",
        }
    }

    fn is_connect_failure(self) -> bool {
        matches!(self, Self::LocalConnectionFailure | Self::RemoteConnectionFailure | Self::ConnectionTimeout)
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// A response's head.
    Response(StatusCode, &'a HeaderMap),
    /// None. `sent` is whether any of the request was sent.
    Reset { reason: ResetReason, sent: bool },
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The outcome stands.
    Accept,
    /// The policy would have it tried again, but the attempts are used up (`URX`).
    LimitExceeded,
    /// Try again.
    Retry,
}

/// Decides on the outcome of attempt number `attempt`, from 1.
pub(crate) fn decide(
    policy: &RetryPolicy,
    request: &RequestHead,
    outcome: Outcome<'_>,
    attempt: u32,
) -> Decision {
    let retriable = match outcome {
        Outcome::Response(status, headers) => is_retriable_response(policy, status, headers),
        Outcome::Reset { reason, sent } => is_retriable_reset(policy, reason, sent),
    };
    if !retriable || !takes_request(policy, request) {
        Decision::Accept
    } else if attempt > policy.num_retries {
        Decision::LimitExceeded
    } else {
        Decision::Retry
    }
}

fn takes_request(policy: &RetryPolicy, request: &RequestHead) -> bool {
    let matchers = &policy.retriable_request_headers;
    matchers.is_empty() || matchers.iter().any(|matcher| matcher.matches(&request.for_routes()))
}

fn is_retriable_response(policy: &RetryPolicy, status: StatusCode, headers: &HeaderMap) -> bool {
    let on = &policy.retry_on;
    if headers.contains_key(X_ENVOY_RATELIMITED) {
        return on.envoy_ratelimited;
    }
    (on.status_5xx && status.is_server_error())
        || (on.gateway_error && (502..=504).contains(&status.as_u16()))
        || (on.retriable_4xx && status == StatusCode::CONFLICT)
        || (on.retriable_status_codes && policy.retriable_status_codes.contains(&status.as_u16()))
        || (on.retriable_headers
            && policy.retriable_headers.iter().any(|matcher| matcher.matches_headers(headers)))
        || is_retriable_grpc_status(policy, headers)
}

/// A gRPC status in the head is a response of trailers only; one in the trailers comes too late for another attempt.
fn is_retriable_grpc_status(policy: &RetryPolicy, headers: &HeaderMap) -> bool {
    let on = &policy.retry_on;
    match grpc_status::of(headers) {
        Some(1) => on.grpc_cancelled,
        Some(4) => on.grpc_deadline_exceeded,
        Some(8) => on.grpc_resource_exhausted,
        Some(13) => on.grpc_internal,
        Some(14) => on.grpc_unavailable,
        _ => false,
    }
}

fn is_retriable_reset(policy: &RetryPolicy, reason: ResetReason, sent: bool) -> bool {
    let on = &policy.retry_on;
    if reason == ResetReason::Overflow {
        return false;
    }
    on.status_5xx
        || on.gateway_error
        || on.reset
        || (on.reset_before_request && !sent)
        || (on.connect_failure && reason.is_connect_failure())
        || (on.refused_stream && reason == ResetReason::RemoteRefusedStream)
}

/// The pause before the attempt after attempt number `attempt`: exponential with full jitter
/// (`JitteredExponentialBackOffStrategy`). `random` is in `0.0..1.0`.
pub(crate) fn back_off(policy: &RetryPolicy, attempt: u32, random: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let longest = policy.base_interval.saturating_mul(1 << doublings).min(policy.max_interval);
    longest.mul_f64(random)
}

#[cfg(test)]
mod tests;
