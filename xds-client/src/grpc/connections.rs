//! The HTTP/2 connection that all streams share.
//!
//! It lives as long as a stream holds it. Before the server would end it, streams move to a fresh one; the first that
//! moves makes it, and it is ready before anybody leaves the old one.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use super::error::OpenError;
use super::options::RenewalWindow;
use crate::ClientError;

/// istiod allows a client's ping every 15 s (half of `GRPC_KEEPALIVE_INTERVAL`) and itself pings every 30 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// `GRPC_KEEPALIVE_TIMEOUT` of istiod: without an answer for so long, the connection is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a sidecar's agent allows to be under way (Istio's `pkg/grpc`): a push in one go.
const WINDOW_BYTES: u32 = 1 << 20;

#[derive(Debug)]
pub(super) struct Connections {
    endpoint: Endpoint,
    renewal: RenewalWindow,
    current: Mutex<Weak<Connection>>,
    /// One fresh connection is made at a time, so that all who move find it.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    opened: Instant,
}

impl Connection {
    /// When a stream on it moves to another.
    pub(super) fn renew_at(&self, renewal: RenewalWindow) -> Instant {
        self.opened + renewal.choose()
    }
}

impl Connections {
    pub(super) fn new(address: &str, renewal: RenewalWindow) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .ok()
            .filter(|endpoint| endpoint.uri().port().is_some())
            .ok_or_else(|| ClientError::Address { address: address.to_owned() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self { endpoint, renewal, current: Mutex::default(), renewing: tokio::sync::Mutex::default() })
    }

    /// The connection on which a stream opens. Whether it can be made shows with the stream.
    pub(super) fn get(&self) -> Arc<Connection> {
        self.current().unwrap_or_else(|| self.insert(self.endpoint.connect_lazy()))
    }

    /// A connection that stands, for a stream whose own is getting old.
    pub(super) async fn fresh(&self) -> Result<Arc<Connection>, OpenError> {
        let _turn = self.renewing.lock().await;
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let channel = self.endpoint.connect().await.map_err(OpenError::Connect)?;
        Ok(self.insert(channel))
    }

    /// The newest connection, unless it is about to be left.
    fn current(&self) -> Option<Arc<Connection>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).upgrade()?;
        (current.opened.elapsed() < self.renewal.earliest).then_some(current)
    }

    fn insert(&self, channel: Channel) -> Arc<Connection> {
        let connection = Arc::new(Connection { channel, opened: Instant::now() });
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&connection);
        connection
    }
}
