//! One request and its response on an HTTP/1.1 connection to an upstream.
//!
//! The request's body is sent while the response is read, since an upstream may answer before it has the whole request.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::decoder::{Decoded, Decoder};
use super::encode::{self, BodyEncoding};
use super::parse::{self, Persistence};
use super::{BODY_READ_SIZE, READ_SIZE};
use crate::http::body::{BodyError, RequestBody};
use crate::http::head::{RequestHead, ResponseHead};
use crate::upstream::Http1Connection;

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExchangeError {
    /// The upstream closed or reset the connection before the response's head was whole.
    Terminated,
    /// What the upstream sent is not a response.
    Protocol,
    /// The request's body broke off.
    Request(BodyError),
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    connection: Box<Http1Connection>,
    upload: Upload,
    to_head: bool,
}

/// What is left to be sent of the request.
#[derive(Debug)]
enum Upload {
    /// Some of the body is still to be encoded.
    Body(RequestBody, BodyEncoding),
    /// All is encoded, not all of it may be written.
    Encoded,
    /// All is written.
    Done,
    /// The upstream takes no more; it may have answered all the same.
    Broken,
}

impl Exchange {
    /// Encodes the request; polling sends it.
    pub(crate) fn new(mut connection: Box<Http1Connection>, head: &RequestHead, body: RequestBody) -> Self {
        let has_body = !body.is_empty();
        let encoding = encode::request(head, has_body, connection.write.buffer());
        let upload = if has_body { Upload::Body(body, encoding) } else { Upload::Encoded };
        Self { connection, upload, to_head: head.method == Method::HEAD }
    }

    /// Whether the whole request is sent.
    pub(crate) fn is_sent(&self) -> bool {
        matches!(self.upload, Upload::Done | Upload::Broken)
    }

    /// Sends the request as far as possible, and gives the head of the final response.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(ResponseHead, ResponseFraming), ExchangeError>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Err(ExchangeError::Request(error)));
        }
        loop {
            if !self.connection.read.is_empty() {
                match parse::response(&mut self.connection.read, self.to_head) {
                    Ok(Some((head, persistence))) => {
                        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
                        if head.status.is_informational() && !switches {
                            // `100 Continue` is the proxy's own to say; Envoy drops the others as well.
                            continue;
                        }
                        return Poll::Ready(Ok((head, ResponseFraming(persistence))));
                    }
                    Ok(None) => {}
                    Err(_) => return Poll::Ready(Err(ExchangeError::Protocol)),
                }
            }
            match ready!(self.connection.poll_read(READ_SIZE, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(ExchangeError::Terminated)),
                Ok(_) => {}
            }
        }
    }

    /// The connection, to tunnel through it after `101 Switching Protocols`.
    pub(crate) fn into_connection(self) -> Box<Http1Connection> {
        self.connection
    }

    /// What follows the head.
    pub(crate) fn into_body(self, framing: ResponseFraming, now: Instant) -> Http1ResponseBody {
        let decoder = Decoder::new(framing.0.framing);
        let mut body =
            Http1ResponseBody { exchange: Some(self), decoder, keep_alive: framing.0.keep_alive, now };
        body.release_if_done();
        body
    }

    /// Ready when the whole request is sent, or cannot be.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Http1Connection { io, write, .. } = &mut *self.connection;
        loop {
            let mut starved = false;
            if let Upload::Body(body, encoding) = &mut self.upload {
                while write.takes_more() {
                    match body.poll_next(cx) {
                        Poll::Ready(Some(Ok(frame))) => {
                            if let Ok(data) = frame.into_data() {
                                encoding.data(data, write);
                            }
                        }
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                        Poll::Ready(None) => {
                            encoding.end(write);
                            self.upload = Upload::Encoded;
                            break;
                        }
                        Poll::Pending => {
                            starved = true;
                            break;
                        }
                    }
                }
            }
            if matches!(self.upload, Upload::Done | Upload::Broken) {
                return Poll::Ready(Ok(()));
            }
            match write.poll_flush(io, cx) {
                Poll::Ready(Ok(())) if matches!(self.upload, Upload::Encoded) => {
                    self.upload = Upload::Done;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(())) if starved => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.upload = Upload::Broken;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What a response's head says of its body and of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseFraming(Persistence);

/// The body of a response. Gives the connection back to its pool when both directions are done; closes it when dropped
/// before.
#[derive(Debug)]
pub(crate) struct Http1ResponseBody {
    exchange: Option<Exchange>,
    decoder: Decoder,
    keep_alive: bool,
    /// When the head came, which is precise enough for the connection's idle time.
    now: Instant,
}

impl Http1ResponseBody {
    /// Whether nothing is to come.
    pub(crate) fn is_end(&self) -> bool {
        self.decoder.is_done()
    }

    /// The next piece.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if let Poll::Ready(Err(error)) = exchange.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let connection = &mut exchange.connection;
            match self.decoder.decode(&mut connection.read) {
                Ok(Decoded::Data(data)) => {
                    self.release_if_done();
                    return Poll::Ready(Some(Ok(data)));
                }
                Ok(Decoded::End) => {
                    self.release_if_done();
                    return Poll::Ready(None);
                }
                Ok(Decoded::NeedMore) => {}
                Err(_) => return Poll::Ready(Some(Err(BodyError::UpstreamProtocol))),
            }
            let size = if self.decoder.expects() > READ_SIZE as u64 { BODY_READ_SIZE } else { READ_SIZE };
            match ready!(connection.poll_read(size, cx)) {
                Ok(0) if self.decoder.end_of_stream() => {
                    self.exchange = None;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(BodyError::UpstreamProtocol))),
                Err(_) => return Poll::Ready(Some(Err(BodyError::UpstreamReset))),
                Ok(_) => {}
            }
        }
    }

    /// A response that is over before its request is: the connection is of no use any more, and is closed, as by Envoy.
    fn release_if_done(&mut self) {
        if !self.decoder.is_done() {
            return;
        }
        if let Some(exchange) = self.exchange.take()
            && self.keep_alive
            && matches!(exchange.upload, Upload::Done)
        {
            exchange.connection.release(self.now);
        }
    }
}

impl Http1Connection {
    /// Reads what there is, up to `size` bytes where the buffer has no more room anyway.
    fn poll_read(&mut self, size: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read(&mut self.io, &mut self.read, size, cx)
    }
}

/// Reads into a buffer. `size` is the room made when there is none.
pub(super) fn poll_read<R: AsyncRead + Unpin>(
    io: &mut R,
    buffer: &mut BytesMut,
    size: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if buffer.capacity() - buffer.len() < size / 2 {
        buffer.reserve(size);
    }
    // The future holds nothing between polls, so that a new one for each is the same.
    let read: Pin<&mut _> = pin!(io.read_buf(buffer));
    read.poll(cx)
}
