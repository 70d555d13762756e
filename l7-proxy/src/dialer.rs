//! Upstream connections, made inside a pod's network namespace.
//!
//! The socket belongs to the pod's namespace, so that its source address is the pod's and `NetworkPolicy` applies as it
//! would to the application. Towards the application itself (inbound) the source is the real client's address.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use orlop_plan::resource::cluster::{Cluster, TcpKeepalive};
use orlop_podnet::{HomeNs, NetNs, NetNsError, connect_socket};
use rustix::io::Errno;
use socket2::Socket;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Source ports of connections that carry the client's address: below every usual range of ephemeral ports (Linux 32768,
/// the IANA's 49152). The client's own connection `client:p → pod:port` ends at the proxy in this namespace; the same
/// four numbers a second time would send the application's half of the handshake to the proxy.
const SOURCE_PORTS: RangeInclusive<u16> = 10240..=32767;
/// How many ports are tried before the connection fails.
const SOURCE_PORT_ATTEMPTS: u32 = 16;

/// Opens connections from inside one pod's namespace. Owned by one worker.
#[derive(Debug)]
pub(crate) struct Dialer {
    netns: Arc<NetNs>,
    home: Rc<HomeNs>,
    mark: u32,
    next_port: Cell<u16>,
}

impl Dialer {
    /// For a pod, on the thread whose namespace `home` is. `mark` brings connections with a foreign source over the pod's
    /// loopback.
    pub(crate) fn new(netns: Arc<NetNs>, home: Rc<HomeNs>, mark: u32) -> Self {
        Self { netns, home, mark, next_port: Cell::new(fastrand::u16(SOURCE_PORTS)) }
    }

    /// Opens a connection to `to`, from the pod's own address or, where it is given, from `source` by `IP_TRANSPARENT`.
    pub(crate) async fn connect(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
        options: DialOptions,
    ) -> Result<TcpStream, DialError> {
        let attempts = if source.is_some() { SOURCE_PORT_ATTEMPTS } else { 1 };
        let mut attempt = 1;
        loop {
            let from = source.map(|ip| (SocketAddr::new(ip, self.source_port()), self.mark));
            match self.connect_from(to, from, options).await {
                // The port is taken, for every destination (bind) or for this one (connect).
                Err(DialError::Socket { source, .. } | DialError::Connect { source, .. })
                    if attempt < attempts && is_port_taken(&source) =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn connect_from(
        &self,
        to: SocketAddr,
        from: Option<(SocketAddr, u32)>,
        options: DialOptions,
    ) -> Result<TcpStream, DialError> {
        let socket = self.netns.run_from(&self.home, || connect_socket(to, from))?;
        let socket = socket.map_err(|source| DialError::Socket { to, source })?;
        if let Some(keepalive) = options.keepalive {
            set_keepalive(&socket, keepalive).map_err(|source| DialError::Socket { to, source })?;
        }
        let failed = |source| DialError::Connect { to, source };
        let connected = match socket.connect(&to.into()) {
            // Over loopback the handshake is done by the time that connect(2) returns.
            Ok(()) => true,
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INPROGRESS) => false,
            Err(e) => return Err(failed(e)),
        };
        let stream = TcpStream::from_std(socket.into()).map_err(failed)?;
        if !connected {
            match timeout(options.timeout, stream.writable()).await {
                Ok(writable) => writable.map_err(failed)?,
                Err(_elapsed) => return Err(DialError::Timeout { to, after: options.timeout }),
            }
            if let Some(e) = stream.take_error().map_err(failed)? {
                return Err(failed(e));
            }
        }
        Ok(stream)
    }

    /// The source port to try next.
    fn source_port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(if port >= *SOURCE_PORTS.end() { *SOURCE_PORTS.start() } else { port + 1 });
        port
    }
}

fn is_port_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

fn set_keepalive(socket: &Socket, keepalive: TcpKeepalive) -> io::Result<()> {
    let mut params = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        params = params.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        params = params.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        params = params.with_retries(probes);
    }
    socket.set_tcp_keepalive(&params)
}

/// How a connection is opened; a cluster's part of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DialOptions {
    /// `connect_timeout`.
    pub(crate) timeout: Duration,
    /// `upstream_connection_options.tcp_keepalive`.
    pub(crate) keepalive: Option<TcpKeepalive>,
}

impl From<&Cluster> for DialOptions {
    fn from(cluster: &Cluster) -> Self {
        Self { timeout: cluster.connect_timeout, keepalive: cluster.tcp_keepalive }
    }
}

/// Why a connection could not be opened. All of them are `UF` to Envoy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The pod's namespace cannot be entered: the pod is going away, or the node lacks privileges.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// The socket could not be made or configured: the node is out of a resource.
    #[error("cannot make a socket towards {to}")]
    Socket {
        /// Where to.
        to: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The peer refused or cannot be reached.
    #[error("cannot connect to {to}")]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No answer within `connect_timeout`.
    #[error("no answer from {to} within {after:?}")]
    Timeout {
        /// Where to.
        to: SocketAddr,
        /// The cluster's `connect_timeout`.
        after: Duration,
    },
}
