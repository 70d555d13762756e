//! What is spoken to the endpoints of a cluster: `upstreams.http.v3.HttpProtocolOptions`, and the older fields.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions,
    UpstreamHttpProtocolOptions,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::google::protobuf::Any;
use prost::Name;

use super::at::{At, no_effect, refuse_set};
use super::decode::Extension;
use super::scalar::timeout;
use crate::resource::cluster::{ServerNameSource, UpstreamProtocol};

/// Envoy's idle timeout of a connection.
pub(super) const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_hours(1);

/// What was found.
pub(super) struct UpstreamHttp {
    pub(super) protocol: UpstreamProtocol,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) server_name: ServerNameSource,
}

/// Fields of `Cluster` that `HttpProtocolOptions` has taken the place of.
pub(super) struct Legacy {
    /// `common_http_protocol_options`
    pub(super) common: Option<CommonOptions>,
    /// `http_protocol_options`
    pub(super) http1: Option<Http1ProtocolOptions>,
    /// `http2_protocol_options`
    pub(super) http2: Option<Http2ProtocolOptions>,
    /// `upstream_http_protocol_options`
    pub(super) upstream: Option<UpstreamHttpProtocolOptions>,
}

pub(super) fn upstream_http(
    options: HashMap<String, Any>,
    legacy: Legacy,
    at: &At<'_>,
) -> Option<UpstreamHttp> {
    let mut found = None;
    for (key, any) in options {
        let at = at.field("typed_extension_protocol_options").key(&key);
        let extension = Extension::open(any, &at)?;
        if extension.type_name() == HttpProtocolOptions::full_name() {
            found = Some(http_protocol_options(extension.message(&at)?, &at)?);
        } else {
            return extension.refuse("protocol options", &key, &at);
        }
    }
    let Legacy { common: common_options, http1, http2, upstream } = legacy;
    let server_name = server_name(upstream, &at.field("upstream_http_protocol_options"));
    refuse_http1(http1.unwrap_or_default(), &at.field("http_protocol_options"));
    let is_http2 = http2.is_some();
    refuse_http2(http2.unwrap_or_default(), &at.field("http2_protocol_options"));
    let (idle_timeout, max_requests_per_connection) =
        common(common_options, &at.field("common_http_protocol_options"))?;
    let protocol = if is_http2 { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
    let legacy = UpstreamHttp { protocol, idle_timeout, max_requests_per_connection, server_name };
    Some(found.unwrap_or(legacy))
}

fn http_protocol_options(value: HttpProtocolOptions, at: &At<'_>) -> Option<UpstreamHttp> {
    let HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = value;
    let server_name =
        server_name(upstream_http_protocol_options, &at.field("upstream_http_protocol_options"));
    refuse_set!(at; http_filters, header_validation_config, outlier_detection, request_mirror_policies, hash_policy, retry_policy);
    let common = common(common_http_protocol_options, &at.field("common_http_protocol_options"));
    let protocol = protocol(upstream_protocol_options, at);
    let (idle_timeout, max_requests_per_connection) = common?;
    Some(UpstreamHttp { protocol: protocol?, idle_timeout, max_requests_per_connection, server_name })
}

fn server_name(value: Option<UpstreamHttpProtocolOptions>, at: &At<'_>) -> ServerNameSource {
    let UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } =
        value.unwrap_or_default();
    no_effect!(at; "names the header of an SNI that is not taken from requests yet"; override_auto_sni_header);
    if !(auto_sni || auto_san_validation) {
        return ServerNameSource::Context;
    }
    at.not_yet("hops with TLS whose SNI is the request's host are refused");
    ServerNameSource::Request
}

fn protocol(value: Option<UpstreamProtocolOptions>, at: &At<'_>) -> Option<UpstreamProtocol> {
    match value {
        None => Some(UpstreamProtocol::Http1),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config })) => {
            let at = at.field("explicit_http_config");
            match protocol_config {
                None => Some(UpstreamProtocol::Http1),
                Some(ProtocolConfig::HttpProtocolOptions(options)) => {
                    refuse_http1(options, &at.field("http_protocol_options"));
                    Some(UpstreamProtocol::Http1)
                }
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                    refuse_http2(options, &at.field("http2_protocol_options"));
                    Some(UpstreamProtocol::Http2)
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    at.field("http3_protocol_options").refuse("is not supported")
                }
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            let at = at.field("use_downstream_protocol_config");
            let UseDownstreamHttpConfig {
                http_protocol_options,
                http2_protocol_options,
                http3_protocol_options,
            } = config;
            refuse_set!(at; http3_protocol_options);
            refuse_http1(http_protocol_options.unwrap_or_default(), &at.field("http_protocol_options"));
            refuse_http2(http2_protocol_options.unwrap_or_default(), &at.field("http2_protocol_options"));
            Some(UpstreamProtocol::Downstream)
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => at.field("auto_config").refuse("is not supported"),
    }
}

/// Idle timeout and number of requests of a connection.
fn common(value: Option<CommonOptions>, at: &At<'_>) -> Option<(Option<Duration>, Option<u32>)> {
    let CommonOptions {
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
        at; max_connection_duration, max_connection_duration_jitter, max_headers_count, max_response_headers_kb,
        max_stream_duration, headers_with_underscores_action
    );
    let idle_timeout = timeout(idle_timeout, Some(DEFAULT_IDLE_TIMEOUT), &at.field("idle_timeout"))?;
    Some((idle_timeout, max_requests_per_connection.map(|limit| limit.value)))
}

/// None of the settings of HTTP/1 is honoured towards endpoints.
fn refuse_http1(value: Http1ProtocolOptions, at: &At<'_>) {
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
    refuse_set!(
        at; allow_absolute_url, accept_http_10, default_host_for_http_10, header_key_format, enable_trailers,
        allow_chunked_length, override_stream_error_on_invalid_http_message, send_fully_qualified_url,
        allow_custom_methods, ignore_http_11_upgrade
    );
}

/// Windows and the like tune the codec and change no answer; the rest is refused.
pub(super) fn refuse_http2(value: Http2ProtocolOptions, at: &At<'_>) {
    let Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = value;
    no_effect!(at; "tunes Envoy's codec and changes no answer"; hpack_table_size, max_concurrent_streams, initial_stream_window_size, initial_connection_window_size, max_outbound_frames, max_outbound_control_frames, max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream, max_inbound_window_update_frames_per_data_frame_sent, stream_error_on_invalid_http_messaging, override_stream_error_on_invalid_http_message, use_oghttp2_codec, max_metadata_size, enable_huffman_encoding, max_header_field_size_kb, disallow_obs_text, stream_reset_burst, stream_reset_rate);
    refuse_set!(at; allow_connect, allow_metadata, custom_settings_parameters, connection_keepalive);
}
