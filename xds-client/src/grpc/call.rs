//! One call of the control plane's method, in either protocol.
//!
//! gRPC's framing is done here and not by tonic, whose streams keep room for the largest message that they ever carried: with
//! hundreds of streams, each of which begins with a megabyte, that would be most of the agent's memory. Here a message's
//! bytes are gone once it is decoded.
//!
//! Source: gRPC over HTTP/2, `PROTOCOL-HTTP2.md` of the gRPC project.

use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tower_service::Service;

use crate::protocol::{Protocol, Request, Response};

pub(super) type Responses = Pin<Box<dyn Stream<Item = Result<Response, Status>> + Send>>;

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const STATE_OF_THE_WORLD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// A flag that says whether the message is compressed, and its length.
const PREFIX: usize = 5;

/// Opens a stream. istiod sends no headers before its first response, and that waits for our requests; so an error of
/// the opening is the stream's first item.
pub(super) fn open(
    channel: Channel,
    protocol: Protocol,
    metadata: MetadataMap,
    max_response_bytes: usize,
    requests: mpsc::Receiver<Request>,
) -> Responses {
    let opened = async move {
        let answer = ask(channel, protocol, metadata, requests).await?;
        Ok::<_, Status>(Messages {
            protocol,
            body: answer,
            received: BytesMut::new(),
            max_bytes: max_response_bytes,
        })
    };
    let responses = stream::once(opened).map_ok(|messages| {
        stream::try_unfold(messages, |mut messages| async move {
            Ok::<_, Status>(messages.next().await?.map(|response| (response, messages)))
        })
    });
    Box::pin(responses.try_flatten())
}

/// The body of the answer, once its head is there and good.
async fn ask(
    mut channel: Channel,
    protocol: Protocol,
    metadata: MetadataMap,
    requests: mpsc::Receiver<Request>,
) -> Result<Body, Status> {
    let frames = ReceiverStream::new(requests).map(|request| Ok::<_, Status>(Frame::data(framed(&request))));
    let mut request = http::Request::new(Body::new(StreamBody::new(frames)));
    *request.method_mut() = Method::POST;
    let path = match protocol {
        Protocol::Delta => DELTA,
        Protocol::StateOfTheWorld => STATE_OF_THE_WORLD,
    };
    *request.uri_mut() = http::Uri::from_static(path);
    *request.headers_mut() = metadata.into_headers();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    let failed = |error| Status::from_error(Box::new(error));
    std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(failed)?;
    let answer = channel.call(request).await.map_err(failed)?;
    // Without a body, what would be the trailers is in the head.
    ended(answer.headers())?;
    if answer.status() != StatusCode::OK {
        return Err(Status::unavailable(format!("answered with HTTP status {}", answer.status())));
    }
    Ok(answer.into_body())
}

fn framed(request: &Request) -> Bytes {
    let len = match request {
        Request::Delta(request) => request.encoded_len(),
        Request::StateOfTheWorld(request) => request.encoded_len(),
    };
    let mut bytes = BytesMut::with_capacity(PREFIX + len);
    bytes.put_u8(0);
    // The protocol keeps requests below 4 MiB.
    bytes.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    let encoded = match request {
        Request::Delta(request) => request.encode(&mut bytes),
        Request::StateOfTheWorld(request) => request.encode(&mut bytes),
    };
    // Room was made for it.
    encoded.map_or_else(|_| Bytes::new(), |()| bytes.freeze())
}

/// An error, if these headers or trailers say that the call has ended with one.
fn ended(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        _ => Ok(()),
    }
}

/// The messages of a body.
struct Messages {
    protocol: Protocol,
    body: Body,
    /// What has come of the next message, and perhaps of some behind it.
    received: BytesMut,
    max_bytes: usize,
}

impl Messages {
    /// The next message; `None` at the end.
    async fn next(&mut self) -> Result<Option<Response>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return self.decode(message).map(Some);
            }
            match self.body.frame().await {
                None if self.received.is_empty() => return Ok(None),
                None => return Err(Status::unavailable("closed in the middle of a message")),
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.received.extend_from_slice(&data),
                    Err(frame) => ended(frame.trailers_ref().unwrap_or(&HeaderMap::new()))?,
                },
            }
        }
    }

    /// Takes a whole message off what has come.
    fn take(&mut self) -> Result<Option<BytesMut>, Status> {
        let Some((mut prefix, rest)) = self.received.split_at_checked(PREFIX) else { return Ok(None) };
        if prefix.get_u8() != 0 {
            return Err(Status::unimplemented("the message is compressed, which was not offered"));
        }
        let len = usize::try_from(prefix.get_u32()).unwrap_or(usize::MAX);
        if len > self.max_bytes {
            return Err(Status::out_of_range(format!(
                "a message of {len} bytes is above the limit of {} bytes",
                self.max_bytes
            )));
        }
        if rest.len() < len {
            let missing = len - rest.len();
            self.received.reserve(missing);
            return Ok(None);
        }
        // What comes behind moves to a buffer of its own, so that this one goes with its message.
        let behind = BytesMut::from(rest.get(len..).unwrap_or_default());
        let mut message = std::mem::replace(&mut self.received, behind);
        message.advance(PREFIX);
        message.truncate(len);
        Ok(Some(message))
    }

    fn decode(&self, message: BytesMut) -> Result<Response, Status> {
        match self.protocol {
            Protocol::Delta => DeltaDiscoveryResponse::decode(message).map(Response::Delta),
            Protocol::StateOfTheWorld => DiscoveryResponse::decode(message).map(Response::StateOfTheWorld),
        }
        .map_err(|error| Status::internal(format!("a message does not decode: {error}")))
    }
}
