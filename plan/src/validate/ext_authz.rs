//! `ext_authz.v3.ExtAuthz`.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{ApiVersion, GrpcService, HttpUri, http_uri};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::ext_authz_per_route::Override;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings as ProtoBuffer, CheckSettings as CheckProto,
    ExtAuthz as Proto, ExtAuthzPerRoute as ProtoPerRoute, HttpService as ProtoHttp,
};
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkProto;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher, ValueMatcher};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use http::StatusCode;

use super::at::{At, no_effect, refuse_set};
use super::grpc_service::{Called, grpc_service, header_to_add, named};
use super::matcher::string_matcher;
use super::scalar::{per_million, timeout};
use crate::resource::ext_authz::{
    Authorizer, BufferSettings, CheckSettings, ExtAuthz, ExtAuthzPerRoute, HttpService, RouteBody,
};
use crate::resource::matcher::StringMatcher;

/// Envoy's for both kinds of service where none is given.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);
/// Where the RBAC filter leaves the policy that matched, in Istio's words.
const HTTP_RBAC: &str = "envoy.filters.http.rbac";
const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
const EFFECTIVE_POLICY: &str = "istio_ext_authz_shadow_effective_policy_id";

pub(super) fn ext_authz(value: Proto, at: &At<'_>) -> Option<ExtAuthz> {
    let Proto {
        transport_api_version,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix,
        bootstrap_metadata_labels_key,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        charge_cluster_response_stats,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata,
        emit_filter_state_stats,
        max_denied_response_body_bytes,
        enforce_response_header_limits,
        shadow_mode,
        emit_client_span,
        services,
    } = value;
    no_effect!(at; "feeds statistics alone"; stat_prefix, charge_cluster_response_stats, emit_filter_state_stats);
    no_effect!(at; "is of traces, and none are made"; emit_client_span);
    no_effect!(at; "is done in any case"; validate_mutations);
    refuse_set!(
        at; metadata_context_namespaces, typed_metadata_context_namespaces, route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces, deny_at_disable, include_peer_certificate,
        bootstrap_metadata_labels_key, include_tls_session, encode_raw_headers,
        decoder_header_mutation_rules, enable_dynamic_metadata_ingestion, filter_metadata,
        max_denied_response_body_bytes, enforce_response_header_limits, shadow_mode
    );
    let at_version = at.field("transport_api_version");
    match ApiVersion::try_from(transport_api_version) {
        Ok(ApiVersion::Auto | ApiVersion::V3) => at_version.no_effect("can only be v3"),
        Ok(ApiVersion::V2) | Err(_) => at_version.refuse("can only be v3")?,
    }
    let status_on_error = status(status_on_error, &at.field("status_on_error"));
    let with_request_body = match with_request_body {
        None => Some(None),
        Some(value) => buffer(value, &at.field("with_request_body")).map(Some),
    };
    let allowed_headers = optional_matchers(allowed_headers, &at.field("allowed_headers"));
    let disallowed_headers = matchers(disallowed_headers, &at.field("disallowed_headers"));
    let enabled_per_million = match filter_enabled {
        None => Some(1_000_000),
        Some(value) => per_million(&value, &at.field("filter_enabled")),
    };
    let enabled_by_policy = match filter_enabled_metadata {
        None => Some(None),
        Some(matcher) => by_policy(matcher, HTTP_RBAC, &at.field("filter_enabled_metadata")).map(Some),
    };
    let (service, cluster, timeout) = match at.field("services").required(services)? {
        Services::GrpcService(value) => grpc(value, &at.field("grpc_service")),
        Services::HttpService(value) => http(value, &at.field("http_service")),
    }?;
    Some(ExtAuthz {
        service,
        cluster: cluster.into(),
        timeout,
        failure_mode_allow,
        failure_mode_allow_header_add,
        clear_route_cache,
        status_on_error: status_on_error?,
        with_request_body: with_request_body?,
        allowed_headers: allowed_headers?,
        disallowed_headers: disallowed_headers?,
        enabled_per_million: enabled_per_million?,
        enabled_by_policy: enabled_by_policy?,
    })
}

