//! `http_connection_manager.v3.HttpConnectionManager`.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::core::v3::{Http1ProtocolOptions, HttpProtocolOptions};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType as ProtoCodec, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier as ProtoRoutes,
    ServerHeaderTransformation, SetCurrentClientCertDetails, StripPortMode, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager as Proto, Rds,
};
use envoy_types::pb::google::protobuf;

use super::access_log::access_logs;
use super::at::{At, is_set, no_effect, refuse_set};
use super::http_filter::http_filters;
use super::route_configuration::route_configuration;
use super::scalar::{expect_own_source, timeout};
use super::tracing::{request_id, tracing as tracing_of};
use super::upstream_http::{DEFAULT_IDLE_TIMEOUT, refuse_http2};
use crate::resource::http_connection_manager::{
    ClientCertDetails, CodecType, EscapedSlashes, ForwardClientCert, HeadersWithUnderscores,
    HttpConnectionManager, RouteSpecifier, ServerHeader, StripPort,
};

/// Envoy's limit of request headers in KiB.
const DEFAULT_MAX_HEADERS_KB: u32 = 60;
/// Envoy's limit of the number of headers.
const DEFAULT_MAX_HEADERS_COUNT: u32 = 100;
/// Envoy's limit of a stream's silence.
const DEFAULT_STREAM_IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// What Envoy calls itself.
const DEFAULT_SERVER_NAME: &str = "envoy";

