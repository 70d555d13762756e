//! Bytes between two connections, until both sides have ended.
//!
//! A side that ends its half is passed on as a half-close; a side that resets is passed on as a reset. A slow receiver
//! stops the reading of its sender after one buffer, so that memory is bounded and back-pressure is the kernel's. In TLS a half
//! ends by `close_notify`; a connection that ends without is cut off, which is passed on as a reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::listener::PrefixedStream;
use crate::pod::PodContext;
use crate::tls::Stream;

use super::buffer_pool::BufferPool;
use super::log::ConnectionLog;
use super::metrics::Counted;

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Both sides ended their half.
    Finished,
    /// The downstream reset, or cannot be written to.
    ResetByDownstream,
    /// The upstream reset, or cannot be written to.
    ResetByUpstream,
    /// Nothing moved for `idle_timeout`.
    Idle,
    /// `max_downstream_connection_duration`.
    MaxDuration,
    /// A policy that has changed does not let it in any more.
    Denied,
}

/// Two connections. Dropped before the end, both are reset: a clean end would pass for the end of the data.
pub(super) struct Relay<'p> {
    downstream: Stream,
    upstream: Stream,
    /// Bytes that the listener filters read.
    prefix: Bytes,
    to_upstream: Half,
    to_downstream: Half,
    idle: Option<IdleTimer>,
    pod: &'p PodContext,
    counted: Option<Counted>,
    log: Option<&'p ConnectionLog>,
    clean: bool,
}

/// One direction.
#[derive(Default)]
struct Half {
    in_flight: Option<InFlight>,
    state: HalfState,
    moved: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum HalfState {
    #[default]
    Open,
    /// The sender ended; what is in flight is still to be written.
    Ended,
    /// The end was passed on.
    Closed,
}

/// Bytes read and not yet written.
struct InFlight {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Which of a direction's two sides failed.
enum Broken {
    Sender,
    Receiver,
}

struct IdleTimer {
    timeout: Duration,
    sleep: Pin<Box<Sleep>>,
    last_moved: Instant,
}

impl<'p> Relay<'p> {
    /// `idle_timeout` is `None` for never.
    pub(super) fn new(
        downstream: PrefixedStream<Stream>,
        upstream: Stream,
        idle_timeout: Option<Duration>,
        pod: &'p PodContext,
        counted: Option<Counted>,
        log: Option<&'p ConnectionLog>,
    ) -> Self {
        let (prefix, downstream) = downstream.into_parts();
        Self {
            downstream,
            upstream,
            prefix,
            to_upstream: Half::default(),
            to_downstream: Half::default(),
            idle: idle_timeout.map(IdleTimer::new),
            pod,
            counted,
            log,
            clean: false,
        }
    }

    /// Relays to the end.
    pub(super) async fn run(&mut self) -> Ended {
        let ended = std::future::poll_fn(|cx| self.poll_relay(cx)).await;
        self.clean = matches!(ended, Ended::Finished | Ended::Idle);
        ended
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Self { downstream, upstream, prefix, to_upstream, to_downstream, .. } = self;
        let pool: &BufferPool = &self.pod.buffers;
        let before = (to_upstream.moved, to_downstream.moved);

        let upwards = match poll_write_prefix(prefix, upstream, cx) {
            Poll::Ready(Ok(())) => to_upstream.poll_move(downstream, upstream, pool, cx),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Broken::Receiver)),
            Poll::Pending => Poll::Pending,
        };
        let downwards = to_downstream.poll_move(upstream, downstream, pool, cx);