pub(super) fn ext_authz_per_route(value: ProtoPerRoute, at: &At<'_>) -> Option<ExtAuthzPerRoute> {
    let settings = match at.required(value.r#override)? {
        Override::Disabled(true) => return Some(ExtAuthzPerRoute::Disabled),
        Override::Disabled(false) => return at.field("disabled").refuse("can only be true"),
        Override::CheckSettings(settings) => settings,
    };
    let CheckProto {
        context_extensions,
        disable_request_body_buffering,
        with_request_body,
        emit_client_span,
        service_override,
    } = settings;
    let at = at.field("check_settings");
    no_effect!(at; "is of traces, and none are made"; emit_client_span);
    refuse_set!(at; service_override);
    let body = match (with_request_body, disable_request_body_buffering) {
        (None, false) => RouteBody::OfFilter,
        (None, true) => RouteBody::None,
        (Some(value), false) => RouteBody::Own(buffer(value, &at.field("with_request_body"))?),
        (Some(_), true) => {
            return at.field("with_request_body").refuse("stands beside disable_request_body_buffering");
        }
    };
    let context_extensions = context_extensions.into_iter().collect();
    Some(ExtAuthzPerRoute::CheckSettings(CheckSettings { context_extensions, body }))
}

/// Nobody is asked about connections. The RBAC filter in front of this one, by which Istio says which it would be asked about,
/// refuses them.
pub(super) fn network_ext_authz(value: NetworkProto, at: &At<'_>) -> Option<()> {
    let NetworkProto {
        stat_prefix,
        grpc_service,
        failure_mode_allow,
        include_peer_certificate,
        transport_api_version,
        filter_enabled_metadata,
        bootstrap_metadata_labels_key,
        include_tls_session,
        send_tls_alert_on_denial,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        shadow_mode,
    } = value;
    no_effect!(at; "feeds statistics alone"; stat_prefix);
    no_effect!(
        at; "is of an authorizer that is not asked"; grpc_service, failure_mode_allow, include_peer_certificate,
        transport_api_version, bootstrap_metadata_labels_key, include_tls_session, send_tls_alert_on_denial,
        metadata_context_namespaces, typed_metadata_context_namespaces
    );
    refuse_set!(at; shadow_mode);
    at.not_yet("no authorizer is asked about connections: those that its policies match are refused");
    let at = at.field("filter_enabled_metadata");
    by_policy(at.required(filter_enabled_metadata)?, NETWORK_RBAC, &at).map(drop)
}

fn status(value: Option<HttpStatus>, at: &At<'_>) -> Option<StatusCode> {
    let Some(HttpStatus { code }) = value else { return Some(StatusCode::FORBIDDEN) };
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    status.or_else(|| at.field("code").refuse(format!("{code} is not a status")))
}

fn buffer(value: ProtoBuffer, at: &At<'_>) -> Option<BufferSettings> {
    let ProtoBuffer { max_request_bytes, allow_partial_message, pack_as_bytes } = value;
    if max_request_bytes == 0 {
        return at.field("max_request_bytes").refuse("must be at least 1");
    }
    let max_request_bytes = usize::try_from(max_request_bytes).ok()?;
    Some(BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes })
}

fn matchers(value: Option<ListStringMatcher>, at: &At<'_>) -> Option<Vec<StringMatcher>> {
    optional_matchers(value, at).map(Option::unwrap_or_default)
}

fn optional_matchers(value: Option<ListStringMatcher>, at: &At<'_>) -> Option<Option<Vec<StringMatcher>>> {
    let Some(ListStringMatcher { patterns }) = value else { return Some(None) };
    at.field("patterns").each(patterns, string_matcher).map(Some)
}

