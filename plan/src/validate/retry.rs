//! `route.v3.RetryPolicy`.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::RetryPolicy as Proto;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use prost::Name;

use super::at::{At, no_effect, refuse_set};
use super::decode::Extension;
use super::header::header_matcher;
use super::scalar::{duration, timeout};
use crate::resource::retry::{RetryOn, RetryPolicy};

const DEFAULT_BASE_INTERVAL: Duration = Duration::from_millis(25);

pub(super) fn retry_policy(value: Proto, at: &At<'_>) -> Option<RetryPolicy> {
    let Proto {
        retry_on: conditions,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = value;
    refuse_set!(
        at; per_try_idle_timeout, retry_options_predicates, rate_limited_retry_back_off, refresh_cluster_on_retry
    );
    let retry_on = retry_on(&conditions, &at.field("retry_on"));
    let per_try_timeout = timeout(per_try_timeout, None, &at.field("per_try_timeout"));
    let avoid_previous_priorities =
        retry_priority.map_or(Some(false), |value| previous_priorities(value, &at.field("retry_priority")));
    let avoid_previous_hosts = !retry_host_predicate.is_empty();
    let predicates = at.field("retry_host_predicate").each(retry_host_predicate, previous_hosts);
    let host_selection_attempts = match host_selection_retry_max_attempts {
        0 => Some(1),
        attempts => u32::try_from(attempts)
            .ok()
            .or_else(|| at.field("host_selection_retry_max_attempts").refuse("is out of range")),
    };
    let status_codes = at.field("retriable_status_codes").each(retriable_status_codes, |code, at| {
        u16::try_from(code).ok().or_else(|| at.refuse("is not a status code"))
    });
    let intervals = back_off(retry_back_off, &at.field("retry_back_off"));
    let retriable_headers = at.field("retriable_headers").each(retriable_headers, header_matcher);
    let request_headers =
        at.field("retriable_request_headers").each(retriable_request_headers, header_matcher);
    predicates?;
    let (base_interval, max_interval) = intervals?;
    Some(RetryPolicy {
        retry_on: retry_on?,
        num_retries: num_retries.map_or(1, |retries| retries.value),
        per_try_timeout: per_try_timeout?,
        base_interval,
        max_interval,
        retriable_status_codes: status_codes?,
        retriable_headers: retriable_headers?,
        retriable_request_headers: request_headers?,
        avoid_previous_hosts,
        host_selection_attempts: host_selection_attempts?,
        avoid_previous_priorities: avoid_previous_priorities?,
    })
}

fn retry_on(conditions: &str, at: &At<'_>) -> Option<RetryOn> {
    let mut on = RetryOn::default();
    for condition in conditions.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        let flag = match condition {
            "5xx" => &mut on.status_5xx,
            "gateway-error" => &mut on.gateway_error,
            "reset" => &mut on.reset,
            "reset-before-request" => &mut on.reset_before_request,
            "connect-failure" => &mut on.connect_failure,
            "envoy-ratelimited" => &mut on.envoy_ratelimited,
            "retriable-4xx" => &mut on.retriable_4xx,
            "refused-stream" => &mut on.refused_stream,
            "retriable-status-codes" => &mut on.retriable_status_codes,
            "retriable-headers" => &mut on.retriable_headers,
            "http3-post-connect-failure" => &mut on.http3_post_connect_failure,
            "cancelled" => &mut on.grpc_cancelled,
            "deadline-exceeded" => &mut on.grpc_deadline_exceeded,
            "internal" => &mut on.grpc_internal,
            "resource-exhausted" => &mut on.grpc_resource_exhausted,
            "unavailable" => &mut on.grpc_unavailable,
            other => return at.refuse(format!("the condition {other:?} is not supported")),
        };
        *flag = true;
    }
    Some(on)
}

fn back_off(value: Option<RetryBackOff>, at: &At<'_>) -> Option<(Duration, Duration)> {
    let Some(RetryBackOff { base_interval, max_interval }) = value else {
        return Some((DEFAULT_BASE_INTERVAL, DEFAULT_BASE_INTERVAL * 10));
    };
    let at_base = at.field("base_interval");
    let base = duration(at_base.required(base_interval)?, &at_base)?;
    if base.is_zero() {
        return at_base.refuse("must be above 0");
    }
    let max = match max_interval {
        None => base * 10,
        Some(max) => duration(max, &at.field("max_interval"))?,
    };
    if max < base {
        return at.field("max_interval").refuse("is below base_interval");
    }
    Some((base, max))
}

fn previous_hosts(value: RetryHostPredicate, at: &At<'_>) -> Option<()> {
    let RetryHostPredicate { name, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    match config_type {
        // By name alone, as older control planes write it.
        None if name == "envoy.retry_host_predicates.previous_hosts" => Some(()),
        Some(retry_host_predicate::ConfigType::TypedConfig(any)) => {
            let at = at.field("typed_config");
            let extension = Extension::open(any, &at)?;
            if extension.type_name() == PreviousHostsPredicate::full_name() {
                let PreviousHostsPredicate {} = extension.message(&at)?;
                return Some(());
            }
            extension.refuse("retry host predicate", &name, &at)
        }
        None => at.refuse(format!("retry host predicate {name:?} is not supported")),
    }
}

fn previous_priorities(value: RetryPriority, at: &At<'_>) -> Option<bool> {
    let RetryPriority { name, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    let Some(retry_priority::ConfigType::TypedConfig(any)) = config_type else {
        return at.refuse(format!("retry priority {name:?} is not supported"));
    };
    let at = at.field("typed_config");
    let extension = Extension::open(any, &at)?;
    if extension.type_name() != PreviousPrioritiesConfig::full_name() {
        return extension.refuse("retry priority", &name, &at);
    }
    let PreviousPrioritiesConfig { update_frequency } = extension.message(&at)?;
    no_effect!(at; "says how often Envoy computes priorities anew"; update_frequency);
    if update_frequency > 1 {
        return at.field("update_frequency").unsupported("above 1 is not supported");
    }
    at.not_yet("the priorities that were tried are not avoided");
    Some(true)
}
