//! Small servers and what a client sees of a connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// No test waits longer for one byte.
pub const PATIENCE: Duration = Duration::from_secs(5);

pub fn with_timeouts(socket: &Socket) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// With a queue that a burst of connections fits in; the standard library's is 128.
pub fn listen(at: &str) -> TcpListener {
    let at: SocketAddr = at.parse().unwrap();
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&at.into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

/// Serves each connection on a thread of its own until the test ends.
pub fn serve(
    listener: TcpListener,
    handler: impl Fn(TcpStream, SocketAddr) + Clone + Send + 'static,
) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            let handler = handler.clone();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || handler(stream, peer));
        }
    });
    address
}

/// Sends back what it gets, and ends its half when the client does.
pub fn serve_echo(listener: TcpListener) -> SocketAddr {
    serve(listener, |mut stream, _| {
        let mut out = stream.try_clone().unwrap();
        let _ended = io::copy(&mut stream, &mut out);
        let _closed = out.shutdown(Shutdown::Write);
    })
}

/// Says its name, ends, and takes what the client says: closing with unread bytes would be a reset.
pub fn serve_name(listener: TcpListener, name: &'static str) -> SocketAddr {
    serve(listener, move |mut stream, _| {
        let _written = stream.write_all(name.as_bytes());
        let _closed = stream.shutdown(Shutdown::Write);
        let _drained = io::copy(&mut stream, &mut io::sink());
    })
}

/// Says who it sees as its client, and what it was dialled at, and ends.
pub fn serve_addresses(listener: TcpListener) -> SocketAddr {
    serve(listener, |mut stream, peer| {
        let text = format!("{} {}", peer.ip(), stream.local_addr().unwrap());
        let _written = stream.write_all(text.as_bytes());
    })
}

/// Connections that a server has accepted, for the test to have.
pub struct Accepted(mpsc::Receiver<TcpStream>);

impl Accepted {
    /// The next one; the test fails where none comes.
    pub fn recv(&self) -> Result<TcpStream, RecvTimeoutError> {
        self.0.recv_timeout(PATIENCE)
    }

    /// Those that are there.
    pub fn try_iter(&self) -> impl Iterator<Item = TcpStream> {
        self.0.try_iter()
    }
}

/// Hands each accepted connection to the test.
pub fn accepted(listener: TcpListener) -> Accepted {
    let (send, receive) = mpsc::channel();
    serve(listener, move |stream, _| drop(send.send(stream)));
    Accepted(receive)
}

/// Everything until the end.
pub fn read_all(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

/// Sends `text` and reads as many bytes back.
pub fn round_trip(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    String::from_utf8(back).unwrap()
}

/// Whether the connection ends by a reset.
pub fn is_reset(stream: &mut TcpStream) -> bool {
    read_all(stream).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

/// Ends the connection by a reset.
pub fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}
