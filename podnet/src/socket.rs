//! The sockets that the agent makes inside a pod's namespace. Call these within [`NetNs::run`](crate::NetNs::run).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// `IPPROTO_RAW`.
const IPPROTO_RAW: i32 = 255;

/// A listener that accepts connections to addresses that are not local (`IP_TRANSPARENT`), non-blocking. `sk_lookup`
/// steers connections to it, and the accepted socket's local address is the original destination.
///
/// Plain TCP on purpose: an MPTCP listener cannot enter a SOCKMAP.
pub fn listen_transparent(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = stream_socket(addr)?;
    socket.set_reuse_address(true)?;
    set_transparent(&socket, addr)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A plain listener, non-blocking.
pub fn listen(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = stream_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A non-blocking TCP socket towards `to`, not yet connected.
///
/// `from` is `None` for the pod's own address; `Some((client, mark))` binds a foreign address and sets
/// the mark that routes it over loopback, so that the application sees its real client. It is bound to `lo` as well:
/// otherwise the route to the pod's own address names the pod's interface, and for `sk_lookup` the connection would look
/// like one that arrives from outside (`FIB_RES_OIF` in `ip_route_output_key_hash_rcu`).
pub fn connect_socket(to: SocketAddr, from: Option<(SocketAddr, u32)>) -> io::Result<Socket> {
    let socket = stream_socket(to)?;
    socket.set_tcp_nodelay(true)?;
    if let Some((client, mark)) = from {
        set_transparent(&socket, to)?;
        socket.set_mark(mark)?;
        socket.bind_device(Some(b"lo"))?;
        // A port may serve several destinations; connect(2) still refuses the same four numbers twice.
        socket.set_reuse_address(true)?;
        socket.bind(&client.into())?;
    }
    Ok(socket)
}

fn stream_socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
}

fn set_transparent(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// A socket for datagrams that are sent to `addr`, or steered to it, non-blocking. An agent that takes over from another
/// binds the same address beside it.
pub fn bind_datagrams(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = datagram_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A socket for datagrams to and from `to` alone, with the pod's address and a port that the kernel draws, non-blocking.
pub fn connect_datagrams(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = datagram_socket(to)?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// A socket that sends whole IP packets of the address's family and receives none (raw(7), `IPPROTO_RAW`), non-blocking.
pub fn raw_packets(family_of: IpAddr) -> io::Result<Socket> {
    let kind = Type::RAW.nonblocking().cloexec();
    let domain = Domain::for_address(SocketAddr::new(family_of, 0));
    Socket::new(domain, kind, Some(Protocol::from(IPPROTO_RAW)))
}

fn datagram_socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
}
