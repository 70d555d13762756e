//! Accepts the connections that the kernel steered to one of the pod's listeners.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::net::{TcpListener, TcpStream};

use crate::stats::Direction;

/// How long accepting pauses when the process or the node is out of descriptors or memory: trying again at once would
/// spin, since the connection stays in the queue.
const OUT_OF_RESOURCES_PAUSE: Duration = Duration::from_millis(50);

/// An accepted connection. `S` is a [`TcpStream`] once it belongs to a worker's runtime, and [`std::net::TcpStream`] on
/// its way from one worker to another.
#[derive(Debug)]
pub(crate) struct Accepted<S = TcpStream> {
    /// Non-blocking; its local address is the original destination.
    pub(crate) stream: S,
    /// The client.
    pub(crate) peer: SocketAddr,
    /// By the listener that it came to.
    pub(crate) direction: Direction,
}

/// One listener, registered with the runtime of the worker that accepts for the pod.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    direction: Direction,
}

impl Acceptor {
    /// Fails when the process or the runtime cannot hold another descriptor.
    pub(crate) fn new(listener: &std::net::TcpListener, direction: Direction) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(listener.try_clone()?)?, direction })
    }

    /// The next connection. An error is of the listener or of the node, never of one connection.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        loop {
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, peer)) => {
                    return Poll::Ready(Ok(Accepted { stream, peer, direction: self.direction }));
                }
                Err(e) if is_of_one_connection(&e) => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl Accepted {
    /// Takes it out of this thread's runtime.
    pub(crate) fn detach(self) -> io::Result<Accepted<std::net::TcpStream>> {
        Ok(Accepted { stream: self.stream.into_std()?, peer: self.peer, direction: self.direction })
    }
}

impl Accepted<std::net::TcpStream> {
    /// Brings it into this thread's runtime.
    pub(crate) fn attach(self) -> io::Result<Accepted> {
        Ok(Accepted { stream: TcpStream::from_std(self.stream)?, peer: self.peer, direction: self.direction })
    }
}

/// Takes one connection off the queue, if there is one, outside any runtime.
pub(crate) fn accept_now(
    listener: &std::net::TcpListener,
    direction: Direction,
) -> io::Result<Option<Accepted<std::net::TcpStream>>> {
    loop {
        match acceptfrom_with(listener.as_fd(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((fd, peer)) => {
                // A connection whose peer is already gone may have no address: nothing to serve.
                let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) else { continue };
                return Ok(Some(Accepted { stream: fd.into(), peer, direction }));
            }
            Err(Errno::AGAIN) => return Ok(None),
            Err(e) if is_of_one_connection(&e.into()) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// accept(2): errors that a connection met while it waited in the queue are reported here; the next one may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    let transient = [
        Errno::INTR,
        Errno::CONNABORTED,
        Errno::PERM,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::NONET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
    ];
    Errno::from_io_error(error).is_some_and(|e| transient.contains(&e))
}

/// How long to pause after this error of [`Acceptor::poll_accept`]; `None` when the listener is of no use any more.
pub(crate) fn pause_after(error: &io::Error) -> Option<Duration> {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).filter(|e| exhausted.contains(e)).map(|_| OUT_OF_RESOURCES_PAUSE)
}
