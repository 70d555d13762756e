//! Responses with the headers that Envoy's admin interface gives them.

use std::io::Write;

use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use super::query::Query;

/// Whole, or as it is printed. A dump that fails half-way ends the connection, so that it is not taken for a whole one.
pub(super) type Body = Either<Full<Bytes>, Channel<Bytes, DumpFailed>>;

/// The rest of a dump will not come.
#[derive(Debug, thiserror::Error)]
#[error("the dump failed")]
pub(super) struct DumpFailed;

/// What a body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

impl Format {
    /// `?format=json`, or text.
    pub(super) fn asked(query: &Query) -> Self {
        if query.get("format") == Some("json") { Self::Json } else { Self::Text }
    }

    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Text => HeaderValue::from_static("text/plain; charset=UTF-8"),
            Self::Json => HeaderValue::from_static("application/json"),
        }
    }
}

pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    respond(status, Format::Text, Either::Left(Full::new(text.into())))
}

/// What was printed before.
pub(super) fn whole(format: Format, body: impl Into<Bytes>) -> Response<Body> {
    respond(StatusCode::OK, format, Either::Left(Full::new(body.into())))
}

/// A small message of `envoy.admin.v3` in JSON.
pub(super) fn json(message: &impl Serialize) -> Response<Body> {
    let mut out = Vec::new();
    match write_json(message, &mut out) {
        Ok(()) => whole(Format::Json, out),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// What is still being printed.
pub(super) fn streamed(format: Format, body: Channel<Bytes, DumpFailed>) -> Response<Body> {
    respond(StatusCode::OK, format, Either::Right(body))
}

/// The node task has let the pod go, or is about to.
pub(super) fn gone() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, "the pod is being released\n")
}

/// Indented as Envoy does, by one blank.
pub(super) fn write_json(message: &impl Serialize, mut out: impl Write) -> std::io::Result<()> {
    let formatter = PrettyFormatter::with_indent(b" ");
    message.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))?;
    out.write_all(b"\n")
}

fn respond(status: StatusCode, format: Format, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fixed: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, format.content_type()),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    response.headers_mut().extend(fixed);
    response
}
