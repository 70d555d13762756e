//! Bodies of requests and responses on their way through the proxy. Nothing here holds a body as a whole: a piece is read
//! when the other side has taken the one before.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::deadlines::Expired;
use super::filter::{Base64Body, GrpcWebEncoder};
use super::h1::{Http1RequestBody, Http1ResponseBody};
use super::replay::ReplayBody;
use super::stream::{GONE, StreamGuard};
use super::stream_info::UploadMeter;
use super::tee::{Tee, TeeCopy};
use crate::stats::ResponseFlag;
use crate::upstream::{Http1Connection, Http2Stream};

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client is gone.
    #[error("the downstream connection is closed")]
    DownstreamClosed,
    /// The client's body is malformed.
    #[error("the request's body is malformed")]
    DownstreamProtocol,
    /// The upstream closed the connection or reset the stream.
    #[error("the upstream broke off its response")]
    UpstreamReset,
    /// The upstream's body is malformed or ended early.
    #[error("the upstream's body is malformed")]
    UpstreamProtocol,
    /// A deadline passed in the middle of the response.
    #[error("the response took too long")]
    Expired(Expired),
}

impl BodyError {
    /// Envoy's flag for a stream that ends so.
    pub(crate) fn flag(self) -> ResponseFlag {
        match self {
            Self::DownstreamClosed => ResponseFlag::DownstreamConnectionTermination,
            Self::DownstreamProtocol => ResponseFlag::DownstreamProtocolError,
            Self::UpstreamReset => ResponseFlag::UpstreamConnectionTermination,
            Self::UpstreamProtocol => ResponseFlag::UpstreamProtocolError,
            Self::Expired(Expired::Route | Expired::Attempt) => ResponseFlag::UpstreamRequestTimeout,
            Self::Expired(Expired::Idle) => ResponseFlag::StreamIdleTimeout,
            Self::Expired(Expired::Stream) => ResponseFlag::DurationTimeout,
        }
    }
}

impl BodyError {
    /// Envoy's words for a stream that ends so.
    fn details(self) -> &'static str {
        match self {
            Self::DownstreamClosed => GONE,
            Self::DownstreamProtocol => "http1.codec_error",
            Self::UpstreamReset => "upstream_reset_after_response_started{connection_termination}",
            Self::UpstreamProtocol => "upstream_reset_after_response_started{protocol_error}",
            Self::Expired(Expired::Route | Expired::Attempt) => "response_timeout",
            Self::Expired(Expired::Idle) => "stream_idle_timeout",
            Self::Expired(Expired::Stream) => "max_duration_timeout",
        }
    }
}

/// What polling a body gives.
pub(crate) type PolledFrame = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// The body of a request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// From an HTTP/1.1 connection.
    Http1(Http1RequestBody),
    /// From an HTTP/2 stream.
    Http2(Incoming),
    /// Kept for another attempt as it passes.
    Replay(ReplayBody),
    /// Counted as it passes.
    Metered(Box<RequestBody>, Rc<UploadMeter>),
    /// In base64, as gRPC-Web may have it.
    Base64(Base64Body),
    /// Copied for others as it passes.
    Tee(Tee),
    /// Such a copy.
    Copy(TeeCopy),
    /// There is no more than this.
    Whole(Bytes),
    /// This comes first.
    Begun(Bytes, Box<RequestBody>),
}

impl RequestBody {
    /// Whether nothing is to come.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Replay(body) => body.is_end(),
            Self::Base64(body) => body.is_end(),
            Self::Tee(body) => body.is_end(),
            Self::Copy(body) => body.is_end(),
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Begun(bytes, rest) => bytes.is_empty() && rest.is_empty(),
            Self::Metered(body, _) => body.is_empty(),
        }
    }

    /// Counted from now on, where there is anything to count.
    pub(crate) fn metered(self, guard: &mut StreamGuard) -> Self {
        match guard.info() {
            Some(info) if !self.is_empty() => Self::Metered(Box::new(self), info.meter()),
            _ => self,
        }
    }

    /// The next piece.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        match self {
            Self::Whole(bytes) | Self::Begun(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Empty | Self::Whole(_) => Poll::Ready(None),
            Self::Http1(body) => body.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data))),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(|_| BodyError::DownstreamClosed),
            Self::Replay(body) => body.poll_next(cx),
            Self::Metered(body, meter) => {
                let next = body.poll_next(cx);
                if let Poll::Ready(Some(Ok(frame))) = &next
                    && let Some(data) = frame.data_ref()
                {
                    meter.pass(data);
                }
                next
            }
            Self::Base64(body) => body.poll_next(cx),
            Self::Tee(body) => body.poll_next(cx),
            Self::Copy(body) => body.poll_next(cx),
            Self::Begun(_, rest) => rest.poll_next(cx),
        }
    }
}

