//! `filters.http.fault.v3.HTTPFault`, of a connection manager and of routes.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3::FaultDelay as ProtoDelay;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{
    FaultAbort as ProtoAbort, HttpFault as Proto,
};
use http::StatusCode;

use super::at::{At, no_effect, refuse_set};
use super::header::header_matcher;
use super::scalar::{fraction, optional_duration};
use crate::resource::fault::{AbortStatus, Fault, FaultAbort, FaultDelay};

pub(super) fn fault(value: Proto, at: &At<'_>) -> Option<Fault> {
    let Proto {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = value;
    no_effect!(at; "feeds statistics alone"; disable_downstream_cluster_stats);
    refuse_set!(
        at; upstream_cluster, downstream_nodes, max_active_faults, response_rate_limit, delay_percent_runtime,
        abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime, max_active_faults_runtime,
        response_rate_limit_percent_runtime, abort_grpc_status_runtime, filter_metadata
    );
    let headers = at.field("headers").each(headers, header_matcher);
    let delay = delay.map_or(Some(None), |value| fault_delay(value, &at.field("delay")));
    let abort = abort.map_or(Some(None), |value| fault_abort(value, &at.field("abort")).map(Some));
    Some(Fault { headers: headers?, delay: delay?, abort: abort? })
}

/// `None` inside where it takes no time.
fn fault_delay(value: ProtoDelay, at: &At<'_>) -> Option<Option<FaultDelay>> {
    let ProtoDelay { percentage, fault_delay_secifier } = value;
    let per_million = fraction(percentage.unwrap_or_default(), &at.field("percentage"));
    let duration = match at.required(fault_delay_secifier)? {
        FaultDelaySecifier::FixedDelay(delay) => optional_duration(Some(delay), &at.field("fixed_delay"))?,
        FaultDelaySecifier::HeaderDelay(_) => {
            return at.field("header_delay").unsupported("is not supported");
        }
    };
    let per_million = per_million?;
    Some(duration.filter(|delay| !delay.is_zero()).map(|duration| FaultDelay { duration, per_million }))
}

fn fault_abort(value: ProtoAbort, at: &At<'_>) -> Option<FaultAbort> {
    let ProtoAbort { percentage, response_body, error_type } = value;
    refuse_set!(at; response_body);
    let per_million = fraction(percentage.unwrap_or_default(), &at.field("percentage"));
    let status = match at.required(error_type)? {
        ErrorType::HttpStatus(status) => u16::try_from(status)
            .ok()
            .filter(|status| (200..600).contains(status))
            .and_then(|status| StatusCode::from_u16(status).ok())
            .map(AbortStatus::Http)
            .or_else(|| at.field("http_status").refuse(format!("{status} is not in 200..=599"))),
        ErrorType::GrpcStatus(status) => Some(AbortStatus::Grpc(status)),
        ErrorType::HeaderAbort(_) => at.field("header_abort").unsupported("is not supported"),
    };
    Some(FaultAbort { status: status?, per_million: per_million? })
}
