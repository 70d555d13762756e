//! Heads and bodies of HTTP/1.1 messages as they go out. Header names are in lower case, as Envoy writes them.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, StatusCode};

use super::write_buffer::WriteBuffer;
use crate::http::head::RequestHead;

/// How a body that goes out is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyEncoding {
    /// By a `content-length`, by the connection's end, or there is none.
    Plain,
    /// In chunks.
    Chunked,
}

impl BodyEncoding {
    /// Adds a piece. An empty one is nothing: it would end a chunked body.
    pub(super) fn data(self, piece: Bytes, out: &mut WriteBuffer) {
        if piece.is_empty() {
            return;
        }
        match self {
            Self::Plain => out.push(piece, b""),
            Self::Chunked => {
                hex(piece.len(), out.buffer());
                out.push(piece, b"\r\n");
            }
        }
    }

    /// Adds the end.
    pub(super) fn end(self, out: &mut WriteBuffer) {
        if self == Self::Chunked {
            out.buffer().extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// Encodes a request's head and says how its body has to be encoded. `has_body` is whether there may be one.
pub(super) fn request(head: &RequestHead, has_body: bool, out: &mut BytesMut) -> BodyEncoding {
    out.reserve(256);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.put_u8(b' ');
    let target = if head.method == Method::CONNECT { &head.authority } else { &head.path };
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(head.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(upgrade) = &head.upgrade {
        header(&CONNECTION, b"upgrade", out);
        header(&UPGRADE, upgrade.as_bytes(), out);
    }
    headers(&head.headers, out);
    let encoding = match (has_body, head.headers.contains_key(CONTENT_LENGTH)) {
        (_, true) => BodyEncoding::Plain,
        (true, false) => {
            header(&TRANSFER_ENCODING, b"chunked", out);
            BodyEncoding::Chunked
        }
        (false, false) => {
            if !is_bodiless(&head.method) && head.upgrade.is_none() {
                header(&CONTENT_LENGTH, b"0", out);
            }
            BodyEncoding::Plain
        }
    };
    out.extend_from_slice(b"\r\n");
    encoding
}

/// What the encoding of a response depends on beside the response.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
pub(super) struct ResponseContext {
    /// The request was `HEAD`.
    pub(super) to_head: bool,
    /// The client does not speak HTTP/1.1.
    pub(super) to_http_10: bool,
    /// There is no body.
    pub(super) empty: bool,
    /// The connection closes after it.
    pub(super) close: bool,
}

/// Encodes a response's head and says how its body has to be encoded.
pub(super) fn response(
    status: StatusCode,
    fields: &HeaderMap,
    context: ResponseContext,
    out: &mut BytesMut,
) -> BodyEncoding {
    out.reserve(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
    headers(fields, out);
    let mut encoding = BodyEncoding::Plain;
    if context.close {
        header(&CONNECTION, b"close", out);
    } else if status == StatusCode::SWITCHING_PROTOCOLS {
        header(&CONNECTION, b"upgrade", out);
    } else if context.to_http_10 {
        header(&CONNECTION, b"keep-alive", out);
    }
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    if !bodiless && status != StatusCode::NOT_MODIFIED && !fields.contains_key(CONTENT_LENGTH) {
        if context.empty && !context.to_head {
            header(&CONTENT_LENGTH, b"0", out);
        } else if !context.to_http_10 {
            header(&TRANSFER_ENCODING, b"chunked", out);
            encoding = BodyEncoding::Chunked;
        }
    }
    out.extend_from_slice(b"\r\n");
    if context.to_head { BodyEncoding::Plain } else { encoding }
}

/// Methods whose requests need not say that they have no body.
fn is_bodiless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT | Method::TRACE)
}

fn headers(headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        header(name, value.as_bytes(), out);
    }
}

fn header(name: &HeaderName, value: &[u8], out: &mut BytesMut) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A chunk's size and the line's end.
fn hex(size: usize, out: &mut BytesMut) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = [0; 16];
    let mut start = text.len();
    let mut rest = size;
    for place in text.iter_mut().rev() {
        *place = DIGITS.get(rest % 16).copied().unwrap_or_default();
        start -= 1;
        rest /= 16;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(start..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}
