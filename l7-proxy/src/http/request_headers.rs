//! What happens to every request before it is routed: Envoy's checks of `ConnectionManagerImpl::ActiveStream::decodeHeaders`
//! and its `ConnectionManagerUtility::mutateRequestHeaders`.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, Method, StatusCode};
use orlop_plan::resource::http_connection_manager::{
    HeadersWithUnderscores, HttpConnectionManager, StripPort,
};

use super::client_cert;
use super::head::RequestHead;
use super::local_reply::LocalReply;
use super::path::{self, NormalizedPath};
use crate::pod::ConnectionContext;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_ENVOY_EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers by which a trusted peer directs the proxy. Nobody is trusted (Envoy's default for `internal_address_config`).
const INTERNAL: [HeaderName; 14] = [
    HeaderName::from_static("x-envoy-internal"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
];
/// What moreover only the edge may set.
const EDGE: [HeaderName; 4] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-path"),
];

/// Refuses a request, or makes it fit to be routed.
pub(crate) fn admit(
    head: &mut RequestHead,
    config: &HttpConnectionManager,
    connection: &ConnectionContext,
) -> Result<(), Box<LocalReply>> {
    if !head.has_authority {
        return Err(LocalReply::new(StatusCode::BAD_REQUEST, "missing_host_header").closing().into());
    }
    if !head.path.starts_with('/') && head.method != Method::CONNECT {
        return Err(LocalReply::new(StatusCode::NOT_FOUND, "absolute_path_rejected").into());
    }
    if config.underscores != HeadersWithUnderscores::Allow {
        underscores(head, config.underscores)?;
    }
    match path::normalize(&head.path, config) {
        Ok(NormalizedPath::Unchanged) => {}
        Ok(NormalizedPath::Changed(path)) => head.path = path,
        Ok(NormalizedPath::Redirect(path)) => {
            let mut reply = LocalReply::new(StatusCode::TEMPORARY_REDIRECT, "path_normalization_failed");
            reply
                .headers
                .extend(HeaderValue::try_from(path).ok().map(|location| (http::header::LOCATION, location)));
            return Err(reply.into());
        }
        Err(path::InvalidPath) => {
            let reply = LocalReply::new(StatusCode::BAD_REQUEST, "path_normalization_failed");
            return Err(reply.closing().into());
        }
    }
    strip_port(head, config.strip_port, connection);
    forwarding(head, config, connection);
    Ok(())
}

/// Whether an upgrade is among the enabled ones.
pub(crate) fn is_enabled(enabled: &[String], upgrade: &HeaderValue) -> bool {
    enabled.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(upgrade.as_bytes()))
}

/// `x-forwarded-*`, `x-request-id`, and the removal of what the client may not say.
fn forwarding(head: &mut RequestHead, config: &HttpConnectionManager, connection: &ConnectionContext) {
    let headers = &mut head.headers;
    let peer = connection.peer.ip();
    let scheme = HeaderValue::from_static(if connection.tls.get().is_some() { "https" } else { "http" });
    if config.use_remote_address {
        let client = forwarded_for(headers, config).unwrap_or(peer);
        if !config.skip_xff_append {
            append_forwarded_for(headers, peer);
        }
        headers.insert(X_FORWARDED_PROTO, scheme);
        if let Ok(client) = HeaderValue::try_from(client.to_string()) {
            headers.insert(X_ENVOY_EXTERNAL_ADDRESS, client);
        }
    } else {
        headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
    }
    if head.has_envoy_headers {
        for name in INTERNAL.iter().chain(EDGE.iter().filter(|_| config.use_remote_address)) {
            headers.remove(name);
        }
    }
    client_cert::forward(headers, config, connection);
    if config.generate_request_id {
        // An edge does not take over what a client made up.
        if config.use_remote_address && !config.preserve_external_request_id {
            headers.insert(X_REQUEST_ID, request_id());
        } else {
            headers.entry(X_REQUEST_ID).or_insert_with(request_id);
        }
    }
}

/// Who sent a request that was admitted: the client as proxies that are trusted have written it into `x-forwarded-for`, the
/// peer where they have not.
pub(crate) fn client_address(
    head: &RequestHead,
    config: &HttpConnectionManager,
    connection: &ConnectionContext,
) -> IpAddr {
    let headers = &head.headers;
    let own = usize::from(config.use_remote_address && !config.skip_xff_append);
    skipped_hops(config).and_then(|skip| from_the_end(headers, skip + own)).unwrap_or(connection.peer.ip())
}

/// The same of a request to which the proxy has not appended its peer yet.
fn forwarded_for(headers: &HeaderMap, config: &HttpConnectionManager) -> Option<IpAddr> {
    from_the_end(headers, skipped_hops(config)?)
}

/// How many addresses at the end of `x-forwarded-for` were written by trusted proxies about each other; `None` where nobody is
/// trusted with what he wrote.
fn skipped_hops(config: &HttpConnectionManager) -> Option<usize> {
    let trusted = usize::try_from(config.xff_num_trusted_hops).ok()?;
    if config.use_remote_address { trusted.checked_sub(1) } else { Some(trusted) }
}

/// An address of `x-forwarded-for`, counted from its end.
fn from_the_end(headers: &HeaderMap, position: usize) -> Option<IpAddr> {
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let mut addresses = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    std::str::from_utf8(addresses.nth(position)?).ok()?.trim_ascii().parse().ok()
}

/// Another proxy that the request has come through.
pub(crate) fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let mut all = Vec::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        all.extend_from_slice(value.as_bytes());
        all.push(b',');
    }
    all.extend_from_slice(peer.to_string().as_bytes());
    if let Ok(value) = HeaderValue::try_from(all) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// A random UUID (RFC 9562, version 4).
fn request_id() -> HeaderValue {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let random = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let mut rest = random;
    for (position, place) in text.iter_mut().enumerate().rev() {
        if !matches!(position, 8 | 13 | 18 | 23) {
            *place = DIGITS.get((rest & 0xf) as usize).copied().unwrap_or_default();
            rest >>= 4;
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

fn underscores(head: &mut RequestHead, action: HeadersWithUnderscores) -> Result<(), Box<LocalReply>> {
    let offending: Vec<_> = head.headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    if offending.is_empty() {
        return Ok(());
    }
    if action == HeadersWithUnderscores::RejectRequest {
        let reply = LocalReply::text(StatusCode::BAD_REQUEST, "http1.unexpected_underscore", "Bad Request");
        return Err(reply.closing().into());
    }
    for name in offending {
        head.headers.remove(name);
    }
    Ok(())
}

/// `strip_any_host_port`, `strip_matching_host_port`.
fn strip_port(head: &mut RequestHead, strip: StripPort, connection: &ConnectionContext) {
    if strip == StripPort::Keep {
        return;
    }
    let Some(colon) = head.authority.rfind(':') else { return };
    let in_brackets = head.authority.rfind(']').is_some_and(|bracket| bracket > colon);
    let port = head.authority.get(colon + 1..).and_then(|port| port.parse::<u16>().ok());
    let matches = match strip {
        StripPort::Keep => false,
        StripPort::Any => port.is_some(),
        StripPort::Matching => port == Some(connection.local.port()),
    };
    if matches && !in_brackets {
        head.authority.truncate(colon);
    }
}
