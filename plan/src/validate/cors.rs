//! `filters.http.cors.v3.CorsPolicy`, of routes and virtual hosts.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy as Proto;
use http::HeaderValue;

use super::at::{At, refuse_set};
use super::matcher::string_matcher;
use super::scalar::per_million;
use crate::resource::cors::CorsPolicy;

pub(super) fn cors_policy(value: Proto, at: &At<'_>) -> Option<CorsPolicy> {
    let Proto {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = value;
    refuse_set!(at; shadow_enabled, allow_private_network_access);
    let allow_origins = at.field("allow_origin_string_match").each(allow_origin_string_match, string_matcher);
    let allow_methods = value_of(allow_methods, &at.field("allow_methods"));
    let allow_headers = value_of(allow_headers, &at.field("allow_headers"));
    let expose_headers = value_of(expose_headers, &at.field("expose_headers"));
    let max_age = value_of(max_age, &at.field("max_age"));
    let enabled = match filter_enabled {
        None => Some(1_000_000),
        Some(enabled) => per_million(&enabled, &at.field("filter_enabled")),
    };
    Some(CorsPolicy {
        allow_origins: allow_origins?,
        allow_methods: allow_methods?,
        allow_headers: allow_headers?,
        expose_headers: expose_headers?,
        max_age: max_age?,
        allow_credentials: allow_credentials.map(|flag| flag.value),
        forward_not_matching_preflights: forward_not_matching_preflights.map(|flag| flag.value),
        enabled_per_million: enabled?,
    })
}

/// `None` inside where nothing is said.
fn value_of(text: String, at: &At<'_>) -> Option<Option<HeaderValue>> {
    if text.is_empty() {
        return Some(None);
    }
    match HeaderValue::try_from(text) {
        Ok(value) => Some(Some(value)),
        Err(_) => at.refuse("cannot be a header's value"),
    }
}
