//! An HTTP server that answers with what it was asked. Request headers change how:
//! `x-echo-status` the status, `x-echo-delay` milliseconds before the answer, `x-echo-bytes` a body of that length
//! instead of the echo, `x-echo-fail-first: N/KEY` status 503 for the first N requests with that key, `x-echo-grpc: N` a gRPC
//! message of the body, with the status N and what was asked in the trailers. Whoever asks for its health by gRPC
//! (`grpc.health.v1`) is told that it serves. Some paths are an authorizer's, and some a collector's.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName};
use hyper::http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use orlop_integration::traffic::{Echo, Headers};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::doors::Doors;
use crate::{Server, authorizer, collector};

/// What the kubelet calls of gRPC's health service.
const HEALTH: &str = "/grpc.health.v1.Health/Check";
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// One message, not compressed, whose field 1 is `SERVING`.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];

/// Shared by the connections of the one thread.
struct State {
    name: String,
    connections: Cell<u64>,
    failed: RefCell<HashMap<String, u32>>,
    collected: collector::Collected,
}

pub(crate) async fn serve(server: Server) -> Result<()> {
    let doors = Doors::open(server.port).await?;
    println!("listening");
    let state = Rc::new(State {
        name: server.name,
        connections: Cell::new(0),
        failed: RefCell::default(),
        collected: collector::Collected::default(),
    });
    LocalSet::new()
        .run_until(async {
            loop {
                let (stream, peer) = doors.accept().await?;
                state.connections.set(state.connections.get() + 1);
                let state = Rc::clone(&state);
                tokio::task::spawn_local(async move {
                    if let Err(e) = connection(stream, peer, state).await {
                        eprintln!("{peer}: {e}");
                    }
                });
            }
        })
        .await
}

async fn connection(stream: TcpStream, peer: SocketAddr, state: Rc<State>) -> Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let h2 = speaks_h2(&stream).await?;
    let service = service_fn(move |request| answer(request, peer, local, Rc::clone(&state)));
    let io = TokioIo::new(stream);
    if h2 {
        http2::Builder::new(LocalExecutor).serve_connection(io, service).await?;
    } else {
        http1::Builder::new().serve_connection(io, service).await?;
    }
    Ok(())
}

/// Whether the client opened with the preface of HTTP/2 (RFC 9113, 3.4), which no HTTP/1 method begins with.
async fn speaks_h2(stream: &TcpStream) -> Result<bool> {
    let mut start = [0; 3];
    loop {
        match stream.peek(&mut start).await? {
            0 => return Ok(false),
            3 => return Ok(&start == b"PRI"),
            // The rest of the three bytes is under way.
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Runs the streams of an HTTP/2 connection on the thread of the connection.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    local: SocketAddr,
    state: Rc<State>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.uri.path() == HEALTH {
        return Ok(health());
    }
    let wish = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    // A body that breaks off is answered for what came.
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    if head.uri.path() == authorizer::CHECK {
        return Ok(authorizer::answer(body));
    }
    if let Some(answer) = state.collected.answer(head.uri.path(), &head.headers, body.clone()) {
        return Ok(answer);
    }
    let body_bytes = body.len();
    if let Some(delay) = wish("x-echo-delay").and_then(|ms| ms.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut status = wish("x-echo-status").and_then(|code| code.parse().ok()).unwrap_or(StatusCode::OK);
    if wish("x-echo-fail-first").is_some_and(|wish| state.still_failing(wish)) {
        status = StatusCode::SERVICE_UNAVAILABLE;
    }
    let uri = &head.uri;
    let authority = uri.authority().map(ToString::to_string);
    let host = || head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let echo = Echo {
        server: state.name.clone(),
        method: head.method.to_string(),
        path: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        authority: authority.unwrap_or_else(host),
        version: format!("{:?}", head.version),
        headers: by_name(&head.headers),
        peer,
        local,
        connections: state.connections.get(),
        body_bytes,
    };
    let body = match wish("x-echo-bytes").and_then(|length| length.parse().ok()) {
        Some(length) => Bytes::from(vec![b'x'; length]),
        None => Bytes::from(serde_json::to_vec(&echo).unwrap_or_default()),
    };
    let mut response = match wish("x-echo-grpc") {
        None => Response::new(Full::new(body).boxed_unsync()),
        Some(status) => {
            let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
            grpc([&[0][..], &length, &body].concat(), grpc_trailers(status, &echo))
        }
    };
    *response.status_mut() = status;
    if let Ok(name) = state.name.parse() {
        response.headers_mut().insert(HeaderName::from_static("x-echo-server"), name);
    }
    Ok(response)
}

fn health() -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    grpc(SERVING, HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]))
}

pub(crate) fn grpc(
    message: impl Into<Bytes>,
    trailers: HeaderMap,
) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let body = Full::new(message.into()).with_trailers(ready(Some(Ok(trailers)))).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn grpc_trailers(status: &str, echo: &Echo) -> HeaderMap {
    let asked = ["content-type", "te", "grpc-accept-encoding", "content-length"]
        .map(|name| echo.headers.get(name).cloned().unwrap_or_default());
    let asked = format!("{} {}", echo.body_bytes, asked.join(" "));
    let of = |name, value: &str| Some((name, HeaderValue::from_str(value).ok()?));
    let asked = of(HeaderName::from_static("x-asked"), &asked);
    [of(GRPC_STATUS, status), asked].into_iter().flatten().collect()
}

impl State {
    /// `wish` is `N/KEY`; counts the requests of the key.
    fn still_failing(&self, wish: &str) -> bool {
        let Some((n, key)) = wish.split_once('/') else { return false };
        let mut failed = self.failed.borrow_mut();
        let count = failed.entry(key.to_owned()).or_default();
        *count += 1;
        n.parse().is_ok_and(|n: u32| *count <= n)
    }
}

/// Values of a repeated header are joined in order.
pub(crate) fn by_name(headers: &HeaderMap) -> Headers {
    let mut by_name = Headers::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        by_name
            .entry(name.to_string())
            .and_modify(|joined| {
                joined.push(',');
                joined.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    by_name
}
