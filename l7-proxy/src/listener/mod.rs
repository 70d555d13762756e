//! From an accepted connection to its filter chain: the listener by original destination, the listener filters that read
//! the first bytes, the chain's match, and the hand-over to the terminal filter.

mod acceptor;
mod http_inspector;
mod inspect;
mod prefixed;
mod serve;
mod tls_inspector;

pub(crate) use acceptor::{Accepted, Acceptor, accept_now, pause_after};
pub(crate) use prefixed::PrefixedStream;
pub(crate) use serve::{serve, will_reset};

/// What an HTTP connection speaks, as the connection manager's codec or the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpProtocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
}
