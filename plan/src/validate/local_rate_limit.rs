//! `local_ratelimit.v3.LocalRateLimit`, of a connection manager and of routes.

use std::time::Duration;

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::XRateLimitHeadersRfcVersion;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit as Proto;
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, TokenBucket as ProtoBucket};
use http::StatusCode;

use super::at::{At, no_effect, refuse_set};
use super::header::Mutations;
use super::scalar::{duration, per_million};
use crate::resource::local_rate_limit::{LocalRateLimit, TokenBucket};

/// Envoy fills no bucket more often.
const SHORTEST_FILL_INTERVAL: Duration = Duration::from_millis(50);

pub(super) fn local_rate_limit(value: Proto, at: &At<'_>) -> Option<LocalRateLimit> {
    let Proto {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = value;
    no_effect!(
        at; "is of descriptors, which are refused"; stage, vh_rate_limits, always_consume_default_token_bucket,
        max_dynamic_descriptors
    );
    refuse_set!(
        at; descriptors, rate_limits, local_rate_limit_per_downstream_connection, local_cluster_rate_limit
    );
    if stat_prefix.is_empty() {
        let _: Option<()> = at.field("stat_prefix").refuse("is empty");
    }
    let status = match status {
        None => Some(StatusCode::TOO_MANY_REQUESTS),
        Some(HttpStatus { code }) => limited_status(code, &at.field("status").field("code")),
    };
    let token_bucket = match token_bucket {
        None => Some(None),
        Some(value) => bucket(&value, &at.field("token_bucket")).map(Some),
    };
    let enabled = filter_enabled.map_or(Some(0), |value| per_million(&value, &at.field("filter_enabled")));
    let enforced = filter_enforced.map_or(Some(0), |value| per_million(&value, &at.field("filter_enforced")));
    let headers = Mutations {
        request_headers_to_add: request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        ..Mutations::default()
    };
    let headers = headers.convert_as("request_headers_to_add_when_not_enforced", at);
    let at_told = at.field("enable_x_ratelimit_headers");
    let tells_limits = match XRateLimitHeadersRfcVersion::try_from(enable_x_ratelimit_headers) {
        Ok(XRateLimitHeadersRfcVersion::Off) => Some(false),
        Ok(XRateLimitHeadersRfcVersion::DraftVersion03) => Some(true),
        Err(_) => at_told.refuse("is unknown"),
    };
    Some(LocalRateLimit {
        stat_prefix,
        status: status?,
        token_bucket: token_bucket?,
        enabled_per_million: enabled?,
        enforced_per_million: enforced?,
        headers: headers?,
        tells_limits: tells_limits?,
        tells_when_to_retry: enable_retry_after_header,
        is_resource_exhausted: rate_limited_as_resource_exhausted,
    })
}

/// Envoy has no client that is too many told that all is well.
fn limited_status(code: i32, at: &At<'_>) -> Option<StatusCode> {
    match u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok()) {
        Some(status) if status.as_u16() >= 400 => Some(status),
        Some(_) => Some(StatusCode::TOO_MANY_REQUESTS),
        None if code == 0 => Some(StatusCode::TOO_MANY_REQUESTS),
        None => at.refuse(format!("{code} is not a status")),
    }
}

fn bucket(value: &ProtoBucket, at: &At<'_>) -> Option<TokenBucket> {
    let ProtoBucket { max_tokens, tokens_per_fill, fill_interval } = *value;
    let tokens_per_fill = tokens_per_fill.map_or(1, |tokens| tokens.value);
    if max_tokens == 0 {
        return at.field("max_tokens").refuse("must be at least 1");
    }
    if tokens_per_fill == 0 {
        return at.field("tokens_per_fill").refuse("must be at least 1");
    }
    let at = at.field("fill_interval");
    let fill_interval = duration(at.required(fill_interval)?, &at)?;
    if fill_interval < SHORTEST_FILL_INTERVAL {
        return at.refuse("must be at least 50ms");
    }
    Some(TokenBucket { max_tokens, tokens_per_fill, fill_interval })
}
