//! Clusters as one worker uses them for one pod: hosts, balancer, circuit breakers, connection pools.
//!
//! Owned by the worker ([`Upstreams`] in its `PodContext`), used by `tcp` and `http`. In: the pod's plan, at each use. Out: a
//! [`Picked`] host, a [`ConnectionPermit`], pooled connections. A cluster is immutable; when the plan brings another version
//! of it, a successor is built that takes over the hosts whose addresses remain.

mod addresses;
mod assigned;
mod circuit_breaker;
mod cluster;
mod host;
mod http1_pool;
mod http2_pool;
mod named;
mod open;
mod pick;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use orlop_plan::proxy::ProxyPlan;

use crate::names::Names;
use crate::outlier::Detectors;
use crate::stats::PodCounters;

pub(crate) use circuit_breaker::{ConnectionPermit, RequestPermit};
pub(crate) use cluster::UpstreamCluster;
pub(crate) use host::{Membership, Pools};
pub(crate) use http1_pool::Http1Connection;
pub(crate) use http2_pool::{Http2Connection, Http2Stream};
pub(crate) use open::{OpenError, open};
pub(crate) use pick::{PickContext, PickError, Picked};

/// What the workers have in common of one pod's clusters.
#[derive(Debug, Clone)]
pub(crate) struct SharedClusters {
    /// Who fails.
    pub(crate) detectors: Arc<Detectors>,
    /// Which addresses names have.
    pub(crate) names: Arc<Names>,
}

/// Every cluster of one pod that this worker has used.
pub(crate) struct Upstreams {
    counters: Arc<PodCounters>,
    shared: SharedClusters,
    clusters: RefCell<HashMap<Arc<str>, Rc<UpstreamCluster>>>,
}

impl Upstreams {
    /// Nothing used yet.
    pub(crate) fn new(counters: Arc<PodCounters>, shared: SharedClusters) -> Self {
        Self { counters, shared, clusters: RefCell::default() }
    }

    /// The cluster as `plan` has it; `None` where it has none (`NC`).
    pub(crate) fn cluster(&self, plan: &ProxyPlan, name: &str) -> Option<Rc<UpstreamCluster>> {
        let (name, wanted) = plan.clusters.get_key_value(name)?;
        let mut clusters = self.clusters.borrow_mut();
        match clusters.get_mut(name) {
            Some(known) if known.is(wanted) => Some(Rc::clone(known)),
            Some(known) => {
                *known = Rc::new(known.successor(wanted, &self.shared));
                Some(Rc::clone(known))
            }
            None => {
                let cluster =
                    Rc::new(UpstreamCluster::new(wanted, self.counters.cluster(name), &self.shared));
                clusters.insert(Arc::clone(name), Rc::clone(&cluster));
                Some(cluster)
            }
        }
    }

    /// Drops those of the `changed` clusters that `plan` no longer has, with their idle connections, and brings the others up
    /// to date. The worker calls it after an update, so that connections to endpoints that are gone do not wait for the next
    /// request.
    pub(crate) fn update(&self, plan: &ProxyPlan, changed: &[Arc<str>]) {
        let mut clusters = self.clusters.borrow_mut();
        for name in changed {
            let Some(known) = clusters.get_mut(name) else { continue };
            match plan.clusters.get(name) {
                Some(wanted) if !known.is(wanted) => {
                    *known = Rc::new(known.successor(wanted, &self.shared));
                }
                Some(_) => {}
                None => {
                    known.retire();
                    clusters.remove(name);
                }
            }
        }
    }

    /// Closes pooled connections that were idle for too long or that the peer closed, and forgets original destinations
    /// that are not in use. The worker calls it about once a second.
    pub(crate) fn sweep(&self, now: Instant) {
        for cluster in self.clusters.borrow().values() {
            cluster.sweep(now);
        }
    }
}
