//! HTTP/2 connections to one host, each for many requests at a time.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2::SendRequest;
use orlop_plan::resource::cluster::Cluster;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::host::Membership;
use crate::http::Upload;

/// Streams on one connection before another one is opened: what RFC 9113, 6.5.2 recommends every server to allow.
const MAX_STREAMS: u32 = 100;

/// An HTTP/2 connection to a host.
pub(crate) struct Http2Connection {
    sender: SendRequest<Upload>,
    driver: JoinHandle<()>,
    local: Option<SocketAddr>,
    membership: Membership,
    streams: Cell<u32>,
    idle_timeout: Option<Duration>,
    idle_since: Cell<Instant>,
}

impl Http2Connection {
    /// A connection that was just opened, this side of which is `local`. `driver` ends with it.
    pub(crate) fn new(
        sender: SendRequest<Upload>,
        driver: JoinHandle<()>,
        local: Option<SocketAddr>,
        cluster: &Cluster,
        membership: Membership,
    ) -> Self {
        Self {
            sender,
            driver,
            local,
            membership,
            streams: Cell::new(0),
            idle_timeout: cluster.idle_timeout,
            idle_since: Cell::new(Instant::now()),
        }
    }

    /// To send a request with.
    pub(crate) fn sender(&self) -> SendRequest<Upload> {
        self.sender.clone()
    }

    /// This side of it.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.driver.is_finished()
    }
}

impl Drop for Http2Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for Http2Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Connection")
            .field("streams", &self.streams)
            .field("membership", &self.membership)
            .finish_non_exhaustive()
    }
}

/// A request on a connection. Keeps the connection open.
#[derive(Debug)]
pub(crate) struct Http2Stream(Rc<Http2Connection>);

impl Http2Stream {
    /// A request begins.
    pub(crate) fn new(connection: &Rc<Http2Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        if self.0.streams.get() == 0 {
            self.0.idle_since.set(Instant::now());
        }
    }
}

/// The pool.
#[derive(Debug, Default)]
pub(crate) struct Http2Pool {
    connections: RefCell<Vec<Rc<Http2Connection>>>,
    /// Held while a connection is opened, so that requests that come together share it.
    pub(crate) opening: Mutex<()>,
}

impl Http2Pool {
    /// A connection with room for another request.
    pub(crate) fn get(&self) -> Option<Rc<Http2Connection>> {
        let mut connections = self.connections.borrow_mut();
        let dead = connections.extract_if(.., |connection| !connection.is_usable()).collect::<Vec<_>>();
        let usable = connections.iter().find(|connection| connection.streams.get() < MAX_STREAMS).cloned();
        drop(connections);
        drop(dead);
        usable
    }

    /// Adds a connection that was just opened.
    pub(crate) fn add(&self, connection: Http2Connection) -> Rc<Http2Connection> {
        let connection = Rc::new(connection);
        self.connections.borrow_mut().push(Rc::clone(&connection));
        connection
    }

    /// The connection takes no more requests (it got `GOAWAY`); those on it go on.
    pub(crate) fn retire(&self, connection: &Rc<Http2Connection>) {
        self.connections.borrow_mut().retain(|known| !Rc::ptr_eq(known, connection));
    }

    /// Closes what was idle for too long or was closed by the peer.
    pub(super) fn sweep(&self, now: Instant) {
        let connections = self.connections.take();
        let (keep, close): (Vec<_>, Vec<_>) = connections.into_iter().partition(|connection| {
            let idle = now.saturating_duration_since(connection.idle_since.get());
            let expired = connection.streams.get() == 0
                && connection.idle_timeout.is_some_and(|timeout| idle >= timeout);
            connection.is_usable() && !expired
        });
        self.connections.replace(keep);
        drop(close);
    }
}
