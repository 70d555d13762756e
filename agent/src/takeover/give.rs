//! The running agent's part: opens the door, and hands over what it has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use orlop_l7_proxy::PodListeners;
use orlop_podnet::NetNsId;
use rustix::fs::{Mode, chmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::net::UnixListener;

use super::channel::Channel;
use super::{Answer, Listener, Offer, SOCKET};
use crate::run_file::RunFile;

/// How long the new agent may take to get everything into force.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where a new agent asks; its file is removed when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub(crate) struct Door {
    socket: UnixListener,
    _file: RunFile,
}

/// A new agent has come.
#[derive(Debug)]
pub(crate) struct Asked(Channel);

impl Door {
    /// Opens the socket in `run_dir`, for root alone.
    pub(crate) fn open(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        RunFile::clear(&path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        chmod(&path, Mode::RUSR | Mode::WUSR)?;
        listen(&socket, 1)?;
        // Not of the type that its name says, which makes no difference to accepting.
        Ok(Self { socket: UnixListener::from_std(socket.into())?, _file: RunFile::made(path)? })
    }

    /// Returns when a new agent has come. Cancel-safe.
    pub(crate) async fn asked(&self) -> io::Result<Asked> {
        let socket = self.socket.accept().await?.0.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(Asked(Channel::accepted(socket.into())))
    }
}

/// Hands the pods and the lock over, and waits for the new agent's word. Blocking. An error leaves everything with this
/// agent.
pub(crate) fn give(
    asked: &Asked,
    pods: &[(String, NetNsId, PodListeners)],
    lock: BorrowedFd<'_>,
) -> io::Result<()> {
    let Asked(channel) = asked;
    channel.set_patience(PATIENCE)?;
    for (key, netns, listeners) in pods {
        let listeners = [
            (Listener::Outbound, Some(&listeners.outbound)),
            (Listener::Inbound, Some(&listeners.inbound)),
            (Listener::OutboundV6, listeners.outbound_v6.as_ref()),
            (Listener::InboundV6, listeners.inbound_v6.as_ref()),
        ];
        let (kinds, descriptors): (Vec<_>, Vec<_>) =
            listeners.iter().filter_map(|(kind, listener)| Some((*kind, listener.as_ref()?.as_fd()))).unzip();
        let offer = Offer::Pod { key: key.clone(), netns: netns.parts(), listeners: kinds };
        channel.send(&offer, &descriptors)?;
    }
    channel.send(&Offer::Lock, &[lock])?;
    let (Answer::Go, _) = channel.receive()?;
    Ok(())
}
