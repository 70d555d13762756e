//! How the resolver library reaches resolvers: by sockets of the pod's network namespace.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioTime};
use orlop_podnet::{NetNs, connect_socket};
use rustix::io::Errno;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// What is waited for a connection where the library does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One pod's network.
#[derive(Clone)]
pub(super) struct PodNetwork {
    netns: Arc<NetNs>,
    tasks: TokioHandle,
}

impl PodNetwork {
    pub(super) fn new(netns: Arc<NetNs>) -> Self {
        Self { netns, tasks: TokioHandle::default() }
    }
}

impl RuntimeProvider for PodNetwork {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.tasks.clone()
    }

    fn connect_tcp(
        &self,
        server_addr: SocketAddr,
        _bind_addr: Option<SocketAddr>,
        wait_for: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        let netns = Arc::clone(&self.netns);
        Box::pin(async move {
            let socket = netns.run(|| connect_socket(server_addr, None)).map_err(io::Error::other)??;
            match socket.connect(&server_addr.into()) {
                Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
                _ => {}
            }
            let stream = TcpStream::from_std(socket.into())?;
            timeout(wait_for.unwrap_or(CONNECT_TIMEOUT), stream.writable()).await??;
            match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok(AsyncIoTokioAsStd(stream)),
            }
        })
    }

    fn bind_udp(
        &self,
        local_addr: SocketAddr,
        _server_addr: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let netns = Arc::clone(&self.netns);
        Box::pin(async move {
            let socket = netns.run(|| std::net::UdpSocket::bind(local_addr)).map_err(io::Error::other)??;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })
    }
}
