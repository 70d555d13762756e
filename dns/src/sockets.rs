//! The sockets of one pod and family, and receiving on them.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::cmsg_space;
use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, setsockopt};
use orlop_abi::{DNS_SOURCE_V4, DNS_SOURCE_V6};
use orlop_podnet::{NetNs, NetNsError, bind_datagrams, listen_transparent, raw_packets};
use socket2::Socket;
use tokio::net::{TcpListener, UdpSocket};

use crate::answer::OWN_PAYLOAD;
use crate::packet;

/// Where the node's resolver is in each pod, as a sidecar's. It can also be asked there directly.
pub const PORT: u16 = 15053;
/// Where resolvers listen.
pub(crate) const DNS: u16 = 53;
/// TCP connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why a pod's DNS cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NetNsError),
    /// Another process in the pod has the port.
    #[error("{address} in {netns} is taken by another process (a sidecar?)")]
    Taken {
        /// What was to be bound.
        address: SocketAddr,
        /// Where.
        netns: PathBuf,
    },
    /// A socket could not be made for another reason.
    #[error("cannot open {address} in {netns}: {source}")]
    Open {
        /// What was to be bound.
        address: SocketAddr,
        /// Where.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The sockets of one family.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: Arc<UdpSocket>,
    pub(crate) tcp: Arc<TcpListener>,
    /// Sends the answers over UDP.
    pub(crate) raw: Arc<Socket>,
}

/// A datagram that came in.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) ends: Ends,
    /// `None` if it is longer than a query may be.
    pub(crate) query: Option<Vec<u8>>,
}

/// Between whom a question goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Who asks, as the answer has to be addressed.
    pub(crate) client: SocketAddr,
    /// Who was asked.
    pub(crate) asked: SocketAddr,
}

impl Sockets {
    /// Opens those of the pod address's family. Call it within a runtime.
    pub(crate) fn open(netns: &NetNs, pod: IpAddr) -> Result<Self, OpenError> {
        let loopback: IpAddr = match pod {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let address = SocketAddr::new(loopback, PORT);
        let opened = netns.run(|| {
            let udp = bind_datagrams(address)?;
            match pod {
                IpAddr::V4(_) => setsockopt(&udp, Ipv4PacketInfo, &true)?,
                IpAddr::V6(_) => setsockopt(&udp, Ipv6RecvPacketInfo, &true)?,
            }
            Ok::<_, io::Error>(Self {
                udp: Arc::new(UdpSocket::from_std(udp)?),
                tcp: Arc::new(TcpListener::from_std(listen_transparent(address, BACKLOG)?)?),
                raw: Arc::new(raw_packets(pod)?),
            })
        })?;
        let netns = || netns.path().to_owned();
        opened.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => OpenError::Taken { address, netns: netns() },
            _ => OpenError::Open { address, netns: netns(), source },
        })
    }
}

/// Takes a datagram out of the socket, if there is one.
pub(crate) fn receive(socket: &impl AsRawFd, pod: &[IpAddr]) -> io::Result<Option<Datagram>> {
    let mut buffer = [0; OWN_PAYLOAD as usize];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut control = cmsg_space!(in_pktinfo, in6_pktinfo);
    let received: RecvMsg<'_, '_, SockaddrStorage> =
        recvmsg(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let (length, flags) = (received.bytes, received.flags);
    let from = received.address.as_ref().and_then(socket_address);
    let to = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from_octets(info.ipi_addr.s_addr.to_ne_bytes())))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::V6(Ipv6Addr::from_octets(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    });
    // Both are always there, as was asked for.
    let (Some(from), Some(to)) = (from, to) else { return Ok(None) };
    let whole = !flags.contains(MsgFlags::MSG_TRUNC);
    let query = buffer.get(..length).filter(|_| whole).map(<[u8]>::to_vec);
    Ok(Some(Datagram { ends: Ends::of(from, to, pod), query }))
}

impl Ends {
    /// `from` and `to` as they are in the datagram.
    fn of(from: SocketAddr, to: IpAddr, pod: &[IpAddr]) -> Self {
        let asked = SocketAddr::new(to, if to.is_loopback() { PORT } else { DNS });
        // The kernel programs gave it the source that routes it here; its socket hears the pod's address.
        let routed = !to.is_loopback() && (from.ip() == DNS_SOURCE_V4 || from.ip() == DNS_SOURCE_V6);
        let own = pod.iter().find(|ip| ip.is_ipv4() == to.is_ipv4()).filter(|_| routed);
        Self { client: SocketAddr::new(own.copied().unwrap_or(from.ip()), from.port()), asked }
    }
}

/// Sends an answer in the name of whom was asked. Over loopback there is no congestion to wait for.
pub(crate) fn send(raw: &Socket, ends: Ends, answer: &[u8]) -> io::Result<()> {
    let packet = packet::datagram(ends.asked, ends.client, answer).ok_or(io::ErrorKind::InvalidInput)?;
    // A raw socket of IPv6 takes no port.
    let to = SocketAddr::new(ends.client.ip(), 0);
    raw.send_to(&packet, &to.into()).map(drop)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), v6.port())))
}
