//! Every way in which a connection begins and ends, one after the other, without waiting for luck.

use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, connect_unspec, socket_with};

/// Makes `times` connections to the addresses in turn; every eighth is returned open.
pub(crate) fn churn(to: &[SocketAddr], times: u32) -> Vec<TcpStream> {
    let mut kept = Vec::new();
    for (turn, to) in (0..times).zip(to.iter().cycle()) {
        kept.extend(one(turn % 8, *to));
    }
    kept
}

fn one(way: u32, to: SocketAddr) -> Option<TcpStream> {
    match way {
        // Closed at once, perhaps before the SYN is answered.
        0 => {
            let socket = unconnected(to, SocketFlags::NONBLOCK);
            let _in_progress = connect(&socket, &to);
        }
        // The last of two descriptors closes it.
        1 => {
            let stream = TcpStream::connect(to).ok()?;
            let duplicate = stream.try_clone().unwrap();
            drop(stream);
            read_all(&duplicate);
        }
        // Reset by this side.
        2 => {
            let stream = TcpStream::connect(to).ok()?;
            set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        }
        // Half-closed first.
        3 => {
            let stream = TcpStream::connect(to).ok()?;
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&stream);
        }
        // Dissolved and used again.
        4 => {
            let socket = unconnected(to, SocketFlags::empty());
            connect(&socket, &to).ok()?;
            connect_unspec(&socket).unwrap();
            connect(&socket, &to).ok()?;
        }
        // Inherited by a child, which ends with it.
        5 => {
            let socket = unconnected(to, SocketFlags::empty());
            connect(&socket, &to).ok()?;
            let mut child = Command::new("true").stdin(Stdio::from(socket)).spawn().unwrap();
            child.wait().unwrap();
        }
        // Read to the end.
        6 => read_all(&TcpStream::connect(to).ok()?),
        _ => {
            let stream = TcpStream::connect(to).ok()?;
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            return Some(stream);
        }
    }
    None
}

fn unconnected(to: SocketAddr, flags: SocketFlags) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, SocketType::STREAM, flags, None).unwrap()
}

fn read_all(mut stream: &TcpStream) {
    stream.read_to_end(&mut Vec::new()).unwrap();
}
