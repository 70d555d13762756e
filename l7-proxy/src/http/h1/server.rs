//! A downstream HTTP/1.1 connection: one request after the other, pipelined ones too.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::CONTENT_LENGTH;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::poll_read;
use super::decoder::{Decoded, Decoder};
use super::encode::{self, ResponseContext};
use super::parse::{self, Limits, Persistence, ProtocolError};
use super::write_buffer::WriteBuffer;
use super::{BODY_READ_SIZE, READ_SIZE};
use crate::http::body::{BodyError, RequestBody, ResponseBody};
use crate::http::connection_manager::{ConnectionManager, Response};
use crate::http::head::{RequestHead, Version};
use crate::http::timer::Timer;
use crate::listener::PrefixedStream;
use crate::tls::Stream;

/// How much of pipelined requests is read ahead while one is being answered.
const READ_AHEAD: usize = 64 * 1024;
/// How long a connection that closes is read on, so that a client that is still sending sees the response and not a reset
/// (Envoy's `delayed_close_timeout`).
const LINGER: Duration = Duration::from_secs(1);

/// The connection, shared between the loop below and the body of the request that it is at.
struct Downstream(RefCell<State>);

struct State {
    io: Stream,
    read: BytesMut,
    out: WriteBuffer,
    body: Decoder,
    /// `100 Continue` is due when the body is asked for.
    continue_due: bool,
    /// The client is gone.
    closed: bool,
}

/// What a connection came to.
enum Next {
    /// Another request.
    Request,
    /// Its end; what the client may still be sending is to be read away first.
    Linger,
    /// Its end.
    Close,
}

/// Serves a connection to its end.
pub(crate) async fn serve(io: PrefixedStream<Stream>, manager: &ConnectionManager) {
    let (prefix, io) = io.into_parts();
    let downstream = Rc::new(Downstream(RefCell::new(State {
        io,
        read: BytesMut::from(prefix),
        out: WriteBuffer::default(),
        body: Decoder::new(super::decoder::Framing::None),
        continue_due: false,
        closed: false,
    })));
    let timer = Rc::new(Timer::default());
    let mut head = RequestHead::default();
    let mut drained = pin!(manager.pod().drain.leaving());
    loop {
        head.clear();
        let persistence = match receive(&downstream, manager, &timer, &mut head, drained.as_mut()).await {
            Ok(Some(persistence)) => persistence,
            Ok(None) => return close(downstream).await,
            Err(error) => {
                let response = manager.protocol_error(error);
                let context =
                    ResponseContext { to_head: false, to_http_10: false, empty: false, close: true };
                if downstream.send(response, context).await.is_ok() {
                    linger(downstream).await;
                }
                return;
            }
        };
        match exchange(&downstream, manager, &timer, &mut head, persistence).await {
            Some((Next::Request, _)) => {}
            Some((Next::Linger, None)) => return linger(downstream).await,
            Some((Next::Close, None)) => return close(downstream).await,
            None => return,
            Some((_, Some(tunnel))) => return self::tunnel(downstream, tunnel).await,
        }
    }
}

