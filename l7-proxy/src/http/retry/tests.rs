//! The table of Envoy's retry conditions, and the pauses between attempts.

use http::HeaderValue;
use orlop_plan::resource::retry::RetryOn;

use super::*;

fn policy(retry_on: RetryOn) -> RetryPolicy {
    RetryPolicy {
        retry_on,
        num_retries: 2,
        per_try_timeout: None,
        base_interval: Duration::from_millis(25),
        max_interval: Duration::from_millis(250),
        retriable_status_codes: vec![503],
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        avoid_previous_hosts: false,
        host_selection_attempts: 1,
        avoid_previous_priorities: false,
    }
}

/// Istio's default conditions.
fn istio() -> RetryOn {
    RetryOn {
        connect_failure: true,
        refused_stream: true,
        grpc_unavailable: true,
        grpc_cancelled: true,
        retriable_status_codes: true,
        ..RetryOn::default()
    }
}

fn on_reset(retry_on: RetryOn, reason: ResetReason, sent: bool) -> bool {
    let outcome = Outcome::Reset { reason, sent };
    decide(&policy(retry_on), &RequestHead::default(), outcome, 1) == Decision::Retry
}

fn on_status(retry_on: RetryOn, status: u16) -> bool {
    let outcome = Outcome::Response(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
    decide(&policy(retry_on), &RequestHead::default(), outcome, 1) == Decision::Retry
}

fn on_grpc_status(retry_on: RetryOn, status: &'static str) -> bool {
    let headers =
        [(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))].into_iter().collect();
    let outcome = Outcome::Response(StatusCode::OK, &headers);
    decide(&policy(retry_on), &RequestHead::default(), outcome, 1) == Decision::Retry
}

#[test]
fn istios_default_retries_what_surely_was_not_served() {
    for reason in [
        ResetReason::LocalConnectionFailure,
        ResetReason::RemoteConnectionFailure,
        ResetReason::ConnectionTimeout,
        ResetReason::RemoteRefusedStream,
    ] {
        assert!(on_reset(istio(), reason, false), "{reason:?}");
    }
    assert!(on_status(istio(), 503));
    assert!(on_grpc_status(istio(), "14") && on_grpc_status(istio(), "1"));
}

#[test]
fn istios_default_does_not_retry_what_may_have_been_served() {
    for reason in [
        ResetReason::ConnectionTermination,
        ResetReason::RemoteReset,
        ResetReason::ProtocolError,
        ResetReason::PerTryTimeout,
    ] {
        assert!(!on_reset(istio(), reason, true), "{reason:?}");
    }
    assert!(!on_status(istio(), 500) && !on_status(istio(), 200) && !on_status(istio(), 404));
    assert!(!on_grpc_status(istio(), "0") && !on_grpc_status(istio(), "13"));
}

#[test]
fn status_classes() {
    let on_5xx = RetryOn { status_5xx: true, ..RetryOn::default() };
    assert!(on_status(on_5xx, 500) && on_status(on_5xx, 599) && !on_status(on_5xx, 499));
    let on_gateway = RetryOn { gateway_error: true, ..RetryOn::default() };
    assert!(on_status(on_gateway, 502) && on_status(on_gateway, 504) && !on_status(on_gateway, 500));
    let on_4xx = RetryOn { retriable_4xx: true, ..RetryOn::default() };
    assert!(on_status(on_4xx, 409) && !on_status(on_4xx, 404));
}

#[test]
fn any_reset_counts_for_5xx_gateway_error_and_reset() {
    for retry_on in [
        RetryOn { status_5xx: true, ..RetryOn::default() },
        RetryOn { gateway_error: true, ..RetryOn::default() },
        RetryOn { reset: true, ..RetryOn::default() },
    ] {
        assert!(on_reset(retry_on, ResetReason::ConnectionTermination, true));
        assert!(on_reset(retry_on, ResetReason::PerTryTimeout, true));
        assert!(!on_reset(retry_on, ResetReason::Overflow, false), "a circuit breaker is not retried");
    }
}

#[test]
fn reset_before_request_means_that_nothing_was_sent() {
    let retry_on = RetryOn { reset_before_request: true, ..RetryOn::default() };
    assert!(on_reset(retry_on, ResetReason::ConnectionTermination, false));
    assert!(!on_reset(retry_on, ResetReason::ConnectionTermination, true));
}

#[test]
fn a_rate_limited_response_is_retried_only_where_asked_for() {
    let headers = [(X_ENVOY_RATELIMITED, HeaderValue::from_static("true"))].into_iter().collect();
    let decision = |retry_on| {
        let outcome = Outcome::Response(StatusCode::SERVICE_UNAVAILABLE, &headers);
        decide(&policy(retry_on), &RequestHead::default(), outcome, 1)
    };
    assert_eq!(decision(istio()), Decision::Accept);
    assert_eq!(decision(RetryOn { envoy_ratelimited: true, ..RetryOn::default() }), Decision::Retry);
}

#[test]
fn after_the_last_attempt_the_outcome_stands() {
    let outcome = Outcome::Reset { reason: ResetReason::RemoteConnectionFailure, sent: false };
    let decision = |attempt| decide(&policy(istio()), &RequestHead::default(), outcome, attempt);
    assert_eq!(decision(2), Decision::Retry);
    assert_eq!(decision(3), Decision::LimitExceeded);
}

#[test]
fn pauses_double_up_to_the_longest() {
    let policy = policy(istio());
    let longest = |attempt| back_off(&policy, attempt, 1.0).as_millis();
    assert_eq!([1, 2, 3, 4, 5, 60].map(longest), [25, 50, 100, 200, 250, 250]);
    assert_eq!(back_off(&policy, 3, 0.0), Duration::ZERO);
}
