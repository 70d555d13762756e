//! Answers that the proxy gives itself, with Envoy's statuses and texts.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::body::ResponseBody;
use super::connection_manager::Response;

/// The details of what a route answers itself.
pub(crate) const DIRECT_RESPONSE: &str = "direct_response";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// An answer of the proxy's own.
#[derive(Debug)]
pub(crate) struct LocalReply {
    /// Why, in Envoy's words (`%RESPONSE_CODE_DETAILS%`).
    pub(crate) details: Cow<'static, str>,
    /// The status, as a client that does not speak gRPC sees it.
    pub(crate) status: StatusCode,
    /// Plain text; empty is none.
    pub(crate) body: Cow<'static, [u8]>,
    /// Headers beside those of the body.
    pub(crate) headers: HeaderMap,
    /// `grpc-status` for a client that speaks gRPC; otherwise it follows from the status.
    pub(crate) grpc_status: Option<u32>,
    /// Whether the connection closes.
    pub(crate) close: bool,
}

impl LocalReply {
    /// With a status and nothing else.
    pub(crate) fn new(status: StatusCode, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            details: details.into(),
            status,
            body: Cow::Borrowed(b""),
            headers: HeaderMap::new(),
            grpc_status: None,
            close: false,
        }
    }

    /// With a text.
    pub(crate) fn text(
        status: StatusCode,
        details: impl Into<Cow<'static, str>>,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        let body = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self { body, ..Self::new(status, details) }
    }

    /// And the connection closes.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// As a response. To a gRPC client it is one of trailers only (gRPC over HTTP/2, "Responses").
    pub(crate) fn into_response(self, to_grpc: bool) -> Response {
        let Self { details: _, status, body, mut headers, grpc_status, close } = self;
        if to_grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(
                GRPC_STATUS,
                HeaderValue::from(grpc_status.unwrap_or_else(|| status_of_grpc(status))),
            );
            if !body.is_empty() {
                headers.extend(percent_encoded(&body).map(|message| (GRPC_MESSAGE, message)));
            }
            return Response {
                status: StatusCode::OK,
                headers,
                body: ResponseBody::local(Bytes::new()),
                close,
            };
        }
        let body = match body {
            Cow::Borrowed(body) => Bytes::from_static(body),
            Cow::Owned(body) => Bytes::from(body),
        };
        if !body.is_empty() {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
        }
        Response { status, headers, body: ResponseBody::local(body), close }
    }
}

/// The gRPC project's table "HTTP to gRPC Status Code Mapping".
fn status_of_grpc(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// A status message: printable ASCII but `%` as it is.
fn percent_encoded(text: &[u8]) -> Option<HeaderValue> {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text {
        if matches!(byte, b' '..=b'~') && *byte != b'%' {
            encoded.push(char::from(*byte));
        } else {
            write!(encoded, "%{byte:02X}").ok()?;
        }
    }
    HeaderValue::try_from(encoded).ok()
}
