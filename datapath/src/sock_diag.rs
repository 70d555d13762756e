//! The TCP sockets of a network namespace and what the kernel programs know of them; and their end (`SOCK_DESTROY`).
//!
//! `sock_diag(7)` over netlink, of the calling thread's namespace. `SOCK_DESTROY` and not the `bpf_sock_destroy` of a socket
//! iterator: that one is for GPL programs and Linux 6.5, and looks at every socket of the namespace just the same.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use orlop_abi::{Address, Connection};
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
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
/// Bits of the states with a peer: all but `TIME_WAIT`, `CLOSE`, `LISTEN` and requests.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

const HEADER: usize = 16;
/// `struct inet_diag_msg` up to its attributes.
const DIAG_MESSAGE: usize = 72;
/// `struct inet_diag_sockid` within it.
const SOCKET_ID: std::ops::Range<usize> = 4..52;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A socket that the kernel programs balanced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Balanced {
    family: u8,
    /// `struct inet_diag_sockid`, with the cookie by which the kernel knows the socket again.
    id: [u8; 48],
    /// What was noted when it was connected.
    pub(crate) connection: Connection,
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

    /// The connected sockets that have a value in `connections`.
    pub(crate) fn balanced(&mut self, connections: BorrowedFd<'_>) -> io::Result<Vec<Balanced>> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let map = u32::try_from(connections.as_raw_fd()).map_err(io::Error::other)?;
            let inner = attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &map.to_ne_bytes());
            let storages = attribute(INET_DIAG_REQ_SK_BPF_STORAGES, &inner);
            let request = request(family, CONNECTED, &[0; 48], &storages);
            self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &request)?;
            self.receive(|message| found.extend(balanced(message)))?;
        }
        Ok(found)
    }

    /// Resets a connection: the peer gets a RST, the application `ECONNABORTED`. Whether it was still there.
    pub(crate) fn destroy(&mut self, socket: &Balanced) -> io::Result<bool> {
        let request = request(socket.family, u32::MAX, &socket.id, &[]);
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

/// `struct inet_diag_req_v2` and attributes.
fn request(family: u8, states: u32, id: &[u8; 48], attributes: &[u8]) -> Vec<u8> {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(states.to_ne_bytes());
    request.extend(id);
    request.extend(attributes);
    request
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// The first message's type and body, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((half(bytes, 4)?, body, behind))
}

fn balanced(message: &[u8]) -> Option<Balanced> {
    let family = *message.first()?;
    let id = message.get(SOCKET_ID)?.try_into().ok()?;
    let storages = find(message.get(DIAG_MESSAGE..)?, INET_DIAG_SK_BPF_STORAGES)?;
    let value = find(find(storages, SK_DIAG_BPF_STORAGE)?, SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    Some(Balanced { family, id, connection: connection(value)? })
}

/// The value of an attribute among others.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if half(attributes, 2)? & NLA_TYPE_MASK == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn connection(value: &[u8]) -> Option<Connection> {
    let address = |at| {
        Some(Address([word(value, at)?, word(value, at + 4)?, word(value, at + 8)?, word(value, at + 12)?]))
    };
    let port = |at| Some(orlop_abi::Port(half(value, at)?));
    Some(Connection {
        frontend: orlop_abi::FrontendKey {
            workload: word(value, 0)?,
            address: address(4)?,
            port: port(20)?,
            padding: 0,
        },
        address: address(24)?,
        port: port(40)?,
        padding: 0,
        cluster: orlop_abi::ClusterName([word(value, 44)?, word(value, 48)?]),
        state: word(value, 52)?,
    })
}

/// As a socket address.
pub(crate) fn backend(connection: &Connection) -> SocketAddr {
    SocketAddr::new(connection.address.into(), u16::from_be(connection.port.0))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
