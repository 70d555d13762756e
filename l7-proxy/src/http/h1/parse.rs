//! Heads of HTTP/1.1 messages, as strict as Envoy's codec.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use httparse::{EMPTY_HEADER, Header, Status};

use super::decoder::Framing;
use super::request_line::{has_other_version, host, method, target};
use crate::http::head::{RequestHead, ResponseHead, Version};

/// Slots for headers; a limit above this is this. Envoy's default limit is 100.
const MAX_HEADERS: usize = 256;
/// Envoy's limit for the headers of an upstream's response: `max_response_headers_kb` 60, and 100 headers.
const MAX_RESPONSE_BYTES: usize = 60 * 1024;

/// Headers that say who asks for what: a message whose `Connection` names one, to have it taken away, is refused, as by Envoy.
const UNTOUCHABLE: [&[u8]; 4] = [b"host", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"];

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What is wrong with a request's head, by the answer that Envoy gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// 400: not HTTP, or contradictory.
    #[error("malformed message")]
    Malformed,
    /// 426: not HTTP/1.1.
    #[error("unsupported HTTP version")]
    LowVersion,
    /// 431: too many headers, or too long.
    #[error("headers too large")]
    HeadersTooLarge,
    /// 501: a transfer encoding other than `chunked`.
    #[error("unknown transfer encoding")]
    UnknownTransferEncoding,
}

impl ProtocolError {
    /// The status that answers it; Envoy's body for it is the status's name.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::LowVersion => StatusCode::UPGRADE_REQUIRED,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownTransferEncoding => StatusCode::NOT_IMPLEMENTED,
        }
    }
}

/// What a connection manager allows in a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// `max_request_headers_kb`, in bytes.
    pub(super) bytes: usize,
    /// `max_headers_count`
    pub(super) headers: usize,
    /// `accept_http_10`
    pub(super) http_10: bool,
}

/// What a head says of its message beside the head itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Persistence {
    /// How the body ends.
    pub(super) framing: Framing,
    /// Whether the connection may be used again.
    pub(super) keep_alive: bool,
    /// `Expect: 100-continue`.
    pub(super) expects_continue: bool,
}

/// Parses a request's head from the start of `read` and removes it there. `None` is "not whole yet".
pub(super) fn request(
    read: &mut BytesMut,
    limits: Limits,
    head: &mut RequestHead,
) -> Result<Option<Persistence>, ProtocolError> {
    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let slots = slots.get_mut(..limits.headers.min(MAX_HEADERS)).unwrap_or_default();
    let length = match parsed.parse_with_uninit_headers(read, slots) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if read.len() <= limits.bytes => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(ProtocolError::HeadersTooLarge);
        }
        Err(_) if has_other_version(read) => return Err(ProtocolError::LowVersion),
        Err(_) => return Err(ProtocolError::Malformed),
    };
    if length > limits.bytes {
        return Err(ProtocolError::HeadersTooLarge);
    }
    head.version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
    if head.version == Version::Http10 && !limits.http_10 {
        return Err(ProtocolError::LowVersion);
    }
    head.method = method(parsed.method.unwrap_or_default())?;
    target(parsed.path.unwrap_or_default(), head)?;
    let absolute = head.has_authority;
    let mut fields = Fields::default();
    let copy = HeadCopy::new(read, length);
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| ProtocolError::Malformed)?;
        if name == HOST {
            // An authority in the target wins (RFC 9112, 3.2.2).
            if !absolute {
                host(header.value, head)?;
            }
        } else if name == TE {
            if has_token(header.value, "trailers") {
                head.headers.insert(TE, HeaderValue::from_static("trailers"));
            }
        } else if name == http::header::EXPECT && header.value.eq_ignore_ascii_case(b"100-continue") {
            fields.expects_continue = true;
        } else if let Some((name, value)) = fields.take(name, header, &copy)? {
            head.has_envoy_headers |= name.as_str().starts_with("x-envoy-");
            head.headers.append(name, value);
        }
    }
    let framing = fields.request_framing()?;
    if fields.upgrades {
        // An upgrade to HTTP/2 is ignored, as it is by Envoy: the client goes on with HTTP/1.1.
        head.upgrade =
            fields.upgrade.take().filter(|upgrade| !upgrade.as_bytes().eq_ignore_ascii_case(b"h2c"));
    }
    // A `CONNECT` has no end of its own: where it is refused, the connection ends.
    let keep_alive = fields.keep_alive(head.version) && head.method != Method::CONNECT;
    fields.remove_nominated(&mut head.headers);
    let expects_continue = fields.expects_continue && head.version == Version::Http11;
    read.advance(length);
    Ok(Some(Persistence { framing, keep_alive, expects_continue }))
}

