//! The ways in which an application may connect.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

use super::process::{Connected, Reply};

/// `MSG_FASTOPEN`: connect with the first bytes in the SYN.
const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);

fn try_connect(to: SocketAddr) -> std::io::Result<Connected> {
    read_greeting(TcpStream::connect_timeout(&to, Duration::from_secs(3))?)
}

/// Reads to the end, so that the connection always ends in the same way.
fn read_greeting(mut stream: TcpStream) -> std::io::Result<Connected> {
    let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
    let mut line = String::new();
    stream.read_to_string(&mut line)?;
    let mut words = line.split_whitespace();
    let mut word = || words.next().ok_or(ErrorKind::UnexpectedEof);
    let greeting = word()?.to_owned();
    let mut address = || word()?.parse().map_err(std::io::Error::other);
    Ok(Connected { greeting, local, peer, accepted_local: address()?, accepted_peer: address()? })
}

pub(crate) fn connect(to: SocketAddr) -> Reply {
    let start = Instant::now();
    match try_connect(to) {
        Ok(connected) => Reply::Connected(connected),
        Err(error) => Reply::Refused { error: format!("{:?}", error.kind()), after: start.elapsed() },
    }
}

pub(crate) fn connect_while(to: SocketAddr, go_on: impl Fn(u32) -> bool) -> Reply {
    let (mut by, mut failures, mut done) = (BTreeMap::new(), Vec::new(), 0);
    while go_on(done) {
        match try_connect(to) {
            Ok(connected) => *by.entry(connected.greeting).or_default() += 1,
            Err(error) => failures.push(error.to_string()),
        }
        done += 1;
    }
    Reply::Greeted { by, failures }
}

pub(crate) fn reconnect(first: SocketAddr, then: SocketAddr) -> Reply {
    let socket = socket_for(then, None);
    rustix::net::connect(&socket, &first).unwrap();
    rustix::net::connect_unspec(&socket).unwrap();
    connect_with(socket, then)
}

pub(crate) fn connect_nonblocking(to: SocketAddr) -> Reply {
    let socket = socket_for(to, None);
    rustix::io::ioctl_fionbio(&socket, true).unwrap();
    assert_eq!(rustix::net::connect(&socket, &to), Err(rustix::io::Errno::INPROGRESS));
    // A blocking call waits for what was begun.
    rustix::io::ioctl_fionbio(&socket, false).unwrap();
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::ISCONN) => outcome(read_greeting(socket.into())),
        Err(errno) => outcome(Err(errno.into())),
    }
}

pub(crate) fn connect_fast_open(to: SocketAddr) -> Reply {
    let socket = socket_for(to, None);
    // As much as the other end reads: it would reset the connection for what it leaves.
    let sent = rustix::net::sendto(&socket, b"!", MSG_FASTOPEN, &to);
    outcome(sent.map_err(Into::into).and_then(|_| read_greeting(socket.into())))
}

fn outcome(result: std::io::Result<Connected>) -> Reply {
    match result {
        Ok(connected) => Reply::Connected(connected),
        Err(error) => Reply::Refused { error: format!("{:?}", error.kind()), after: Duration::ZERO },
    }
}

pub(crate) fn udp(to: SocketAddr, connected: bool) -> std::io::Result<Reply> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    if connected {
        socket.connect(to)?;
        socket.send(b"?")?;
    } else {
        socket.send_to(b"?", to)?;
    }
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok(Reply::Answered {
        by: String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned(),
        from,
    })
}

pub(crate) fn socket_for(to: SocketAddr, protocol: Option<rustix::net::Protocol>) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket(family, SocketType::STREAM, protocol).unwrap()
}

pub(crate) fn connect_with(socket: OwnedFd, to: SocketAddr) -> Reply {
    let start = Instant::now();
    match rustix::net::connect(&socket, &to).map_err(Into::into).and_then(|()| read_greeting(socket.into())) {
        Ok(connected) => Reply::Connected(connected),
        Err(error) => Reply::Refused { error: format!("{:?}", error.kind()), after: start.elapsed() },
    }
}

pub(crate) fn connect_by_ring(to: SocketAddr) -> Reply {
    let socket = socket_for(to, None);
    let address = socket2::SockAddr::from(to);
    let mut ring = IoUring::new(1).unwrap();
    let connect = opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len());
    // SAFETY: socket and address live until the operation is over, which is waited for.
    unsafe { ring.submission().push(&connect.build()) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    let result = ring.completion().next().unwrap().result();
    if result < 0 {
        return outcome(Err(std::io::Error::from_raw_os_error(-result)));
    }
    outcome(read_greeting(socket.into()))
}

/// RFC 792, "Echo".
pub(crate) fn ping(to: IpAddr) -> std::io::Result<Reply> {
    const ECHO: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    let protocol = Some(rustix::net::ipproto::ICMP);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, protocol)?;
    let deadline = Some(Duration::from_secs(3));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, deadline)?;
    // Type and checksum; identifier and sequence are zero, so the checksum is the complement of the first word.
    let request = [ECHO, 0, !ECHO, 0xff, 0, 0, 0, 0];
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &SocketAddr::new(to, 0))?;
    let mut buffer = [0; 128];
    loop {
        let (length, _, from) = rustix::net::recvfrom(&socket, &mut buffer[..], RecvFlags::empty())?;
        // Behind the IP header without options; a raw socket sees whatever comes.
        if length > 20 && buffer[20] == ECHO_REPLY {
            let from = from.and_then(|from| SocketAddr::try_from(from).ok()).unwrap();
            return Ok(Reply::Answered { by: "echo".to_owned(), from });
        }
    }
}
