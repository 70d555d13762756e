//! An HTTP/1.1 backend that keeps what it was asked, and a client that shows every byte of the answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use super::tcp::serve;

/// A request as the backend got it.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
    /// Which of the backend's connections it came by, from 0.
    pub connection: usize,
}

impl Received {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// A backend and what it was asked.
pub struct Backend {
    pub address: SocketAddr,
    requests: mpsc::Receiver<Received>,
}

impl Backend {
    /// The next request.
    pub fn request(&self) -> Received {
        self.requests.recv_timeout(super::tcp::PATIENCE).unwrap()
    }

    /// Everything that it was asked so far.
    pub fn requests(&self) -> Vec<Received> {
        self.requests.try_iter().collect()
    }
}

/// Answers every request by `answer`, which writes a whole response, or nothing to close the connection.
pub fn backend(
    listener: TcpListener,
    answer: impl Fn(&Received) -> String + Clone + Send + 'static,
) -> Backend {
    let (send, requests) = mpsc::channel();
    let connections = Arc::new(Mutex::new(0));
    let address = serve(listener, move |stream, _| {
        let connection = {
            let mut connections = connections.lock().unwrap();
            *connections += 1;
            *connections - 1
        };
        let mut reader = BufReader::new(stream);
        while let Some(received) = read_request(&mut reader, connection) {
            let text = answer(&received);
            let _sent = send.send(received);
            if text.is_empty() || reader.get_mut().write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    });
    Backend { address, requests }
}

/// Answers 200 with `body`.
pub fn says(listener: TcpListener, body: &'static str) -> Backend {
    backend(listener, move |_| ok(body))
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n")
}

fn read_request(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Received> {
    let head = read_head(reader).ok().filter(|head| !head.is_empty())?;
    let body = read_body(reader, &head).ok()?;
    Some(Received { head, body, connection })
}

fn read_head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while reader.read_line(&mut head)? > 0 && !head.ends_with("\r\n\r\n") {}
    Ok(head)
}

fn read_body(reader: &mut impl BufRead, head: &str) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = header(head, "content-length") {
        body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut body)?;
    } else if header(head, "transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16).unwrap() + 2];
            reader.read_exact(&mut chunk)?;
            chunk.truncate(chunk.len() - 2);
            if chunk.is_empty() {
                break;
            }
            body.extend(chunk);
        }
    }
    Ok(body)
}

pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .find_map(|(known, value)| (known == name).then_some(value))
}

/// A response as the client got it.
#[derive(Debug)]
pub struct Answer {
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// A client that keeps its connection.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The next response. `to_head` has no body.
    pub fn receive(&mut self) -> Answer {
        self.receive_answer(false)
    }

    fn receive_answer(&mut self, to_head: bool) -> Answer {
        let head = read_head(&mut self.0).unwrap();
        assert!(!head.is_empty(), "the connection ended without a response");
        let body = if to_head { Vec::new() } else { read_body(&mut self.0, &head).unwrap() };
        Answer { head, body: String::from_utf8(body).unwrap() }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n"));
        self.receive()
    }

    pub fn head(&mut self, path: &str) -> Answer {
        self.send(format!("HEAD {path} HTTP/1.1\r\nhost: a.example\r\n\r\n"));
        self.receive_answer(true)
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).unwrap();
        text
    }
}
