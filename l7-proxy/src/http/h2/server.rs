//! A downstream HTTP/2 connection: each stream is a request of its own.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::iter::successors;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::abandoned::Abandoned;
use super::tasks::ConnectionTasks;
use super::{CONNECTION_WINDOW, MAX_CONCURRENT_STREAMS, STREAM_WINDOW};
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::connection_manager::ConnectionManager;
use crate::http::head::{RequestHead, Version};
use crate::http::timer::Timer;
use crate::listener::PrefixedStream;
use crate::stats::ResponseFlag;
use crate::tls::Stream;

/// Serves a connection to its end. On drain, or when it was idle for too long, it takes no new streams and ends with the last
/// one.
pub(crate) async fn serve(io: PrefixedStream<Stream>, manager: ConnectionManager) {
    let manager = Rc::new(manager);
    let tasks = ConnectionTasks::default();
    let config = manager.config();
    let header_limit = u32::try_from(config.max_request_headers_bytes).unwrap_or(u32::MAX);
    let abandoned = Rc::new(Abandoned::default());
    let service = service_fn({
        let (manager, abandoned) = (Rc::clone(&manager), Rc::clone(&abandoned));
        move |request| respond(Rc::clone(&manager), Rc::clone(&abandoned), request)
    });
    let mut connection = pin!(
        http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_header_list_size(header_limit)
            .serve_connection(TokioIo::new(io), service)
    );
    let mut released = pin!(manager.pod().drain.started());
    let timer = Timer::default();
    let mut timed_as_idle = None;
    let mut draining = false;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended.map_err(End::Broken));
        }
        if abandoned.are_too_many() {
            return Poll::Ready(Err(End::TooManyResets));
        }
        let idle = tasks.poll_idle(cx);
        if timed_as_idle.replace(idle) != Some(idle) {
            let timeout = config.idle_timeout.filter(|_| idle);
            timer.set(timeout.map(|timeout| Instant::now() + timeout));
        }
        let expired = timer.poll_expired(cx).is_ready();
        if !draining && (expired || manager.is_draining() || released.as_mut().poll(cx).is_ready()) {
            draining = true;
            connection.as_mut().graceful_shutdown();
            return connection.as_mut().poll(cx).map_err(End::Broken);
        }
        Poll::Pending
    })
    .await;
    if let Err(end) = ended {
        if end.is_the_clients_fault() {
            manager.pod().counters.flag(ResponseFlag::DownstreamProtocolError);
        }
        tracing::debug!(pod = %manager.pod().name, error = %end, "downstream HTTP/2 connection ended");
    }
}

/// Why a connection did not end in good order.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("it broke off: {0}")]
    Broken(hyper::Error),
    #[error("the client gives up most of its requests")]
    TooManyResets,
}

impl End {
    /// Whether the client has broken the protocol, or asks for too much of it: `h2` bounds what it does for headers that do not
    /// end, for streams that are reset before they are taken, and for malformed ones.
    fn is_the_clients_fault(&self) -> bool {
        match self {
            Self::TooManyResets => true,
            Self::Broken(error) => {
                let mut causes = successors(error.source(), |error| (*error).source());
                causes.any(|cause| cause.downcast_ref::<h2::Error>().is_some_and(h2::Error::is_library))
            }
        }
    }
}

async fn respond(
    manager: Rc<ConnectionManager>,
    abandoned: Rc<Abandoned>,
    request: Request<Incoming>,
) -> Result<http::Response<ResponseBody>, Infallible> {
    let waiting = abandoned.begin();
    let (mut head, body) = convert(request);
    let timer = Rc::new(Timer::default());
    let response = manager.handle(&mut head, body, &timer).await;
    waiting.answered();
    let mut message = http::Response::new(response.body);
    *message.status_mut() = response.status;
    *message.headers_mut() = response.headers;
    Ok(message)
}

fn convert(request: Request<Incoming>) -> (RequestHead, RequestBody) {
    let (parts, body) = request.into_parts();
    let mut head = RequestHead {
        method: parts.method,
        scheme: if parts.uri.scheme_str() == Some("https") { "https" } else { "http" },
        path: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: parts.headers,
        version: Version::Http2,
        ..RequestHead::default()
    };
    let host = head.headers.remove(HOST);
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    if let Some(authority) = authority.or_else(|| host.as_ref()?.to_str().ok()) {
        head.authority.push_str(authority);
        head.has_authority = true;
    }
    head.has_envoy_headers = head.headers.keys().any(|name| name.as_str().starts_with("x-envoy-"));
    join_cookies(&mut head.headers);
    let body = RequestBody::Http2(body);
    (head, if body.is_empty() { RequestBody::Empty } else { body })
}

/// HTTP/2 clients may split `cookie`; whoever does not speak it wants one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
