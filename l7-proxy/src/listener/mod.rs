//! From an accepted connection to its filter chain: the listener by original destination, the listener filters that read
//! the first bytes, the chain's match, and the hand-over to the terminal filter.

mod acceptor;
mod prefixed;

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

pub(crate) use acceptor::{Accepted, Acceptor, accept_now, pause_after};
pub(crate) use prefixed::PrefixedStream;

use crate::pod::{ConnectionContext, PodContext};

/// What an HTTP connection speaks, as the connection manager's codec or the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpProtocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
}

/// Carries one accepted connection to its end.
pub(crate) async fn serve(accepted: Accepted, pod: Rc<PodContext>) {
    let _ = (accepted, pod);
}