/// The name of the policy that Istio's RBAC filter in front leaves. Nothing else leaves what could be asked for.
fn by_policy(value: MetadataMatcher, rbac: &str, at: &At<'_>) -> Option<StringMatcher> {
    let MetadataMatcher { filter, path, value, invert } = value;
    refuse_set!(at; invert);
    if filter != rbac {
        return at.field("filter").unsupported(format!("is supported for {rbac} alone"));
    }
    let is_policy = |segment: &PathSegment| matches!(&segment.segment, Some(path_segment::Segment::Key(key)) if key == EFFECTIVE_POLICY);
    if path.len() != 1 || !path.iter().all(is_policy) {
        return at.field("path").unsupported(format!("is supported for {EFFECTIVE_POLICY} alone"));
    }
    let at = at.field("value");
    let ValueMatcher { match_pattern } = at.required(value)?;
    match at.required(match_pattern)? {
        MatchPattern::StringMatch(matcher) => string_matcher(matcher, &at.field("string_match")),
        _ => at.unsupported("is supported as a string_match alone"),
    }
}

fn grpc(value: GrpcService, at: &At<'_>) -> Option<(Authorizer, String, Duration)> {
    let Called { cluster, authority, initial_metadata, timeout } = grpc_service(value, limit_of, at)?;
    Some((Authorizer::Grpc { authority, initial_metadata }, cluster, timeout))
}

fn http(value: ProtoHttp, at: &At<'_>) -> Option<(Authorizer, String, Duration)> {
    let ProtoHttp {
        server_uri,
        path_prefix,
        path_override,
        authorization_request,
        authorization_response,
        retry_policy,
    } = value;
    refuse_set!(at; path_override, retry_policy);
    let at_uri = at.field("server_uri");
    let HttpUri { uri, timeout: limit, http_upstream_type } = at_uri.required(server_uri)?;
    no_effect!(at_uri; "is of services without a cluster"; uri);
    let limit = limit_of(limit, &at_uri);
    let http_uri::HttpUpstreamType::Cluster(cluster) =
        at_uri.field("http_upstream_type").required(http_upstream_type)?;
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        return at.field("path_prefix").refuse("does not begin with /");
    }
    let at_request = at.field("authorization_request");
    let AuthorizationRequest { allowed_headers, headers_to_add } = authorization_request.unwrap_or_default();
    refuse_set!(at_request; allowed_headers);
    let headers_to_add = at_request.field("headers_to_add").each(headers_to_add, header_to_add);
    let at_response = at.field("authorization_response");
    let AuthorizationResponse {
        allowed_upstream_headers,
        allowed_upstream_headers_to_append,
        allowed_client_headers,
        allowed_client_headers_on_success,
        dynamic_metadata_from_headers,
    } = authorization_response.unwrap_or_default();
    refuse_set!(at_response; dynamic_metadata_from_headers);
    let upstream_headers = matchers(allowed_upstream_headers, &at_response.field("allowed_upstream_headers"));
    let to_append = matchers(
        allowed_upstream_headers_to_append,
        &at_response.field("allowed_upstream_headers_to_append"),
    );
    let client_headers =
        optional_matchers(allowed_client_headers, &at_response.field("allowed_client_headers"));
    let on_success =
        matchers(allowed_client_headers_on_success, &at_response.field("allowed_client_headers_on_success"));
    let service = HttpService {
        path_prefix,
        headers_to_add: headers_to_add?,
        upstream_headers: upstream_headers?,
        upstream_headers_to_append: to_append?,
        client_headers: client_headers?.filter(|allowed| !allowed.is_empty()),
        client_headers_on_success: on_success?,
    };
    Some((Authorizer::Http(service), named(cluster, &at_uri.field("cluster"))?, limit?))
}

/// Without an end, requests would wait for ever for a service that is stuck.
fn limit_of(value: Option<envoy_types::pb::google::protobuf::Duration>, at: &At<'_>) -> Option<Duration> {
    let at = at.field("timeout");
    timeout(value, Some(DEFAULT_TIMEOUT), &at)?.or_else(|| at.unsupported("0, no limit, is not supported"))
}