/// The body of a response, and what ends with it.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    source: ResponseSource,
    guard: Option<StreamGuard>,
    /// Where it goes to a browser as gRPC-Web.
    web: Option<Box<GrpcWebEncoder>>,
}

/// Where a response's body comes from.
#[derive(Debug)]
pub(crate) enum ResponseSource {
    /// There is none.
    Empty,
    /// Made by the proxy.
    Local(Bytes),
    /// From an HTTP/1.1 upstream.
    Http1(Box<Http1ResponseBody>),
    /// From an HTTP/2 upstream, on a connection that is kept open for it.
    Http2(Incoming, #[expect(dead_code, reason = "held, not read")] Http2Stream),
    /// The upstream switched protocols: what follows is not HTTP.
    Tunnel(Box<Http1Connection>),
}

impl ResponseBody {
    /// A body that the proxy made itself.
    pub(crate) fn local(body: Bytes) -> Self {
        let source = if body.is_empty() { ResponseSource::Empty } else { ResponseSource::Local(body) };
        Self { source, guard: None, web: None }
    }

    /// What the proxy made itself.
    pub(crate) fn own(&self) -> &[u8] {
        match &self.source {
            ResponseSource::Local(body) => body,
            _ => &[],
        }
    }

    /// A body that comes from upstream. `guard` ends with it.
    pub(crate) fn upstream(source: ResponseSource, guard: StreamGuard) -> Self {
        let mut body = Self { source, guard: Some(guard), web: None };
        if body.is_end() {
            body.finish(None);
        }
        body
    }

    /// Makes gRPC-Web of it.
    pub(crate) fn encode_for_web(&mut self, encoder: GrpcWebEncoder) {
        self.web = Some(Box::new(encoder));
    }

    /// The connection to tunnel through, where the upstream switched protocols, and what ends with the tunnel.
    pub(crate) fn into_tunnel(self) -> Option<(Box<Http1Connection>, Option<StreamGuard>)> {
        match self.source {
            ResponseSource::Tunnel(connection) => Some((connection, self.guard)),
            _ => None,
        }
    }

    /// Whether it is a tunnel.
    pub(crate) fn is_tunnel(&self) -> bool {
        matches!(self.source, ResponseSource::Tunnel(_))
    }

    /// Whether nothing is to come.
    pub(crate) fn is_end(&self) -> bool {
        match &self.source {
            ResponseSource::Empty => true,
            ResponseSource::Local(_) | ResponseSource::Tunnel(_) => false,
            ResponseSource::Http1(body) => body.is_end(),
            ResponseSource::Http2(body, _) => body.is_end_stream(),
        }
    }

    /// The next piece.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if let Some(guard) = &self.guard
            && guard.poll_expired(cx).is_ready()
        {
            let error = BodyError::Expired(guard.expired());
            self.finish(Some(error));
            self.source = ResponseSource::Empty;
            return Poll::Ready(Some(Err(error)));
        }
        let next = match &mut self.source {
            ResponseSource::Empty | ResponseSource::Tunnel(_) => Poll::Ready(None),
            ResponseSource::Local(body) => {
                let body = std::mem::take(body);
                self.source = ResponseSource::Empty;
                Poll::Ready(Some(Ok(Frame::data(body))))
            }
            ResponseSource::Http1(body) => {
                body.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data)))
            }
            ResponseSource::Http2(body, _) => {
                Pin::new(body).poll_frame(cx).map_err(|_| BodyError::UpstreamReset)
            }
        };
        if let Poll::Ready(Some(Ok(frame))) = &next
            && let Some(info) = self.guard.as_mut().and_then(StreamGuard::info)
        {
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => info.passed(data),
                (_, Some(trailers)) => info.trailed(trailers),
                (None, None) => {}
            }
        }
        match &next {
            Poll::Ready(None) => self.finish(None),
            Poll::Ready(Some(Err(error))) => self.finish(Some(*error)),
            Poll::Ready(Some(Ok(_))) if self.is_end() => self.finish(None),
            Poll::Ready(Some(Ok(_))) => self.guard.iter().for_each(StreamGuard::active),
            Poll::Pending => {}
        }
        match &mut self.web {
            Some(web) => next.map_ok(|frame| web.encode(frame)),
            None => next,
        }
    }

    fn finish(&mut self, error: Option<BodyError>) {
        if let Some(mut guard) = self.guard.take() {
            if let Some(BodyError::UpstreamReset | BodyError::UpstreamProtocol) = error {
                guard.reset_by_upstream();
            }
            if let Some(error) = error {
                guard.details(error.details());
            }
            guard.finish(error.map(BodyError::flag));
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        self.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            _ if self.web.is_some() => SizeHint::default(),
            ResponseSource::Empty => SizeHint::with_exact(0),
            ResponseSource::Local(body) => SizeHint::with_exact(body.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
