//! The choice of a host for one request or connection.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::host::{Host, Pools};
use crate::outlier::Report;
use crate::stats::Refusal;
use crate::tls::{ClientTls, Secrets};

/// What the choice depends on beside the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PickContext<'a> {
    /// Where the downstream connection was going, for `ORIGINAL_DST`.
    pub(crate) original_dst: SocketAddr,
    /// What it is balanced by, where the cluster balances by hash; without one, any host will do.
    pub(crate) hash: Option<u64>,
    /// Hosts that earlier attempts were sent to and that are to be avoided (`previous_hosts`).
    pub(crate) tried: &'a [SocketAddr],
    /// How often another host is drawn when one of `tried` came up (`host_selection_retry_max_attempts`).
    pub(crate) reselections: u32,
    /// The workload's, for TLS.
    pub(crate) secrets: &'a Secrets,
}

impl<'a> PickContext<'a> {
    /// A first attempt of a connection to `original_dst`.
    pub(crate) fn first(original_dst: SocketAddr, hash: Option<u64>, secrets: &'a Secrets) -> Self {
        Self { original_dst, hash, tried: &[], reselections: 0, secrets }
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
pub(crate) struct Picked {
    host: Rc<Host>,
    tls: Option<Rc<ClientTls>>,
}

impl Picked {
    /// `tls` is what it is owed.
    pub(super) fn new(host: Rc<Host>, tls: Option<Rc<ClientTls>>) -> Self {
        host.state().enter();
        Self { host, tls }
    }

    /// How TLS is spoken to it; `None` is plaintext.
    pub(super) fn tls(&self) -> Option<&Rc<ClientTls>> {
        self.tls.as_ref()
    }

    /// Whether it is shown the workload's certificate.
    pub(crate) fn shows_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.shows_certificate())
    }

    /// The pools for connections to it that come from `source`.
    pub(crate) fn pools(&self, source: Option<IpAddr>) -> Rc<Pools> {
        self.host.state().pools(source, self.tls.as_ref())
    }

    /// The host.
    pub(crate) fn host(&self) -> &Rc<Host> {
        &self.host
    }

    /// Tells its outlier detector what became of what was sent to it.
    pub(crate) fn report(&self, report: Report) {
        if let Some(watch) = self.host.watch() {
            watch.report(report);
        }
    }

    /// Where to connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.host.address()
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.host.state().leave();
    }
}
