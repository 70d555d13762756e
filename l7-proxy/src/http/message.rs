//! Messages of the proxy's own to a collector: one request, of which the answer matters little.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method};
use orlop_plan::resource::collector::{Collector, CollectorProtocol};

use super::call::{CallError, Called, call};
use super::grpc_status;
use super::head::{RequestHead, Version};
use crate::pod::ConnectionContext;

/// Of a message of gRPC: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

/// What is sent.
pub(crate) struct Message<'a> {
    /// Whom to.
    pub(crate) collector: &'a Collector,
    /// The path of the method, where gRPC is spoken.
    pub(crate) method: &'a str,
    /// What it is, where HTTP is.
    pub(crate) content_type: &'static str,
    /// The message.
    pub(crate) body: Bytes,
}

/// Sends it. `Err` says why it was not taken.
pub(crate) async fn send_message(
    connection: &ConnectionContext,
    message: Message<'_>,
) -> Result<(), NotTaken> {
    let Message { collector, method, content_type, body } = message;
    let is_grpc = collector.protocol == CollectorProtocol::Grpc;
    let (path, content_type, version) = match &collector.protocol {
        CollectorProtocol::Grpc => (method, "application/grpc", Version::Http2),
        CollectorProtocol::Http { path } => (path.as_str(), content_type, Version::Http11),
    };
    let mut head = RequestHead {
        method: Method::POST,
        authority: collector.authority.clone(),
        path: path.to_owned(),
        version,
        has_authority: true,
        ..RequestHead::default()
    };
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let body = if is_grpc {
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
        framed(&body).ok_or(NotTaken::TooLong)?
    } else {
        head.headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        body
    };
    for (name, value) in &collector.headers {
        head.headers.insert(name, value.clone());
    }
    let asked = Box::pin(call(connection, &collector.cluster, &head, body, collector.timeout)).await?;
    let Called { status, headers, trailers, body: _ } = asked;
    let grpc = grpc_status::of(&trailers).or_else(|| grpc_status::of(&headers));
    match (is_grpc, grpc) {
        (true, Some(0)) => Ok(()),
        (true, Some(status)) => Err(NotTaken::Grpc(status)),
        (false, _) if status.is_success() => Ok(()),
        (true | false, _) => Err(NotTaken::Http(status)),
    }
}

/// Why a collector did not take a message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// It could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// gRPC has 32 bits for a length.
    #[error("the message is too long")]
    TooLong,
    /// It has answered so.
    #[error("it answers with status {0} of gRPC")]
    Grpc(u32),
    /// It has answered so.
    #[error("it answers with {0}")]
    Http(http::StatusCode),
}

fn framed(message: &[u8]) -> Option<Bytes> {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).ok()?);
    framed.extend_from_slice(message);
    Some(framed.freeze())
}
