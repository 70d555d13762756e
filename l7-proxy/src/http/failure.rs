//! What a client is told of a request that could not be forwarded: Envoy's statuses, texts and flags.

use http::header::HeaderName;
use http::{HeaderValue, StatusCode};

use super::attempt::Failure;
use super::deadlines::Expired;
use super::local_reply::LocalReply;
use super::retry::ResetReason;
use crate::stats::{Refusal, ResponseFlag};

const X_ENVOY_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// No host may be used.
pub(crate) fn no_healthy_upstream() -> (LocalReply, ResponseFlag) {
    let reply =
        LocalReply::text(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_upstream", "no healthy upstream");
    (reply, ResponseFlag::NoHealthyUpstream)
}

/// Serving it would have been wrong. `number` is the attempt's.
pub(crate) fn refused(refusal: Refusal, number: u32) -> (LocalReply, ResponseFlag) {
    let text = format!("{}local connection failure, transport failure reason: {refusal}", reset_text(number));
    let details = before_response(&format!("local_connection_failure|{refusal}"));
    let reply = LocalReply::text(StatusCode::SERVICE_UNAVAILABLE, details, text);
    (reply, ResponseFlag::UpstreamConnectionFailure)
}

/// The route asks for what the proxy does not do.
pub(crate) fn unsupported_route() -> (LocalReply, ResponseFlag) {
    let text = Refusal::UnsupportedRoute.to_string();
    let reply = LocalReply::text(StatusCode::SERVICE_UNAVAILABLE, before_response(&text), text);
    (reply, ResponseFlag::UpstreamConnectionFailure)
}

/// The last attempt, number `number`, brought no response; `transport_failure` says why there was no connection, if so.
pub(crate) fn no_response(
    failure: Failure,
    number: u32,
    transport_failure: &str,
) -> (LocalReply, ResponseFlag) {
    let reason = match failure {
        Failure::Expired(Expired::Idle) => {
            let reply =
                LocalReply::text(StatusCode::GATEWAY_TIMEOUT, "stream_idle_timeout", "stream timeout");
            return (reply, ResponseFlag::StreamIdleTimeout);
        }
        Failure::Expired(Expired::Stream) => {
            let reply = LocalReply::text(
                StatusCode::GATEWAY_TIMEOUT,
                "max_duration_timeout",
                "downstream duration timeout",
            );
            return (reply, ResponseFlag::DurationTimeout);
        }
        Failure::Expired(Expired::Route | Expired::Attempt) => return timed_out("response_timeout"),
        Failure::Reset { reason: ResetReason::PerTryTimeout, .. } => {
            return timed_out("upstream_per_try_timeout");
        }
        Failure::Request(error) => {
            let reply =
                LocalReply::text(StatusCode::BAD_REQUEST, "http1.codec_error", "Bad Request").closing();
            return (reply, error.flag());
        }
        Failure::Reset { reason, .. } => reason,
    };
    let (status, flag) = match reason {
        ResetReason::LocalConnectionFailure
        | ResetReason::RemoteConnectionFailure
        | ResetReason::ConnectionTimeout => {
            (StatusCode::SERVICE_UNAVAILABLE, ResponseFlag::UpstreamConnectionFailure)
        }
        ResetReason::ConnectionTermination => {
            (StatusCode::SERVICE_UNAVAILABLE, ResponseFlag::UpstreamConnectionTermination)
        }
        ResetReason::RemoteReset | ResetReason::RemoteRefusedStream => {
            (StatusCode::SERVICE_UNAVAILABLE, ResponseFlag::UpstreamRemoteReset)
        }
        ResetReason::Overflow => (StatusCode::SERVICE_UNAVAILABLE, ResponseFlag::UpstreamOverflow),
        ResetReason::ProtocolError => (StatusCode::BAD_GATEWAY, ResponseFlag::UpstreamProtocolError),
        ResetReason::PerTryTimeout => (StatusCode::GATEWAY_TIMEOUT, ResponseFlag::UpstreamRequestTimeout),
    };
    let text = format!("{}{}", reset_text(number), reason.as_str());
    let mut details = reason.as_str().to_owned();
    if !transport_failure.is_empty() {
        details = format!("{details}|{transport_failure}");
    }
    let mut reply = LocalReply::text(status, before_response(&details), text);
    if reason == ResetReason::Overflow {
        reply.headers.insert(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"));
    }
    (reply, flag)
}

fn timed_out(details: &'static str) -> (LocalReply, ResponseFlag) {
    let reply = LocalReply::text(StatusCode::GATEWAY_TIMEOUT, details, "upstream request timeout");
    (reply, ResponseFlag::UpstreamRequestTimeout)
}

/// The details of a request that was reset before a response began.
fn before_response(reason: &str) -> String {
    format!("upstream_reset_before_response_started{{{}}}", reason.replace(' ', "_"))
}

fn reset_text(number: u32) -> &'static str {
    if number > 1 {
        "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: "
    } else {
        "upstream connect error or disconnect/reset before headers. reset reason: "
    }
}