/// The head of the next request; `None` where the connection has ended, was idle for too long, or is drained.
async fn receive(
    downstream: &Rc<Downstream>,
    manager: &ConnectionManager,
    timer: &Timer,
    head: &mut RequestHead,
    mut drained: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<Persistence>, ProtocolError> {
    let config = manager.config();
    let limits = Limits {
        bytes: config.max_request_headers_bytes,
        headers: config.max_headers_count,
        http_10: config.accept_http_10,
    };
    let mut timed_as_idle = None;
    let received = poll_fn(|cx| {
        let mut state = downstream.0.borrow_mut();
        loop {
            if !state.read.is_empty() {
                match parse::request(&mut state.read, limits, head) {
                    Ok(None) => {}
                    Ok(Some(persistence)) => return Poll::Ready(Ok(Some(persistence))),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            match state.poll_read(READ_SIZE, cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(Ok(None)),
                Poll::Pending => break,
            }
        }
        let idle = state.read.is_empty();
        if idle && drained.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(None));
        }
        if timed_as_idle.replace(idle) != Some(idle) {
            let timeout = if idle { config.idle_timeout } else { config.request_headers_timeout };
            timer.set(timeout.map(|timeout| Instant::now() + timeout));
        }
        timer.poll_expired(cx).map(|()| Ok(None))
    })
    .await;
    timer.set(None);
    received
}

type Tunnel = ResponseBody;

/// Answers one request. `None` where the client has gone.
async fn exchange(
    downstream: &Rc<Downstream>,
    manager: &ConnectionManager,
    timer: &Rc<Timer>,
    head: &mut RequestHead,
    persistence: Persistence,
) -> Option<(Next, Option<Tunnel>)> {
    let to_head = head.method == Method::HEAD;
    let to_http_10 = head.version == Version::Http10;
    let body = downstream.begin(persistence);
    let response = {
        let mut handling = pin!(manager.handle(head, body, timer));
        poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => downstream.0.borrow_mut().poll_gone(cx).map(|()| None),
        })
        .await?
    };
    if downstream.0.borrow().closed {
        return None;
    }
    if response.body.is_tunnel() {
        let context = ResponseContext { to_head, to_http_10, empty: true, close: false };
        let tunnel = downstream.send(response, context).await.ok()?;
        return Some((Next::Close, Some(tunnel)));
    }
    let empty = response.body.is_end();
    let unread = !downstream.0.borrow().body.is_done();
    let undelimited = to_http_10 && !empty && !response.headers.contains_key(CONTENT_LENGTH);
    let close = !persistence.keep_alive || unread || undelimited || response.close || manager.is_draining();
    let context = ResponseContext { to_head, to_http_10, empty, close };
    downstream.send(response, context).await.ok()?;
    let unread = !downstream.0.borrow().body.is_done();
    let next = match close || unread {
        false => Next::Request,
        true if unread => Next::Linger,
        true => Next::Close,
    };
    Some((next, None))
}

impl Downstream {
    /// The body of the request whose head was just read.
    fn begin(self: &Rc<Self>, persistence: Persistence) -> RequestBody {
        let mut state = self.0.borrow_mut();
        state.body = Decoder::new(persistence.framing);
        state.continue_due = persistence.expects_continue;
        if state.body.is_done() {
            RequestBody::Empty
        } else {
            RequestBody::Http1(Http1RequestBody(Rc::clone(self)))
        }
    }

