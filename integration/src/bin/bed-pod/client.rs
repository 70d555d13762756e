//! Clients: one attempt after another, each with its outcome.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use orlop_integration::traffic::Greeting;
use orlop_integration::{Call, Reply};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::echo_http::by_name;

/// How long a raw client waits for more. Envoy closes some connections only after a second (`delayed_close_timeout`).
const SILENCE: Duration = Duration::from_millis(1500);

pub(crate) async fn http(call: &Call) -> Vec<Reply> {
    let mut client = HttpClient::new(call.clone());
    let mut replies = Vec::new();
    for _ in 0..call.times {
        replies.push(client.send().await);
    }
    replies
}

pub(crate) async fn tcp(call: &Call) -> Vec<Reply> {
    let mut client = TcpClient::new(call.clone());
    let mut replies = Vec::new();
    for _ in 0..call.times {
        replies.push(client.round_trip().await);
    }
    replies
}

pub(crate) async fn raw(call: &Call) -> Reply {
    attempt(call, async {
        let (mut stream, connected) = connect(call.to).await?;
        let start = Instant::now();
        let (mut from, mut to) = stream.split();
        // Whoever is flooded stops reading; what it said and how it ended is what counts.
        let send = async {
            let _sent = to.write_all(call.body.as_bytes()).await;
            std::future::pending::<()>().await;
        };
        let mut received = Vec::new();
        let receive = async {
            // Silence ends it as well as the end of the stream, in whatever way it comes.
            loop {
                match tokio::time::timeout(SILENCE, from.read_buf(&mut received)).await {
                    Ok(Ok(0) | Err(_)) => return true,
                    Ok(Ok(_)) => {}
                    Err(_) => return false,
                }
            }
        };
        let closed = tokio::select! { () = send => false, closed = receive => closed };
        Ok(Reply {
            body: String::from_utf8_lossy(&received).into_owned(),
            closed,
            local: Some(connected.local),
            peer: Some(connected.peer),
            connect_us: connected.us,
            us: micros(start),
            ..Reply::default()
        })
    })
    .await
}

/// The two ends of a connection and how long it took to make.
#[derive(Clone, Copy)]
struct Connected {
    local: SocketAddr,
    peer: SocketAddr,
    us: u64,
}

/// One attempt, within the time that the call allows; `us` is what the attempt measured itself.
async fn attempt(call: &Call, work: impl Future<Output = Result<Reply>>) -> Reply {
    let start = Instant::now();
    let limit = Duration::from_millis(call.timeout_ms);
    let error = match tokio::time::timeout(limit, work).await {
        Ok(Ok(reply)) => return reply,
        Ok(Err(e)) => format!("{e:#}"),
        Err(_) => "timed out".to_owned(),
    };
    Reply { error: Some(error), us: micros(start), ..Reply::default() }
}

async fn connect(to: SocketAddr) -> Result<(TcpStream, Connected)> {
    let start = Instant::now();
    let stream = TcpStream::connect(to).await.context("connect")?;
    let us = micros(start);
    stream.set_nodelay(true)?;
    let connected =
        Connected { local: stream.local_addr()?, peer: stream.peer_addr().context("peer address")?, us };
    Ok((stream, connected))
}

fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Keeps its connection between requests unless the call says otherwise, and makes a new one when it was closed.
pub(crate) struct HttpClient {
    call: Call,
    open: Option<(Sender, Connected)>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl HttpClient {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, open: None }
    }

    pub(crate) async fn send(&mut self) -> Reply {
        let call = self.call.clone();
        let reply = attempt(&call, self.try_send()).await;
        if reply.error.is_some() || call.fresh {
            self.open = None;
        }
        reply
    }

    async fn try_send(&mut self) -> Result<Reply> {
        let reusable = match &mut self.open {
            Some((sender, _)) => sender.ready().await,
            None => false,
        };
        if !reusable {
            let (stream, connected) = connect(self.call.to).await?;
            self.open = Some((Sender::handshake(stream, self.call.h2).await?, connected));
        }
        let (sender, connected) = self.open.as_mut().context("a connection was just made")?;
        let request = request(&self.call)?;
        let start = Instant::now();
        let response = match sender.send(request).await {
            // A GOAWAY was faster: the request was never sent, and belongs on another connection (RFC 9113, 6.8).
            Err(error) if reusable && error.is_canceled() => {
                self.open = None;
                return Box::pin(self.try_send()).await;
            }
            sent => sent?,
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("response body")?.to_bytes();
        let headers = by_name(&head.headers);
        Ok(Reply {
            closed: false,
            error: None,
            status: head.status.as_u16(),
            server: headers.get("x-echo-server").cloned(),
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            local: Some(connected.local),
            peer: Some(connected.peer),
            connect_us: if reusable { 0 } else { connected.us },
            us: micros(start),
        })
    }
}

impl Sender {
    async fn handshake(stream: TcpStream, h2: bool) -> Result<Self> {
        let io = TokioIo::new(stream);
        if h2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender))
        }
    }

    async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

/// `host` is a header in HTTP/1.1 and the authority of the URI in HTTP/2 (RFC 9113, 8.3.1).
fn request(call: &Call) -> Result<Request<Full<Bytes>>> {
    let host = call.headers.get("host").context("a request without a host")?;
    let uri: Uri =
        if call.h2 { format!("http://{host}{}", call.path).parse()? } else { call.path.parse()? };
    let mut request = Request::builder().method(Method::from_bytes(call.method.as_bytes())?).uri(uri);
    for (name, value) in call.headers.iter().filter(|(name, _)| !call.h2 || *name != "host") {
        request = request.header(name, value);
    }
    Ok(request.body(Full::new(Bytes::from(call.body.clone())))?)
}

/// Reads the greeting of each connection, then sends the payload and reads it back.
pub(crate) struct TcpClient {
    call: Call,
    open: Option<(BufReader<TcpStream>, Connected, String)>,
}

impl TcpClient {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, open: None }
    }

    pub(crate) async fn round_trip(&mut self) -> Reply {
        let call = self.call.clone();
        let reply = attempt(&call, self.try_round_trip()).await;
        if reply.error.is_some() || call.fresh {
            self.open = None;
        }
        reply
    }

    async fn try_round_trip(&mut self) -> Result<Reply> {
        let reused = self.open.is_some();
        if !reused {
            let (stream, connected) = connect(self.call.to).await?;
            let mut stream = BufReader::new(stream);
            let mut greeting = String::new();
            stream.read_line(&mut greeting).await.context("greeting")?;
            self.open = Some((stream, connected, greeting));
        }
        let (stream, connected, greeting) = self.open.as_mut().context("a connection was just made")?;
        ensure!(greeting.ends_with('\n'), "closed before the greeting");
        let start = Instant::now();
        stream.write_all(self.call.body.as_bytes()).await.context("write")?;
        let mut echoed = vec![0; self.call.body.len()];
        stream.read_exact(&mut echoed).await.context("read")?;
        ensure!(echoed == self.call.body.as_bytes(), "the echo differs from what was sent");
        let server = serde_json::from_str::<Greeting>(greeting).context("greeting")?.server;
        Ok(Reply {
            body: greeting.clone(),
            server: Some(server),
            local: Some(connected.local),
            peer: Some(connected.peer),
            connect_us: if reused { 0 } else { connected.us },
            us: micros(start),
            ..Reply::default()
        })
    }
}