        let moved = (to_upstream.moved - before.0, to_downstream.moved - before.1);
        self.pod.counters.bytes_received.add(moved.0);
        self.pod.counters.bytes_sent.add(moved.1);
        if let Some(counted) = &self.counted {
            counted.moved(moved.0, moved.1);
        }
        if let Some(log) = self.log {
            log.moved(moved.0, moved.1);
        }
        match (upwards, downwards) {
            (Poll::Ready(Err(Broken::Sender)), _) | (_, Poll::Ready(Err(Broken::Receiver))) => {
                return Poll::Ready(Ended::ResetByDownstream);
            }
            (Poll::Ready(Err(Broken::Receiver)), _) | (_, Poll::Ready(Err(Broken::Sender))) => {
                return Poll::Ready(Ended::ResetByUpstream);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ended::Finished),
            _ => {}
        }
        match &mut self.idle {
            Some(idle) => idle.poll_idle(moved != (0, 0), cx).map(|()| Ended::Idle),
            None => Poll::Pending,
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        if !self.clean {
            // Fails on a connection that is gone, which needs no reset.
            let _downstream = self.downstream.tcp().set_zero_linger();
            let _upstream = self.upstream.tcp().set_zero_linger();
        }
    }
}

impl Half {
    /// Moves bytes until the sender has no more for now, the receiver takes no more for now, or the end is passed on.
    fn poll_move(
        &mut self,
        from: &mut Stream,
        to: &mut Stream,
        pool: &BufferPool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if let Some(in_flight) = &mut self.in_flight {
                let written = ready!(in_flight.poll_write(to, cx)).map_err(|_| Broken::Receiver)?;
                self.moved += written as u64;
                if let Some(done) = self.in_flight.take_if(|in_flight| in_flight.is_empty()) {
                    pool.give(done.buffer);
                }
                continue;
            }
            match self.state {
                HalfState::Closed => return Poll::Ready(Ok(())),
                HalfState::Ended => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| Broken::Receiver)?;
                    self.state = HalfState::Closed;
                }
                HalfState::Open => {
                    // What TLS holds back is written before more is read.
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|_| Broken::Receiver)?;
                    // Before a buffer is taken, so that waiting costs none.
                    ready!(from.poll_read_ready(cx)).map_err(|_| Broken::Sender)?;
                    match InFlight::poll_read(from, pool, cx) {
                        Poll::Ready(Ok(Some(in_flight))) => self.in_flight = Some(in_flight),
                        Poll::Ready(Ok(None)) => self.state = HalfState::Ended,
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Sender)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}

impl InFlight {
    /// `None` is the end of the sender's half.
    fn poll_read(
        from: &mut Stream,
        pool: &BufferPool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Self>>> {
        let mut buffer = pool.take();
        let mut space = ReadBuf::new(&mut buffer);
        let read = Pin::new(from).poll_read(cx, &mut space);
        let end = space.filled().len();
        match read {
            Poll::Ready(Ok(())) if end > 0 => Poll::Ready(Ok(Some(Self { buffer, start: 0, end }))),
            other => {
                pool.give(buffer);
                other.map_ok(|()| None)
            }
        }
    }

    fn poll_write(&mut self, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let unsent = self.buffer.get(self.start..self.end).unwrap_or_default();
        let written = ready!(Pin::new(to).poll_write(cx, unsent))?;
        self.start += written;
        Poll::Ready(Ok(written))
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl IdleTimer {
    fn new(timeout: Duration) -> Self {
        Self { timeout, sleep: Box::pin(tokio::time::sleep(timeout)), last_moved: Instant::now() }
    }

    /// Ready when nothing moved for the whole time. The timer itself is only set again when it fires.
    fn poll_idle(&mut self, moved: bool, cx: &mut Context<'_>) -> Poll<()> {
        if moved {
            self.last_moved = Instant::now();
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let deadline = self.last_moved + self.timeout;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(deadline);
        }
    }
}

fn poll_write_prefix(prefix: &mut Bytes, to: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !prefix.is_empty() {
        let written = ready!(Pin::new(&mut *to).poll_write(cx, prefix))?;
        prefix.advance(written);
    }
    // Lets go of the allocation.
    *prefix = Bytes::new();
    Poll::Ready(Ok(()))
}
