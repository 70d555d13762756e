//! The HTTP/2 connections that the streams share: one for all that show the same certificate, or none.
//!
//! A connection lives as long as a stream holds it. Before the server would end it, streams move to a fresh one; the first
//! that moves makes it, and it is ready before anybody leaves the old one. The files of TLS are read whenever a stream
//! opens: where they have changed, it opens on a connection that is made with what they hold now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

use super::credentials::{Credentials, read};
use super::error::OpenError;
use super::options::RenewalWindow;
use super::tls::{self, Connector};
use crate::ClientError;

/// istiod allows a client's ping every 15 s (half of `GRPC_KEEPALIVE_INTERVAL`) and itself pings every 30 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// `GRPC_KEEPALIVE_TIMEOUT` of istiod: without an answer for so long, the connection is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a sidecar's agent allows to be under way (Istio's `pkg/grpc`): a push in one go.
const WINDOW_BYTES: u32 = 1 << 20;
/// What istiod's certificate is for, where only its IP address is known.
const ISTIOD: &str = "istiod.istio-system.svc";

#[derive(Debug)]
pub(super) struct Connections {
    endpoint: Endpoint,
    tls: Option<Tls>,
    renewal: RenewalWindow,
    newest: Mutex<HashMap<Shown, Weak<Connection>>>,
    /// One fresh connection is made at a time, so that all who move find it.
    renewing: tokio::sync::Mutex<()>,
}

/// How the server is known.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) roots: PathBuf,
    pub(super) server_name: ServerName<'static>,
}

/// What a connection is made with; streams with the same share it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
struct Shown {
    roots: Vec<u8>,
    certificate: Option<Vec<u8>>,
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
    pub(super) fn new(
        address: &str,
        roots: Option<PathBuf>,
        renewal: RenewalWindow,
    ) -> Result<Self, ClientError> {
        let refused = || ClientError::Address { address: address.to_owned() };
        // TLS is the connector's, which tonic does not know of.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .ok()
            .filter(|endpoint| endpoint.uri().port().is_some())
            .ok_or_else(refused)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
        let server_name = if host.parse::<IpAddr>().is_ok() { ISTIOD } else { host };
        let server_name = ServerName::try_from(server_name.to_owned()).map_err(|_| refused())?;
        let Some(roots) = roots else {
            return Ok(Self::with(endpoint, None, renewal));
        };
        let origin = format!("https://{address}").parse().map_err(|_| refused())?;
        Ok(Self::with(endpoint.origin(origin), Some(Tls { roots, server_name }), renewal))
    }

    fn with(endpoint: Endpoint, tls: Option<Tls>, renewal: RenewalWindow) -> Self {
        Self { endpoint, tls, renewal, newest: Mutex::default(), renewing: tokio::sync::Mutex::default() }
    }

    /// `None` is plaintext.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The connection on which a stream with these credentials opens. Whether it can be made shows with the stream.
    pub(super) fn get(&self, credentials: &Credentials) -> Result<Arc<Connection>, OpenError> {
        let shown = self.shown(credentials)?;
        if let Some(current) = self.current(&shown) {
            return Ok(current);
        }
        let channel = match self.connector(&shown, credentials)? {
            Some(connector) => self.endpoint.connect_with_connector_lazy(connector),
            None => self.endpoint.connect_lazy(),
        };
        Ok(self.insert(shown, channel))
    }

    /// A connection that stands, for a stream whose own is getting old.
    pub(super) async fn fresh(&self, credentials: &Credentials) -> Result<Arc<Connection>, OpenError> {
        let _turn = self.renewing.lock().await;
        let shown = self.shown(credentials)?;
        if let Some(current) = self.current(&shown) {
            return Ok(current);
        }
        let channel = match self.connector(&shown, credentials)? {
            Some(connector) => self.endpoint.connect_with_connector(connector).await,
            None => self.endpoint.connect().await,
        };
        Ok(self.insert(shown, channel.map_err(OpenError::Connect)?))
    }

    /// The newest connection, unless it is about to be left.
    fn current(&self, shown: &Shown) -> Option<Arc<Connection>> {
        let current = self.newest.lock().unwrap_or_else(PoisonError::into_inner).get(shown)?.upgrade()?;
        (current.opened.elapsed() < self.renewal.earliest).then_some(current)
    }

    fn insert(&self, shown: Shown, channel: Channel) -> Arc<Connection> {
        let connection = Arc::new(Connection { channel, opened: Instant::now() });
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.retain(|_, connection| connection.strong_count() > 0);
        newest.insert(shown, Arc::downgrade(&connection));
        connection
    }

    fn shown(&self, credentials: &Credentials) -> Result<Shown, OpenError> {
        let Some(tls) = &self.tls else { return Ok(Shown::default()) };
        let certificate = match credentials {
            Credentials::None | Credentials::Token { .. } => None,
            Credentials::Certificate { certificate, .. } => Some(read(certificate)?),
            Credentials::Kept(kept) => {
                Some(kept.current()?.cert.first().map(|own| own.to_vec()).unwrap_or_default())
            }
        };
        Ok(Shown { roots: read(&tls.roots)?, certificate })
    }

    /// `None` is plaintext.
    fn connector(&self, shown: &Shown, credentials: &Credentials) -> Result<Option<Connector>, OpenError> {
        let Some(Tls { roots, server_name }) = &self.tls else { return Ok(None) };
        let mut files = vec![roots.clone()];
        let certificate = match (credentials, &shown.certificate) {
            (Credentials::Certificate { certificate, key }, Some(chain)) => {
                files.extend([certificate.clone(), key.clone()]);
                Some(tls::certified(chain, &read(key).map(Zeroizing::new)?).map(Arc::new))
            }
            (Credentials::Kept(kept), _) => Some(Ok(kept.current()?)),
            _ => None,
        };
        let connector = certificate
            .transpose()
            .and_then(|certificate| Connector::new(server_name.clone(), &shown.roots, certificate));
        connector.map(Some).map_err(|source| OpenError::Certificates { files, source })
    }
}