/// Parses a response's head from the start of `read` and removes it there. `bodiless` says that the request was `HEAD`.
pub(super) fn response(
    read: &mut BytesMut,
    bodiless: bool,
) -> Result<Option<(ResponseHead, Persistence)>, ProtocolError> {
    let mut slots = [EMPTY_HEADER; 100];
    let mut parsed = httparse::Response::new(&mut slots);
    let length = match parsed.parse(read) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if read.len() <= MAX_RESPONSE_BYTES => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(ProtocolError::HeadersTooLarge);
        }
        Err(_) => return Err(ProtocolError::Malformed),
    };
    let version = if parsed.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let status =
        StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(|_| ProtocolError::Malformed)?;
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 4);
    let mut fields = Fields::default();
    let copy = HeadCopy::new(read, length);
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| ProtocolError::Malformed)?;
        if let Some((name, value)) = fields.take(name, header, &copy)? {
            headers.append(name, value);
        }
    }
    let framing = fields.response_framing(status, bodiless)?;
    let keep_alive = fields.keep_alive(version) && framing != Framing::UntilClose;
    fields.remove_nominated(&mut headers);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        headers.extend(fields.upgrade.take().map(|upgrade| (UPGRADE, upgrade)));
    }
    read.advance(length);
    let persistence = Persistence { framing, keep_alive, expects_continue: false };
    Ok(Some((ResponseHead { status, headers }, persistence)))
}

/// The headers that belong to one connection or to the framing, and what they said.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
struct Fields {
    content_length: Option<u64>,
    chunked: bool,
    closes: bool,
    keeps_alive: bool,
    upgrades: bool,
    upgrade: Option<HeaderValue>,
    expects_continue: bool,
    /// Headers that `Connection` names as belonging to this hop.
    nominated: Vec<HeaderName>,
}

impl Fields {
    /// Interprets a header; what it gives back is an ordinary one.
    fn take(
        &mut self,
        name: HeaderName,
        header: &Header<'_>,
        copy: &HeadCopy,
    ) -> Result<Option<(HeaderName, HeaderValue)>, ProtocolError> {
        if name == CONTENT_LENGTH {
            // Even an equal second one is refused, as Envoy does.
            if self.content_length.replace(length(header.value)?).is_some() {
                return Err(ProtocolError::Malformed);
            }
        } else if name == TRANSFER_ENCODING {
            if self.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(ProtocolError::UnknownTransferEncoding);
            }
            self.chunked = true;
            return Ok(None);
        } else if name == CONNECTION {
            self.connection(header.value)?;
            return Ok(None);
        } else if name == UPGRADE {
            self.upgrade = Some(copy.value(header.value)?);
            return Ok(None);
        } else if name == KEEP_ALIVE || name == PROXY_CONNECTION || name == HTTP2_SETTINGS {
            return Ok(None);
        }
        Ok(Some((name, copy.value(header.value)?)))
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), ProtocolError> {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keeps_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrades = true;
            } else if UNTOUCHABLE.iter().any(|name| token.eq_ignore_ascii_case(name))
                || token.starts_with(b":")
            {
                return Err(ProtocolError::Malformed);
            } else if let Ok(name) = HeaderName::from_bytes(token) {
                self.nominated.push(name);
            }
        }
        Ok(())
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.closes && (version == Version::Http11 || self.keeps_alive)
    }

    fn remove_nominated(&self, headers: &mut HeaderMap) {
        for name in &self.nominated {
            // Framing and routing are not the sender's to take away.
            if *name != CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }

    fn request_framing(&self) -> Result<Framing, ProtocolError> {
        match (self.chunked, self.content_length) {
            // The classic of request smuggling (RFC 9112, 6.1).
            (true, Some(_)) => Err(ProtocolError::Malformed),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::of_length(length.unwrap_or(0))),
        }
    }

    fn response_framing(&self, status: StatusCode, bodiless: bool) -> Result<Framing, ProtocolError> {
        if bodiless
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
        {
            return Ok(Framing::None);
        }
        match (self.chunked, self.content_length) {
            (true, Some(_)) => Err(ProtocolError::Malformed),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::of_length(length)),
            (false, None) => Ok(Framing::UntilClose),
        }
    }
}

/// One copy of a whole head, which the values share: it lives as long as the headers do, whereas the read buffer is used
/// again at once.
struct HeadCopy {
    copy: Bytes,
    /// Where the head lies in the read buffer.
    start: usize,
}

impl HeadCopy {
    fn new(read: &[u8], length: usize) -> Self {
        let head = read.get(..length).unwrap_or(read);
        Self { copy: Bytes::copy_from_slice(head), start: head.as_ptr().addr() }
    }

    fn value(&self, value: &[u8]) -> Result<HeaderValue, ProtocolError> {
        let start = value.as_ptr().addr().saturating_sub(self.start);
        let shared =
            if value.is_empty() { Bytes::new() } else { self.copy.slice(start..start + value.len()) };
        HeaderValue::from_maybe_shared(shared).map_err(|_| ProtocolError::Malformed)
    }
}

/// Digits and nothing else (RFC 9110, 8.6).
fn length(value: &[u8]) -> Result<u64, ProtocolError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(ProtocolError::Malformed);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(ProtocolError::Malformed)
}

fn has_token(value: &[u8], wanted: &str) -> bool {
    tokens(value).any(|token| token.eq_ignore_ascii_case(wanted.as_bytes()))
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}
