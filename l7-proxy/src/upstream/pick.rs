//! The choice of a host for one request or connection.

use std::net::SocketAddr;
use std::rc::Rc;

use super::host::Host;
use crate::stats::Refusal;

/// What the choice depends on beside the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PickContext<'a> {
    /// Where the downstream connection was going, for `ORIGINAL_DST`.
    pub(crate) original_dst: SocketAddr,
    /// Hosts that earlier attempts were sent to and that are to be avoided (`previous_hosts`).
    pub(crate) tried: &'a [SocketAddr],
    /// How often another host is drawn when one of `tried` came up (`host_selection_retry_max_attempts`).
    pub(crate) reselections: u32,
}

impl PickContext<'_> {
    /// A first attempt of a connection to `original_dst`.
    pub(crate) fn first(original_dst: SocketAddr) -> Self {
        Self { original_dst, tried: &[], reselections: 0 }
    }
}

/// Why there is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PickError {
    /// `UH`.
    NoHealthyUpstream,
    /// There may be one, and serving it would be wrong.
    Refused(Refusal),
}

/// A chosen host. Counts as active on it until dropped, which least-request balancing goes by.
#[derive(Debug)]
pub(crate) struct Picked(Rc<Host>);

impl Picked {
    pub(super) fn new(host: Rc<Host>) -> Self {
        host.state().enter();
        Self(host)
    }

    /// The host.
    pub(crate) fn host(&self) -> &Rc<Host> {
        &self.0
    }

    /// Where to connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.0.state().leave();
    }
}