    /// Writes a response as its body comes. Gives back what is left of the body, which matters for tunnels; `Err` is a
    /// connection that is of no use any more.
    async fn send(&self, response: Response, context: ResponseContext) -> Result<ResponseBody, BodyError> {
        let Response { status, headers, mut body, .. } = response;
        let encoding = encode::response(status, &headers, context, self.0.borrow_mut().out.buffer());
        drop(headers);
        let mut ended = body.is_end() || body.is_tunnel();
        let mut broken = None;
        poll_fn(|cx| {
            loop {
                let mut starved = false;
                while !ended && broken.is_none() && self.0.borrow().out.takes_more() {
                    match body.poll_next(cx) {
                        Poll::Ready(Some(Ok(frame))) => {
                            if let Ok(data) = frame.into_data()
                                && !context.to_head
                            {
                                encoding.data(data, &mut self.0.borrow_mut().out);
                            }
                            ended = body.is_end();
                        }
                        // The client gets what came before the end.
                        Poll::Ready(Some(Err(error))) => {
                            broken = Some(error);
                            break;
                        }
                        Poll::Ready(None) => ended = true,
                        Poll::Pending => {
                            starved = true;
                            break;
                        }
                    }
                    if ended {
                        encoding.end(&mut self.0.borrow_mut().out);
                    }
                }
                let state = &mut *self.0.borrow_mut();
                match state.out.poll_flush(&mut state.io, cx) {
                    Poll::Ready(Ok(())) if ended => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) if broken.is_some() => {
                        return Poll::Ready(broken.map_or(Ok(()), Err));
                    }
                    Poll::Ready(Ok(())) if starved => {
                        return state.poll_gone(cx).map(|()| Err(BodyError::DownstreamClosed));
                    }
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(BodyError::DownstreamClosed)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await?;
        Ok(body)
    }
}

impl State {
    /// Reads; false is the end of the connection.
    fn poll_read(&mut self, size: usize, cx: &mut Context<'_>) -> Poll<bool> {
        let read = ready!(poll_read(&mut self.io, &mut self.read, size, cx));
        if !matches!(read, Ok(1..)) {
            self.closed = true;
        }
        Poll::Ready(!self.closed)
    }

    /// Ready once the client is gone. Looks only when nobody reads the request's body, and not beyond a bounded number of
    /// pipelined requests.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.body.is_done() && self.read.len() < READ_AHEAD {
            if !ready!(self.poll_read(READ_SIZE, cx)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// The body of the request that a connection is at.
pub(crate) struct Http1RequestBody(Rc<Downstream>);

impl fmt::Debug for Http1RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http1RequestBody").field(&self.0.0.borrow().body).finish()
    }
}

impl Http1RequestBody {
    /// Whether nothing is to come.
    pub(crate) fn is_end(&self) -> bool {
        self.0.0.borrow().body.is_done()
    }

    /// The next piece.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let state = &mut *self.0.0.borrow_mut();
        if std::mem::take(&mut state.continue_due) {
            state.out.buffer().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !state.out.is_empty() && matches!(state.out.poll_flush(&mut state.io, cx), Poll::Ready(Err(_))) {
            state.closed = true;
        }
        loop {
            if state.closed {
                return Poll::Ready(Some(Err(BodyError::DownstreamClosed)));
            }
            match state.body.decode(&mut state.read) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(_) => return Poll::Ready(Some(Err(BodyError::DownstreamProtocol))),
            }
            let size = if state.body.expects() > READ_SIZE as u64 { BODY_READ_SIZE } else { READ_SIZE };
            ready!(state.poll_read(size, cx));
        }
    }
}

/// Ends a connection. In TLS the end is said, so that it does not pass for a cut.
async fn close(downstream: Rc<Downstream>) {
    let Some(Downstream(state)) = Rc::into_inner(downstream) else { return };
    let mut io = state.into_inner().io;
    if io.is_tls() {
        // Whether the client takes it or not, the connection is dropped.
        let _done = tokio::time::timeout(LINGER, io.shutdown()).await;
    }
}

/// Ends a connection whose client may still be sending.
async fn linger(downstream: Rc<Downstream>) {
    let Some(Downstream(state)) = Rc::into_inner(downstream) else { return };
    let mut io = state.into_inner().io;
    let mut scratch = BytesMut::with_capacity(READ_SIZE);
    let read_away = async {
        io.shutdown().await?;
        while io.read_buf(&mut scratch).await? > 0 {
            scratch.clear();
        }
        Ok::<(), std::io::Error>(())
    };
    // Whether the client is done or not, the connection is dropped.
    let _done = tokio::time::timeout(LINGER, read_away).await;
}

/// Carries what is not HTTP any more, in both directions.
async fn tunnel(downstream: Rc<Downstream>, tunnel: Tunnel) {
    let Some((mut upstream, guard)) = tunnel.into_tunnel() else { return };
    let Some(Downstream(state)) = Rc::into_inner(downstream) else { return };
    let State { mut io, read, .. } = state.into_inner();
    let carry = async {
        upstream.io.write_all(&read).await?;
        io.write_all(&upstream.read).await?;
        let ahead = (read.len() as u64, upstream.read.len() as u64);
        let (received, sent) = tokio::io::copy_bidirectional(&mut io, &mut upstream.io).await?;
        Ok::<_, std::io::Error>((ahead.0 + received, ahead.1 + sent))
    };
    // An end by error is an end too.
    let carried = carry.await;
    if let Some(mut guard) = guard {
        if let (Ok((received, sent)), Some(info)) = (carried, guard.info()) {
            info.tunnelled(received, sent);
        }
        guard.finish(None);
    }
}
