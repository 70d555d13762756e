//! Idle HTTP/1.1 connections to one host, and requests that wait for one.
//!
//! Last in, first out: the connection used last is the least likely to have been closed by the peer, and those that a
//! quieter hour does not need grow old and close.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::http::WriteBuffer;
use bytes::BytesMut;
use orlop_plan::resource::cluster::Cluster;
use tokio::sync::oneshot;

use super::host::Membership;
use crate::tls::Stream;

/// An HTTP/1.1 connection to a host: in the pool, or owned by the one request that uses it.
pub(crate) struct Http1Connection {
    /// The connection itself.
    pub(crate) io: Stream,
    /// Read and not yet decoded.
    pub(crate) read: BytesMut,
    /// Encoded and not yet written.
    pub(crate) write: WriteBuffer,
    membership: Membership,
    requests_left: Option<u32>,
    idle_timeout: Option<Duration>,
    idle_since: Instant,
}

impl fmt::Debug for Http1Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1Connection").field("io", &self.io).finish_non_exhaustive()
    }
}

impl Http1Connection {
    /// A connection that was just opened.
    pub(crate) fn new(io: Stream, cluster: &Cluster, membership: Membership) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            write: WriteBuffer::default(),
            membership,
            requests_left: cluster.max_requests_per_connection,
            idle_timeout: cluster.idle_timeout,
            idle_since: Instant::now(),
        }
    }

    /// Gives the connection to whoever needs it next, or closes it where its time is over. `now` starts its idle time.
    pub(crate) fn release(mut self: Box<Self>, now: Instant) {
        if let Some(left) = &mut self.requests_left {
            *left = left.saturating_sub(1);
        }
        if self.requests_left == Some(0) || !self.read.is_empty() {
            return;
        }
        let Some(pools) = self.membership.pools() else { return };
        self.idle_since = now;
        pools.http1.put(self);
    }

    /// Whether the peer has neither closed it nor sent anything since its last response.
    fn is_quiet(&mut self) -> bool {
        self.io.is_quiet()
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.idle_timeout.is_none_or(|timeout| now.saturating_duration_since(self.idle_since) < timeout)
    }
}

/// What waits for a connection is told with one, or with `None` when there is room to open one.
type Waiter = oneshot::Sender<Option<Box<Http1Connection>>>;

/// The pool.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "a connection moves between pool and requests without being copied")]
pub(crate) struct Http1Pool {
    idle: RefCell<Vec<Box<Http1Connection>>>,
    waiting: RefCell<VecDeque<Waiter>>,
}

impl Http1Pool {
    /// An idle connection that is fit for use.
    pub(crate) fn take(&self) -> Option<Box<Http1Connection>> {
        loop {
            // Not held over the check: closing a connection comes back to `capacity_freed`.
            let mut connection = self.idle.borrow_mut().pop()?;
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Waits for a connection that another request gives back. `None` says that one may be opened now.
    pub(crate) async fn wait(&self) -> Option<Box<Http1Connection>> {
        let (waiter, connection) = oneshot::channel();
        self.waiting.borrow_mut().push_back(waiter);
        connection.await.ok().flatten()
    }

    fn put(&self, connection: Box<Http1Connection>) {
        let mut offered = Some(connection);
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else { break };
            match waiter.send(offered) {
                Ok(()) => return,
                Err(back) => offered = back,
            }
        }
        self.idle.borrow_mut().extend(offered);
    }

    /// A connection was closed: the first that waits may open another.
    pub(super) fn capacity_freed(&self) {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else { break };
            if waiter.send(None).is_ok() {
                return;
            }
        }
    }

    /// Closes what was idle for too long or was closed by the peer.
    pub(super) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.take();
        let close: Vec<_> =
            idle.extract_if(.., |connection| !(connection.is_fresh(now) && connection.is_quiet())).collect();
        self.idle.replace(idle);
        drop(close);
    }
}
