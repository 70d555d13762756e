//! Methods, targets and hosts: what of a request's head Envoy checks beyond the syntax of HTTP.

use http::Method;

use super::parse::ProtocolError;
use crate::http::head::RequestHead;

/// Envoy takes no methods beyond those that its parser knows.
pub(super) fn method(method: &str) -> Result<Method, ProtocolError> {
    const OTHERS: [&str; 27] = [
        "ACL",
        "BIND",
        "CHECKOUT",
        "COPY",
        "LINK",
        "LOCK",
        "MERGE",
        "MKACTIVITY",
        "MKCALENDAR",
        "MKCOL",
        "MOVE",
        "MSEARCH",
        "NOTIFY",
        "PROPFIND",
        "PROPPATCH",
        "PURGE",
        "REBIND",
        "REPORT",
        "SEARCH",
        "SOURCE",
        "SUBSCRIBE",
        "TRACE",
        "UNBIND",
        "UNLINK",
        "UNLOCK",
        "UNSUBSCRIBE",
        "PATCH",
    ];
    Ok(match method {
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        "HEAD" => Method::HEAD,
        "OPTIONS" => Method::OPTIONS,
        "CONNECT" => Method::CONNECT,
        other if OTHERS.contains(&other) => {
            Method::from_bytes(other.as_bytes()).map_err(|_| ProtocolError::Malformed)?
        }
        _ => return Err(ProtocolError::Malformed),
    })
}

/// The request target: origin form, absolute form, `*` for OPTIONS, or an authority for CONNECT (RFC 9112, 3.2).
pub(super) fn target(target: &str, head: &mut RequestHead) -> Result<(), ProtocolError> {
    if !target.is_ascii() {
        return Err(ProtocolError::Malformed);
    }
    if head.method == Method::CONNECT {
        if target.starts_with('/') {
            return Err(ProtocolError::Malformed);
        }
        host(target.as_bytes(), head)?;
    } else if target.starts_with('/') || (target == "*" && head.method == Method::OPTIONS) {
        head.path.push_str(target);
    } else {
        let (scheme, rest) = target.split_once("://").ok_or(ProtocolError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(ProtocolError::Malformed);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(ProtocolError::Malformed);
        }
        host(authority.as_bytes(), head)?;
        if !path.starts_with('/') {
            head.path.push('/');
        }
        head.path.push_str(path);
    }
    Ok(())
}

/// Sets the authority. Envoy joins repeated `host` headers like any other.
pub(super) fn host(value: &[u8], head: &mut RequestHead) -> Result<(), ProtocolError> {
    // RFC 3986, 3.2.2, with `@` and the like as lenient as Envoy.
    let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"/\\?#<>\"^`{|}".contains(byte);
    let text = std::str::from_utf8(value).map_err(|_| ProtocolError::Malformed)?;
    if !value.iter().all(allowed) {
        return Err(ProtocolError::Malformed);
    }
    if head.has_authority {
        head.authority.push(',');
    }
    head.authority.push_str(text);
    head.has_authority = true;
    Ok(())
}

/// A request line that is well-formed but for its version, or has none as in HTTP/0.9.
pub(super) fn has_other_version(read: &[u8]) -> bool {
    let line = read.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let version = words.next();
    !method.is_empty()
        && method.iter().all(u8::is_ascii_uppercase)
        && path.starts_with(b"/")
        && version.is_none_or(|version| {
            version.starts_with(b"HTTP/") && !matches!(version, b"HTTP/1.0" | b"HTTP/1.1")
        })
        && words.next().is_none()
}
