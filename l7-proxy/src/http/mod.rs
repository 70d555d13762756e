//! The HTTP connection manager and the router.
//!
//! `listener` hands over each connection whose filter chain ends in a connection manager. `h1` and `h2` are the codecs; what
//! lies between them is the same for both: a request's way is `request_headers` (admit) → route → `filter` → `router` (cluster,
//! rewrites, attempts) → `attempt` (host, connection, exchange), and the answer's way back is headers and a body that is
//! polled through. One task drives a connection, and all of it runs on the worker's thread.

mod attempt;
mod body;
mod call;
mod client_cert;
mod connection_manager;
mod date;
mod deadlines;
mod failure;
mod filter;
mod format;
mod grpc_status;
mod h1;
mod h2;
mod hash_policy;
mod head;
mod header_mutation;
mod local_reply;
mod message;
mod mirror;
mod path;
mod redirect;
mod replay;
mod request_headers;
mod retry;
mod rewrite;
mod router;
mod stream;
mod stream_info;
mod stream_log;
mod tee;
mod timer;

use std::rc::Rc;
use std::sync::Arc;

use orlop_plan::resource::http_connection_manager::HttpConnectionManager;

use crate::listener::{HttpProtocol, PrefixedStream};
use crate::pod::ConnectionContext;
use crate::tls::Stream;

use connection_manager::ConnectionManager;

pub(crate) use filter::{Buckets, Tried, WorkerBuckets, denied_by};
pub(crate) use format::{End, FormatContext, FormatValue};
pub(crate) use h1::WriteBuffer;
pub(crate) use h2::Upload;
pub(crate) use hash_policy::hash_of_address;
pub(crate) use head::RequestHead;
pub(crate) use message::{Message, send_message};
pub(crate) use mirror::Mirrors;

/// Serves one downstream connection until it ends or `cx.pod.drain` has started and it is idle.
pub(crate) async fn serve_connection(
    io: PrefixedStream<Stream>,
    protocol: HttpProtocol,
    hcm: Arc<HttpConnectionManager>,
    cx: Rc<ConnectionContext>,
) {
    let manager = ConnectionManager::new(hcm, cx);
    match protocol {
        HttpProtocol::Http1 => h1::serve(io, &manager).await,
        HttpProtocol::Http2 => h2::serve(io, manager).await,
    }
}
