//! The connected TCP sockets of a network namespace, and their end (`SOCK_DESTROY`).
//!
//! `sock_diag(7)` over netlink, of the calling thread's namespace. `SOCK_DESTROY` and not the `bpf_sock_destroy` of a socket
//! iterator: that one is for GPL programs and Linux 6.5, and looks at every socket of the namespace just the same.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use orlop_abi::{Address, SocketKey};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// The bit of the state `LISTEN`.
const LISTENING: u32 = 1 << 10;
/// Bits of the states with a peer: all but `TIME_WAIT`, `CLOSE` and `LISTEN`. With `SYN_RECV` come requests.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

const HEADER: usize = 16;
/// `struct inet_diag_sockid` within `struct inet_diag_msg`.
const SOCKET_ID: std::ops::Range<usize> = 4..52;

/// `sizeof(struct inet_diag_msg)`.
const DIAG_MSG: usize = 72;
/// The id of the socket's cgroup, since Linux 5.8.
const INET_DIAG_CGROUP_ID: u16 = 21;

/// A connected socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected {
    family: u8,
    /// `struct inet_diag_sockid`, with the cookie by which the kernel knows the socket again.
    id: [u8; 48],
    /// The cookie.
    pub(crate) key: SocketKey,
    /// This end, IPv4 also where the socket is one of IPv6.
    pub(crate) local: SocketAddr,
    /// The other end, likewise.
    pub(crate) peer: SocketAddr,
}

/// A conversation with the kernel about the sockets of one namespace.
pub(crate) struct SockDiag {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl SockDiag {
    /// Opens it in the namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = SocketType::DGRAM;
        let protocol = Some(rustix::net::netlink::SOCK_DIAG);
        let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
        connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, buffer: vec![0; 64 * 1024] })
    }

    /// The connected sockets.
    pub(crate) fn connected(&mut self) -> io::Result<Vec<Connected>> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request(family, CONNECTED, &[0; 48]))?;
            self.receive(|message| found.extend(connected(message)))?;
        }
        Ok(found)
    }

    /// The ports that are listened at.
    pub(crate) fn listening(&mut self) -> io::Result<BTreeSet<u16>> {
        let mut found = BTreeSet::new();
        for family in [AF_INET, AF_INET6] {
            self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request(family, LISTENING, &[0; 48]))?;
            self.receive(|message| found.extend(connected(message).map(|socket| socket.local.port())))?;
        }
        Ok(found)
    }

    /// The cgroups (v2, by their ids) whose sockets listen at the port.
    pub(crate) fn cgroups_listening_at(&mut self, port: u16) -> io::Result<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        for family in [AF_INET, AF_INET6] {
            self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request(family, LISTENING, &[0; 48]))?;
            self.receive(|message| {
                let at_port = connected(message).is_some_and(|socket| socket.local.port() == port);
                found.extend(at_port.then(|| cgroup(message)).flatten());
            })?;
        }
        Ok(found)
    }

    /// Resets a connection: the peer gets a RST, the application `ECONNABORTED`. Whether it was still there.
    pub(crate) fn destroy(&mut self, socket: &Connected) -> io::Result<bool> {
        let request = request(socket.family, u32::MAX, &socket.id);
        self.send(SOCK_DESTROY, NLM_F_ACK, &request)?;
        match self.receive(|_| {}) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Every message up to the end of the answer.
    fn receive(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let (length, _) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while let Some((kind, body, behind)) = message(rest) {
                rest = behind;
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return match word(body, 0).map(u32::cast_signed) {
                            Some(0) => Ok(()),
                            Some(code) => Err(io::Error::from_raw_os_error(-code)),
                            None => Err(io::ErrorKind::InvalidData.into()),
                        };
                    }
                    _ => take(body),
                }
            }
        }
    }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, states: u32, id: &[u8; 48]) -> Vec<u8> {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(states.to_ne_bytes());
    request.extend(id);
    request
}

/// The first message's type and body, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((half(bytes, 4)?, body, behind))
}

/// What a `struct inet_diag_msg` tells of a socket.
fn connected(message: &[u8]) -> Option<Connected> {
    let family = *message.first()?;
    let id: [u8; 48] = message.get(SOCKET_ID)?.try_into().ok()?;
    let words = |at| Some([word(&id, at)?, word(&id, at + 4)?, word(&id, at + 8)?, word(&id, at + 12)?]);
    let end = |port, address| {
        let address = match (family, words(address)?) {
            (AF_INET, [ip, ..]) => Address::from_ip4_word(ip),
            (_, words) => Address(words),
        };
        Some(SocketAddr::new(address.into(), u16::from_be(half(&id, port)?)))
    };
    let key = u64::from(word(&id, 40)?) | u64::from(word(&id, 44)?) << 32;
    Some(Connected { family, id, key, local: end(0, 4)?, peer: end(2, 20)? })
}

/// The cgroup that a `struct inet_diag_msg` tells of in the attributes behind it.
fn cgroup(message: &[u8]) -> Option<u64> {
    let mut rest = message.get(DIAG_MSG..)?;
    loop {
        // `struct nlattr`: length with this head, type, value.
        let length = usize::from(half(rest, 0)?);
        if half(rest, 2)? == INET_DIAG_CGROUP_ID {
            return Some(u64::from_ne_bytes(rest.get(4..12)?.try_into().ok()?));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
