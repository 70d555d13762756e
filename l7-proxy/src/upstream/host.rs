//! A host of a cluster: what EDS says of it, and what this worker has open to it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use orlop_plan::resource::endpoint::{HealthStatus, LbEndpoint};

use super::circuit_breaker::ConnectionPermit;
use super::cluster::original_dst_endpoint;
use super::http1_pool::Http1Pool;
use super::http2_pool::Http2Pool;
use crate::balance::Candidate;
use crate::outlier::Watch;
use crate::stats::ClusterCounters;
use crate::tls::{ClientTls, Stream};

/// A host in one version of a cluster.
#[derive(Debug)]
pub(crate) struct Host {
    endpoint: LbEndpoint,
    state: Rc<HostState>,
    watch: Option<Watch>,
}

/// What outlives versions of the cluster: load and connections of one address.
#[derive(Debug)]
pub(crate) struct HostState {
    /// When this worker first knew it as a host of the cluster.
    since: Instant,
    active: Cell<u32>,
    /// Every connection of the pools, idle or not.
    connections: Cell<u32>,
    pools: RefCell<Vec<PoolsBy>>,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            active: Cell::default(),
            connections: Cell::default(),
            pools: RefCell::default(),
        }
    }
}

/// Pools, and by whom their connections are made.
#[derive(Debug)]
struct PoolsBy {
    source: Option<IpAddr>,
    tls: Option<Rc<ClientTls>>,
    pools: Rc<Pools>,
}

/// Connections to one host from one source address and by one identity; never shared between sources, identities or pods.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    pub(crate) http1: Http1Pool,
    pub(crate) http2: Http2Pool,
    /// Connections that belong here, idle or not.
    open: Cell<u32>,
    /// Who the host has last shown itself to be.
    principal: RefCell<Option<Arc<str>>>,
}

impl Pools {
    /// A connection was opened.
    pub(crate) fn met(&self, connection: &Stream) {
        if connection.is_tls() {
            self.principal.replace(connection.principal_of_endpoint());
        }
    }

    /// Who the host has last shown itself to be; `None` in plaintext, too.
    pub(crate) fn principal(&self) -> Option<Arc<str>> {
        self.principal.borrow().clone()
    }
}

impl Host {
    /// `watch` is its outlier detector's, where the cluster has one.
    pub(super) fn new(endpoint: LbEndpoint, state: Rc<HostState>, watch: Option<Watch>) -> Self {
        Self { endpoint, state, watch }
    }

    /// A host that no assignment names.
    pub(super) fn original_dst(address: SocketAddr) -> Self {
        Self::new(original_dst_endpoint(address), Rc::default(), None)
    }

    /// Where connections go.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// As EDS describes it.
    pub(crate) fn endpoint(&self) -> &LbEndpoint {
        &self.endpoint
    }

    /// What its outlier detector knows of it.
    pub(super) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    /// Load and connections.
    pub(crate) fn state(&self) -> &Rc<HostState> {
        &self.state
    }
}

/// An open connection of a pool. Counts where Envoy counts it until dropped; then whoever waits for a connection is told.
#[derive(Debug)]
pub(crate) struct Membership {
    host: Rc<HostState>,
    pools: Weak<Pools>,
    counters: Arc<ClusterCounters>,
    _permit: ConnectionPermit,
}

impl Membership {
    /// A connection that was opened for `pools` of `host`.
    pub(crate) fn new(
        host: &Rc<HostState>,
        pools: &Rc<Pools>,
        counters: &Arc<ClusterCounters>,
        permit: ConnectionPermit,
    ) -> Self {
        counters.connections.inc();
        counters.active.inc();
        host.connections.set(host.connections.get().saturating_add(1));
        pools.open.set(pools.open.get().saturating_add(1));
        Self {
            host: Rc::clone(host),
            pools: Rc::downgrade(pools),
            counters: Arc::clone(counters),
            _permit: permit,
        }
    }

    /// The pools that the connection goes back to, while its host is part of the cluster.
    pub(crate) fn pools(&self) -> Option<Rc<Pools>> {
        self.pools.upgrade()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.counters.active.dec();
        self.host.connections.set(self.host.connections.get().saturating_sub(1));
        if let Some(pools) = self.pools.upgrade() {
            pools.open.set(pools.open.get().saturating_sub(1));
            pools.http1.capacity_freed();
        }
    }
}

impl PoolsBy {
    fn is_by(&self, tls: Option<&Rc<ClientTls>>) -> bool {
        match (&self.tls, tls) {
            (Some(known), Some(tls)) => Rc::ptr_eq(known, tls),
            (None, None) => true,
            _ => false,
        }
    }
}

impl HostState {
    /// The pools for connections that come from `source` and are spoken to by `tls`. Those that were made otherwise, in
    /// plaintext or with an older certificate, end with what they are at.
    pub(super) fn pools(&self, source: Option<IpAddr>, tls: Option<&Rc<ClientTls>>) -> Rc<Pools> {
        let mut pools = self.pools.borrow_mut();
        if let Some(known) = pools.iter().find(|known| known.source == source && known.is_by(tls)) {
            return Rc::clone(&known.pools);
        }
        let new = Rc::<Pools>::default();
        let others = pools.extract_if(.., |known| known.source == source).collect::<Vec<_>>();
        pools.push(PoolsBy { source, tls: tls.cloned(), pools: Rc::clone(&new) });
        drop(pools);
        // Closing connections comes back here.
        drop(others);
        new
    }

    /// Whether anything is open or being opened to it.
    pub(crate) fn has_connections(&self) -> bool {
        self.connections.get() > 0
    }

    pub(super) fn enter(&self) {
        self.active.set(self.active.get().saturating_add(1));
    }

    pub(super) fn leave(&self) {
        self.active.set(self.active.get().saturating_sub(1));
    }

    /// The address left the cluster, or the cluster the plan: closes idle connections. Those in use find no pool to go back
    /// to, and close too.
    pub(super) fn retire(&self) {
        self.pools.take();
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.pools.borrow_mut().retain(|PoolsBy { pools, .. }| {
            pools.http1.sweep(now);
            pools.http2.sweep(now);
            Rc::strong_count(pools) > 1 || pools.open.get() > 0
        });
    }
}

impl Candidate for Rc<Host> {
    fn weight(&self) -> u32 {
        self.endpoint.weight
    }

    fn active(&self) -> u32 {
        self.state.active.get()
    }

    fn since(&self) -> Instant {
        self.state.since
    }

    fn health(&self) -> HealthStatus {
        match self.endpoint.health {
            HealthStatus::Draining => HealthStatus::Draining,
            _ if self.watch.as_ref().is_some_and(Watch::is_ejected) => HealthStatus::Unhealthy,
            health => health,
        }
    }
}
