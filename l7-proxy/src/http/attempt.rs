//! One attempt of a request: a connection to the chosen host, the request on it, the response's head.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::StatusCode;
use orlop_plan::resource::cluster::UpstreamProtocol;
use orlop_plan::resource::http_connection_manager::{AlpnProtocol, HttpConnectionManager};

use super::body::{BodyError, RequestBody, ResponseSource};
use super::deadlines::{Deadlines, Expired};
use super::h1::{Exchange, ExchangeError};
use super::h2::{self, SendError, Upload};
use super::head::{RequestHead, ResponseHead, Version};
use super::retry::ResetReason;
use super::stream::StreamGuard;
use crate::dialer::DialError;
use crate::outlier::Report;
use crate::tls::Stream;
use crate::upstream::{
    Http1Connection, Http2Connection, Membership, OpenError, Picked, Pools, UpstreamCluster, open,
};

/// Why an attempt brought no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The stream was reset; `sent` is whether any of the request was sent.
    Reset { reason: ResetReason, sent: bool },
    /// The request's own body broke off.
    Request(BodyError),
    /// It took too long as a whole.
    Expired(Expired),
}

impl Failure {
    /// Before anything was sent.
    pub(crate) fn unsent(reason: ResetReason) -> Self {
        Self::Reset { reason, sent: false }
    }

    fn expired(deadlines: &Deadlines) -> Self {
        match deadlines.expired() {
            Expired::Attempt => Self::Reset { reason: ResetReason::PerTryTimeout, sent: true },
            expired => Self::Expired(expired),
        }
    }
}

/// A response's head, and where its body comes from.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The head.
    pub(crate) head: ResponseHead,
    /// The body.
    pub(crate) source: ResponseSource,
    /// When the head came.
    pub(crate) at: Instant,
    /// Who has sent it; `None` in plaintext.
    pub(crate) principal: Option<Arc<str>>,
}

/// What an attempt is sent to.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The cluster.
    pub(crate) cluster: &'a UpstreamCluster,
    /// Its host.
    pub(crate) picked: &'a Picked,
    /// Whose filter may replace the ALPN that TLS offers; `None` where the cluster does not want it.
    pub(crate) alpn: Option<&'a HttpConnectionManager>,
}

/// Sends a request as the cluster speaks.
pub(crate) async fn send(
    target: Target<'_>,
    head: &RequestHead,
    body: RequestBody,
    deadlines: &mut Deadlines,
    guard: &StreamGuard,
) -> Result<Answer, Failure> {
    let over_http2 = match target.cluster.cluster().protocol {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => head.version == Version::Http2,
    };
    target.cluster.counters().requests.inc();
    if over_http2 {
        // Boxed, so that HTTP/1.1 connections do not carry the larger state of HTTP/2 with them.
        Box::pin(http2(target, head, body, deadlines, guard)).await
    } else {
        http1(target, head, body, deadlines, guard).await
    }
}

async fn http1(
    target: Target<'_>,
    head: &RequestHead,
    body: RequestBody,
    deadlines: &mut Deadlines,
    guard: &StreamGuard,
) -> Result<Answer, Failure> {
    let timed = deadlines.are_set();
    let mut received = body.is_empty();
    if timed {
        deadlines.begin(guard.timer(), received);
    }
    let pools = target.picked.pools(guard.connection().upstream_source());
    let connection = match pools.http1.take() {
        Some(connection) => connection,
        None => in_time(deadlines, guard, connect(target, &pools, guard)).await?,
    };
    connected(guard, || connection.io.tcp().local_addr().ok());
    target.picked.report(Report::Connected);
    let mut exchange = Exchange::new(connection, head, body);
    let (head, framing) = poll_fn(|cx| {
        if let Poll::Ready(response) = exchange.poll_head(cx) {
            return Poll::Ready(response.map_err(|error| match error {
                ExchangeError::Terminated => {
                    Failure::Reset { reason: ResetReason::ConnectionTermination, sent: true }
                }
                ExchangeError::Protocol => Failure::Reset { reason: ResetReason::ProtocolError, sent: true },
                ExchangeError::Request(error) => Failure::Request(error),
            }));
        }
        if timed && !received && exchange.is_sent() {
            received = true;
            deadlines.start(guard.timer());
        }
        guard.poll_expired(cx).map(|()| Err(Failure::expired(deadlines)))
    })
    .await?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let source = ResponseSource::Tunnel(exchange.into_connection());
        return Ok(Answer { head, source, at: Instant::now(), principal: pools.principal() });
    }
    let at = Instant::now();
    let body = exchange.into_body(framing, at);
    let source = if body.is_end() { ResponseSource::Empty } else { ResponseSource::Http1(Box::new(body)) };
    Ok(Answer { head, source, at, principal: pools.principal() })
}

