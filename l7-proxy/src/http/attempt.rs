//! One attempt of a request: a connection to the chosen host, the request on it, the response's head.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::net::TcpStream;

use super::body::{BodyError, RequestBody, ResponseSource};
use super::h1::{Exchange, ExchangeError};
use super::head::{RequestHead, ResponseHead};
use super::retry::ResetReason;
use super::stream::StreamGuard;
use crate::dialer::{DialError, DialOptions};
use crate::pod::ConnectionContext;
use crate::upstream::{Http1Connection, Membership, Picked, Pools, UpstreamCluster};

/// Why an attempt brought no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The stream was reset; `sent` is whether any of the request was sent.
    Reset { reason: ResetReason, sent: bool },
    /// The request's own body broke off.
    Request(BodyError),
    /// The route's timeout.
    Timeout,
}

impl Failure {
    /// Before anything was sent.
    pub(crate) fn unsent(reason: ResetReason) -> Self {
        Self::Reset { reason, sent: false }
    }
}

/// The deadlines of a request. They run from when the whole request was received, as in Envoy.
#[derive(Debug)]
pub(crate) struct Deadlines {
    /// The route's timeout.
    timeout: Option<Duration>,
    /// `per_try_timeout`
    per_try: Option<Duration>,
    /// When the route's timeout passes, once that is known.
    route: Option<Instant>,
    /// When this attempt's timeout passes, once that is known.
    attempt: Option<Instant>,
}

impl Deadlines {
    /// Of a request that may take `timeout` in all, and `per_try` for each attempt.
    pub(crate) fn new(timeout: Option<Duration>, per_try: Option<Duration>) -> Self {
        Self { timeout, per_try, route: None, attempt: None }
    }

    /// When the route's timeout passes, once that is known.
    pub(crate) fn route(&self) -> Option<Instant> {
        self.route
    }

    /// How long the next attempt may take; `None` is without limit.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = match self.route {
            Some(route) => Some(route.saturating_duration_since(Instant::now())),
            None => self.timeout,
        };
        match (left, self.per_try) {
            (Some(left), Some(per_try)) => Some(left.min(per_try)),
            (left, per_try) => left.or(per_try),
        }
    }

    /// The whole request has been received.
    fn start(&mut self, guard: &StreamGuard) {
        let now = Instant::now();
        self.route = self.route.or(self.timeout.map(|timeout| now + timeout));
        self.attempt = self.per_try.map(|timeout| now + timeout);
        guard.timer().set(match (self.route, self.attempt) {
            (Some(route), Some(attempt)) => Some(route.min(attempt)),
            (route, attempt) => route.or(attempt),
        });
    }

    fn is_set(&self) -> bool {
        self.timeout.is_some() || self.per_try.is_some()
    }

    /// What an expired timer means.
    fn expired(&self) -> Failure {
        match (self.route, self.attempt) {
            (Some(route), Some(attempt)) if attempt < route => {
                Failure::Reset { reason: ResetReason::PerTryTimeout, sent: true }
            }
            (None, Some(_)) => Failure::Reset { reason: ResetReason::PerTryTimeout, sent: true },
            _ => Failure::Timeout,
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
}

/// Sends a request over HTTP/1.1.
pub(crate) async fn http1(
    cluster: &UpstreamCluster,
    picked: &Picked,
    head: &RequestHead,
    body: RequestBody,
    deadlines: &mut Deadlines,
    guard: &StreamGuard,
) -> Result<Answer, Failure> {
    let timed = deadlines.is_set();
    let mut received = body.is_empty();
    if timed && received {
        deadlines.start(guard);
    }
    let pools = picked.host().state().pools(guard.connection().upstream_source());
    let connection = match pools.http1.take() {
        Some(connection) => connection,
        None => connect_in_time(cluster, picked, &pools, deadlines, guard).await?,
    };
    cluster.counters().requests.inc();
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
            deadlines.start(guard);
        }
        guard.poll_expired(cx).map(|()| Err(deadlines.expired()))
    })
    .await?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let source = ResponseSource::Tunnel(exchange.into_connection());
        return Ok(Answer { head, source, at: Instant::now() });
    }
    let at = Instant::now();
    let body = exchange.into_body(framing, at);
    let source = if body.is_end() { ResponseSource::Empty } else { ResponseSource::Http1(Box::new(body)) };
    Ok(Answer { head, source, at })
}

async fn connect_in_time(
    cluster: &UpstreamCluster,
    picked: &Picked,
    pools: &Rc<Pools>,
    deadlines: &Deadlines,
    guard: &StreamGuard,
) -> Result<Box<Http1Connection>, Failure> {
    let mut connecting = pin!(connect(cluster, picked, pools, guard.connection()));
    poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Pending => guard.poll_expired(cx).map(|()| Err(deadlines.expired())),
        ready => ready,
    })
    .await
}

/// A connection that is not in the pool: a new one, or, where there may be no more, one that another request gives back.
async fn connect(
    cluster: &UpstreamCluster,
    picked: &Picked,
    pools: &Rc<Pools>,
    connection: &ConnectionContext,
) -> Result<Box<Http1Connection>, Failure> {
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
    let io = dial(cluster, picked.address(), connection).await?;
    let membership = Membership::new(host, pools, cluster.counters(), permit);
    Ok(Box::new(Http1Connection::new(io, cluster.cluster(), membership)))
}

/// Opens a connection from inside the pod's namespace.
async fn dial(
    cluster: &UpstreamCluster,
    to: SocketAddr,
    connection: &ConnectionContext,
) -> Result<TcpStream, Failure> {
    let options = DialOptions::from(&**cluster.cluster());
    let source = connection.upstream_source();
    connection.pod.dialer.connect(to, source, options).await.map_err(|error| {
        cluster.counters().connect_failures.inc();
        tracing::debug!(pod = %connection.pod.name, cluster = %cluster.cluster().name, %error, "connect failed");
        Failure::unsent(match error {
            DialError::Namespace(_) | DialError::Socket { .. } => ResetReason::LocalConnectionFailure,
            DialError::Connect { .. } => ResetReason::RemoteConnectionFailure,
            DialError::Timeout { .. } => ResetReason::ConnectionTimeout,
        })
    })
}