#[expect(clippy::too_many_lines, reason = "it takes one message apart, field by field")]
pub(super) fn http_connection_manager(value: Proto, at: &At<'_>) -> Option<HttpConnectionManager> {
    let Proto {
        codec_type,
        stat_prefix,
        http_filters: filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = value;
    no_effect!(at; "says how connections are closed when their listener goes; they go on with the version that they began with"; drain_timeout, drain_timeout_jitter, delayed_close_timeout);
    no_effect!(at; "asks for lines before the end, and there is one line, at the end"; access_log_flush_interval, flush_access_log_on_new_request, access_log_options);
    no_effect!(at; "says who answers 100 Continue, the proxy or the endpoint; the client goes on either way"; proxy_100_continue);
    no_effect!(at; "is of listeners with PROXY protocol, which are refused"; add_proxy_protocol_connection_state);
    let add_user_agent = add_user_agent.is_some_and(|flag| flag.value);
    let stream_error_on_invalid_http_message =
        stream_error_on_invalid_http_message.is_some_and(|flag| flag.value);
    refuse_set!(
        at; add_user_agent, http1_safe_max_connection_duration, http3_protocol_options, scheme_header_transformation,
        stream_flush_timeout, original_ip_detection_extensions, early_header_mutation_extensions,
        internal_address_config, via, forward_client_cert_matcher, represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        local_reply_config, stream_error_on_invalid_http_message, path_normalization_options,
        strip_trailing_host_dot, proxy_status_config, typed_header_validation_config, append_x_forwarded_port,
        append_local_overload, forward_proto_config
    );
    let codec = match ProtoCodec::try_from(codec_type) {
        Ok(ProtoCodec::Auto) => Some(CodecType::Auto),
        Ok(ProtoCodec::Http1) => Some(CodecType::Http1),
        Ok(ProtoCodec::Http2) => Some(CodecType::Http2),
        Ok(ProtoCodec::Http3) | Err(_) => at.field("codec_type").refuse("is not supported"),
    };
    let http_filters = http_filters(filters, &at.field("http_filters"));
    let common = common(common_http_protocol_options, &at.field("common_http_protocol_options"));
    let accept_http_10 = http1(http_protocol_options.unwrap_or_default(), &at.field("http_protocol_options"));
    refuse_http2(http2_protocol_options.unwrap_or_default(), &at.field("http2_protocol_options"));
    let stream_idle_timeout =
        timeout(stream_idle_timeout, Some(DEFAULT_STREAM_IDLE_TIMEOUT), &at.field("stream_idle_timeout"));
    let request_timeout = unserved_timeout(request_timeout, &at.field("request_timeout"));
    let request_headers_timeout =
        timeout(request_headers_timeout, None, &at.field("request_headers_timeout"));
    let access_logs = access_logs(access_log, &at.field("access_log"));
    let upgrades = at.field("upgrade_configs").each(upgrade_configs, upgrade);
    let request_id = request_id(request_id_extension, &at.field("request_id_extension"));
    let server_header =
        server_header(server_header_transformation, &at.field("server_header_transformation"));
    let escaped_slashes =
        escaped_slashes(path_with_escaped_slashes_action, &at.field("path_with_escaped_slashes_action"));
    let client_cert_details = client_cert_details(
        set_current_client_cert_details.unwrap_or_default(),
        &at.field("set_current_client_cert_details"),
    );
    let forward_client_cert =
        forward_client_cert(forward_client_cert_details, &at.field("forward_client_cert_details"));
    let tracing = match tracing {
        None => Some(None),
        Some(value) => tracing_of(value, &at.field("tracing")).map(Some),
    };
    let strip_port = match (strip_matching_host_port, strip_port_mode) {
        (_, Some(StripPortMode::StripAnyHostPort(true))) => StripPort::Any,
        (true, _) => StripPort::Matching,
        (false, _) => StripPort::Keep,
    };
    let routes = at
        .field("route_specifier")
        .required(route_specifier)
        .and_then(|routes| route_specifier_of(routes, at));
    let (idle_timeout, max_headers_count, underscores) = common?;
    request_timeout?;
    Some(HttpConnectionManager {
        stat_prefix,
        codec: codec?,
        routes: routes?,
        http_filters: http_filters?,
        max_request_headers_bytes: bytes(
            max_request_headers_kb.map_or(DEFAULT_MAX_HEADERS_KB, |limit| limit.value),
        ),
        max_headers_count,
        idle_timeout,
        stream_idle_timeout: stream_idle_timeout?,
        request_headers_timeout: request_headers_timeout?,
        accept_http_10,
        use_remote_address: use_remote_address.is_some_and(|flag| flag.value),
        xff_num_trusted_hops,
        skip_xff_append,
        server_name: if server_name.is_empty() { DEFAULT_SERVER_NAME.to_owned() } else { server_name },
        server_header: server_header?,
        generate_request_id: generate_request_id.is_none_or(|flag| flag.value),
        preserve_external_request_id,
        always_set_request_id_in_response,
        normalize_path: normalize_path.is_some_and(|flag| flag.value),
        merge_slashes,
        escaped_slashes: escaped_slashes?,
        underscores,
        forward_client_cert: forward_client_cert?,
        client_cert_details,
        upgrades: upgrades?.into_iter().flatten().collect(),
        strip_port,
        access_logs: access_logs?,
        tracing: tracing?,
        request_id: request_id?,
    })
}

/// The time that a request may take to arrive; none by default.
fn unserved_timeout(value: Option<protobuf::Duration>, at: &At<'_>) -> Option<()> {
    if timeout(value, None, at)?.is_some() {
        at.not_yet("a request may take any time to arrive");
    }
    Some(())
}

fn bytes(kib: u32) -> usize {
    usize::try_from(kib).unwrap_or(usize::MAX).saturating_mul(1024)
}

fn common(
    value: Option<HttpProtocolOptions>,
    at: &At<'_>,
) -> Option<(Option<Duration>, usize, HeadersWithUnderscores)> {
    let HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = value.unwrap_or_default();
    refuse_set!(
        at; max_connection_duration, max_connection_duration_jitter, max_response_headers_kb, max_stream_duration,
        max_requests_per_connection
    );
    let underscores = match HeadersWithUnderscoresAction::try_from(headers_with_underscores_action) {
        Ok(HeadersWithUnderscoresAction::Allow) => Some(HeadersWithUnderscores::Allow),
        Ok(HeadersWithUnderscoresAction::RejectRequest) => Some(HeadersWithUnderscores::RejectRequest),
        Ok(HeadersWithUnderscoresAction::DropHeader) => Some(HeadersWithUnderscores::DropHeader),
        Err(_) => at.field("headers_with_underscores_action").refuse("is unknown"),
    };
    let idle_timeout = timeout(idle_timeout, Some(DEFAULT_IDLE_TIMEOUT), &at.field("idle_timeout"));
    let max_headers_count = max_headers_count.map_or(DEFAULT_MAX_HEADERS_COUNT, |limit| limit.value);
    Some((idle_timeout?, usize::try_from(max_headers_count).ok()?, underscores?))
}

/// `accept_http_10`.
fn http1(value: Http1ProtocolOptions, at: &At<'_>) -> bool {
    let Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = value;
    no_effect!(at; "chooses among Envoy's own parsers"; use_balsa_parser);
    let allow_absolute_url = allow_absolute_url.is_some_and(|flag| !flag.value);
    refuse_set!(
        at; allow_absolute_url, default_host_for_http_10, header_key_format, enable_trailers, allow_chunked_length,
        override_stream_error_on_invalid_http_message, send_fully_qualified_url, allow_custom_methods,
        ignore_http_11_upgrade
    );
    accept_http_10
}

/// The upgrade's type where it is enabled.
fn upgrade(value: UpgradeConfig, at: &At<'_>) -> Option<Option<String>> {
    let UpgradeConfig { upgrade_type, filters, enabled } = value;
    refuse_set!(at; filters);
    if !enabled.is_none_or(|flag| flag.value) {
        return Some(None);
    }
    let upgrade_type = upgrade_type.to_ascii_lowercase();
    if upgrade_type == "connect" {
        return at.field("upgrade_type").refuse("CONNECT is not supported");
    }
    Some(Some(upgrade_type))
}

fn server_header(value: i32, at: &At<'_>) -> Option<ServerHeader> {
    match ServerHeaderTransformation::try_from(value) {
        Ok(ServerHeaderTransformation::Overwrite) => Some(ServerHeader::Overwrite),
        Ok(ServerHeaderTransformation::AppendIfAbsent) => Some(ServerHeader::AppendIfAbsent),
        Ok(ServerHeaderTransformation::PassThrough) => Some(ServerHeader::PassThrough),
        Err(_) => at.refuse("is unknown"),
    }
}

/// The default of Envoy's implementation is to leave them.
fn escaped_slashes(value: i32, at: &At<'_>) -> Option<EscapedSlashes> {
    match PathWithEscapedSlashesAction::try_from(value) {
        Ok(
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged,
        ) => Some(EscapedSlashes::KeepUnchanged),
        Ok(PathWithEscapedSlashesAction::RejectRequest) => Some(EscapedSlashes::RejectRequest),
        Ok(PathWithEscapedSlashesAction::UnescapeAndRedirect) => Some(EscapedSlashes::UnescapeAndRedirect),
        Ok(PathWithEscapedSlashesAction::UnescapeAndForward) => Some(EscapedSlashes::UnescapeAndForward),
        Err(_) => at.refuse("is unknown"),
    }
}

fn forward_client_cert(value: i32, at: &At<'_>) -> Option<ForwardClientCert> {
    match ForwardClientCertDetails::try_from(value) {
        Ok(ForwardClientCertDetails::Sanitize) => Some(ForwardClientCert::Sanitize),
        Ok(ForwardClientCertDetails::ForwardOnly) => Some(ForwardClientCert::ForwardOnly),
        Ok(ForwardClientCertDetails::AppendForward) => Some(ForwardClientCert::AppendForward),
        Ok(ForwardClientCertDetails::SanitizeSet) => Some(ForwardClientCert::SanitizeSet),
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) => Some(ForwardClientCert::AlwaysForwardOnly),
        Err(_) => at.refuse("is unknown"),
    }
}

fn client_cert_details(value: SetCurrentClientCertDetails, at: &At<'_>) -> ClientCertDetails {
    let SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format } = value;
    let not_told = [("cert", cert), ("chain", chain), ("issuer", issuer), ("format", is_set(&format))];
    for (field, _) in not_told.into_iter().filter(|(_, is_set)| *is_set) {
        at.field(field).not_yet("of a certificate, subject and names are forwarded, in text");
    }
    ClientCertDetails { subject: subject.is_some_and(|flag| flag.value), dns, uri }
}

fn route_specifier_of(value: ProtoRoutes, at: &At<'_>) -> Option<RouteSpecifier> {
    match value {
        ProtoRoutes::Rds(Rds { config_source, route_config_name }) => {
            let at = at.field("rds");
            expect_own_source(config_source, &at.field("config_source"));
            Some(RouteSpecifier::Rds(route_config_name.into()))
        }
        ProtoRoutes::RouteConfig(routes) => {
            let routes = route_configuration(routes, &at.field("route_config"))?;
            Some(RouteSpecifier::Inline(routes.into()))
        }
        ProtoRoutes::ScopedRoutes(_) => at.field("scoped_routes").refuse("is not supported"),
    }
}