async fn http2(
    target: Target<'_>,
    head: &RequestHead,
    body: RequestBody,
    deadlines: &mut Deadlines,
    guard: &StreamGuard,
) -> Result<Answer, Failure> {
    let (mut upload, watch) = Upload::new(body);
    let mut received = !deadlines.are_set();
    if !received {
        deadlines.begin(guard.timer(), false);
    }
    let pools = target.picked.pools(guard.connection().upstream_source());
    loop {
        let connecting = connect_http2(target, &pools, guard);
        let connection = in_time(deadlines, guard, connecting).await?;
        connected(guard, || connection.local_address());
        target.picked.report(Report::Connected);
        let mut responding = pin!(h2::respond(&connection, head, upload));
        let responded = poll_fn(|cx| {
            if let Poll::Ready(responded) = responding.as_mut().poll(cx) {
                return Poll::Ready(Ok(responded));
            }
            if !received && watch.poll_ended(cx).is_ready() {
                received = true;
                deadlines.start(guard.timer());
            }
            guard.poll_expired(cx).map(|()| Err(Failure::expired(deadlines)))
        })
        .await?;
        match responded {
            Ok((head, body, stream)) => {
                let source = ResponseSource::Http2(body, stream);
                return Ok(Answer { head, source, at: Instant::now(), principal: pools.principal() });
            }
            Err(SendError::Unsent(unsent)) => {
                pools.http2.retire(&connection);
                upload = unsent;
            }
            Err(SendError::Reset(reason)) => {
                return Err(match watch.error() {
                    Some(error) => Failure::Request(error),
                    None => Failure::Reset { reason, sent: true },
                });
            }
        }
    }
}

/// For logs: the request goes by this connection.
fn connected(guard: &StreamGuard, local: impl FnOnce() -> Option<SocketAddr>) {
    guard.unconnected(String::new());
    if let Some(notes) = guard.notes() {
        notes.connected(local);
    }
}

/// Runs what comes before the request until the deadline.
async fn in_time<T>(
    deadlines: &Deadlines,
    guard: &StreamGuard,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending => guard.poll_expired(cx).map(|()| Err(Failure::expired(deadlines))),
        ready @ Poll::Ready(_) => ready,
    })
    .await
}

/// A connection with room for another stream: one that is open, or a new one.
async fn connect_http2(
    target: Target<'_>,
    pools: &Rc<Pools>,
    guard: &StreamGuard,
) -> Result<Rc<Http2Connection>, Failure> {
    let Target { cluster, picked, alpn } = target;
    if let Some(open) = pools.http2.get() {
        return Ok(open);
    }
    let _pending = cluster.try_pending().ok_or(Failure::unsent(ResetReason::Overflow))?;
    let _opening = pools.http2.opening.lock().await;
    if let Some(open) = pools.http2.get() {
        return Ok(open);
    }
    let host = picked.host().state();
    let permit = cluster.try_connection_to(host).ok_or(Failure::unsent(ResetReason::Overflow))?;
    let alpn = alpn.and_then(|manager| manager.alpn_override(AlpnProtocol::Http2));
    let io = dial(target, alpn, guard).await?;
    pools.met(&io);
    let membership = Membership::new(host, pools, cluster.counters(), permit);
    let opened = h2::connect(io, cluster.cluster(), membership).await.map_err(Failure::unsent)?;
    Ok(pools.http2.add(opened))
}

/// A connection that is not in the pool: a new one, or, where there may be no more, one that another request gives back.
async fn connect(
    target: Target<'_>,
    pools: &Rc<Pools>,
    guard: &StreamGuard,
) -> Result<Box<Http1Connection>, Failure> {
    let Target { cluster, picked, alpn } = target;
    let host = picked.host().state();
    let _pending = cluster.try_pending().ok_or(Failure::unsent(ResetReason::Overflow))?;
    let permit = loop {
        if let Some(permit) = cluster.try_connection_to(host) {
            break permit;
        }
        if let Some(connection) = pools.http1.wait().await {
            return Ok(connection);
        }
    };
    let alpn = alpn.and_then(|manager| manager.alpn_override(AlpnProtocol::Http11));
    let io = dial(target, alpn, guard).await?;
    pools.met(&io);
    let membership = Membership::new(host, pools, cluster.counters(), permit);
    Ok(Box::new(Http1Connection::new(io, cluster.cluster(), membership)))
}

/// Opens a connection from inside the pod's namespace. No ALPN leaves the TLS context's.
async fn dial(target: Target<'_>, alpn: Option<&[String]>, guard: &StreamGuard) -> Result<Stream, Failure> {
    open(target.cluster, target.picked, guard.connection(), alpn).await.map_err(|error| {
        guard.unconnected(error.transport_failure());
        Failure::unsent(match error {
            OpenError::Dial(DialError::Namespace(_) | DialError::Socket { .. }) => {
                ResetReason::LocalConnectionFailure
            }
            OpenError::Dial(DialError::Connect { .. }) | OpenError::Tls(_) => {
                ResetReason::RemoteConnectionFailure
            }
            OpenError::Dial(DialError::Timeout { .. }) | OpenError::TlsTimeout => {
                ResetReason::ConnectionTimeout
            }
        })
    })
}
