//! Asking whom the application asked, from the pod's own network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use orlop_podnet::{connect_datagrams, connect_socket};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::pod::Pod;

/// As long as a resolver library waits before it asks again (resolv.conf(5), `timeout`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// No datagram is longer.
const LONGEST: usize = 65_535;

/// Sends the query as it is and returns the answer as it is. A socket of its own for each: its port, which the kernel draws,
/// and its peer are what keeps strangers from answering.
pub(crate) async fn forward(pod: &Pod, to: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let _place = pod.forwards.try_acquire().map_err(|_| io::Error::from(io::ErrorKind::QuotaExceeded))?;
    check(to)?;
    pod.counters.forwarded.inc();
    let socket = pod.network.netns.run(|| connect_datagrams(to)).map_err(io::Error::other)??;
    let socket = UdpSocket::from_std(socket)?;
    let exchange = async {
        socket.send(query).await?;
        let mut answer = Vec::with_capacity(LONGEST);
        loop {
            answer.clear();
            socket.recv_buf(&mut answer).await?;
            if answers(&answer, query) {
                answer.shrink_to_fit();
                return Ok(answer);
            }
        }
    };
    timeout(PATIENCE, exchange).await?
}

/// Connects to whom the application asked.
pub(crate) async fn connect(pod: &Pod, to: SocketAddr) -> io::Result<TcpStream> {
    check(to)?;
    let socket = pod.network.netns.run(|| connect_socket(to, None)).map_err(io::Error::other)??;
    timeout(PATIENCE, TcpSocket::from_std_stream(socket.into()).connect(to)).await?
}

/// Who asked the node itself asked nobody else.
fn check(to: SocketAddr) -> io::Result<()> {
    if to.ip().is_loopback() { Err(io::ErrorKind::AddrNotAvailable.into()) } else { Ok(()) }
}

/// The same identification, and an answer.
fn answers(answer: &[u8], query: &[u8]) -> bool {
    answer.get(..2) == query.get(..2) && answer.get(2).is_some_and(|flags| flags & 0x80 != 0)
}
