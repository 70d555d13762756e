//! Requests on HTTP/2 connections to upstreams.

use std::error::Error;
use std::rc::Rc;

use http::{Request, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use orlop_plan::resource::cluster::Cluster;

use super::tasks::ConnectionTasks;
use super::upload::Upload;
use super::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::http::head::{RequestHead, ResponseHead};
use crate::http::retry::ResetReason;
use crate::tls::Stream;
use crate::upstream::{Http2Connection, Http2Stream, Membership};

/// Opens an HTTP/2 connection on a socket.
pub(crate) async fn connect(
    io: Stream,
    cluster: &Cluster,
    membership: Membership,
) -> Result<Http2Connection, ResetReason> {
    let tasks = ConnectionTasks::default();
    let local = io.tcp().local_addr().ok();
    let handshake = http2::Builder::new(tasks.clone())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(io));
    let (sender, connection) = handshake.await.map_err(|error| reset_reason(&error))?;
    let driver = tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "upstream HTTP/2 connection broke off");
        }
        drop(tasks);
    });
    Ok(Http2Connection::new(sender, driver, local, cluster, membership))
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The connection takes no more requests; this one was not sent and can go to another.
    Unsent(Upload),
    /// The stream was reset, or the connection lost.
    Reset(ResetReason),
}

/// Sends a request and waits for the response's head.
pub(crate) async fn respond(
    connection: &Rc<Http2Connection>,
    head: &RequestHead,
    body: Upload,
) -> Result<(ResponseHead, Incoming, Http2Stream), SendError> {
    let stream = Http2Stream::new(connection);
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri(head).ok_or(SendError::Reset(ResetReason::ProtocolError))?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().clone_from(&head.headers);
    match connection.sender().try_send_request(request).await {
        Ok(response) => {
            let (parts, body) = response.into_parts();
            Ok((ResponseHead { status: parts.status, headers: parts.headers }, body, stream))
        }
        Err(mut error) => Err(match error.take_message() {
            Some(request) => SendError::Unsent(request.into_body()),
            None => SendError::Reset(reset_reason(error.error())),
        }),
    }
}

fn uri(head: &RequestHead) -> Option<Uri> {
    Uri::builder()
        .scheme(head.scheme)
        .authority(head.authority.as_str())
        .path_and_query(head.path.as_str())
        .build()
        .ok()
}

fn reset_reason(error: &hyper::Error) -> ResetReason {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return match error.reason() {
                Some(h2::Reason::REFUSED_STREAM) => ResetReason::RemoteRefusedStream,
                _ if error.is_reset() && error.is_remote() => ResetReason::RemoteReset,
                Some(_) if error.is_library() => ResetReason::ProtocolError,
                _ => ResetReason::ConnectionTermination,
            };
        }
        source = error.source();
    }
    ResetReason::ConnectionTermination
}
