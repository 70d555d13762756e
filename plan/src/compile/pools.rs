//! What the plans of all workloads share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use orlop_shared_map::Pool;

use super::User;
use crate::index::IndexPools;
use crate::kernel::{Frontend, InboundAction, OutboundAction};
use crate::proxy::ClusterPlan;
use crate::resource::cluster::Cluster;
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::listener::Listener;
use crate::resource::route::RouteConfiguration;

/// The parts of every workload's tables. Holds nothing alive by itself.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    pub(crate) names: IndexPools<Arc<str>>,
    pub(super) users: IndexPools<User>,
    pub(super) asking: IndexPools<u32>,
    pub(super) clusters: Pool<Arc<str>, Arc<ClusterPlan>>,
    pub(super) routes: Pool<Arc<str>, Arc<RouteConfiguration>>,
    pub(super) listeners: Pool<Arc<str>, Arc<Listener>>,
    pub(super) exact: Pool<(IpAddr, u16), Arc<Listener>>,
    pub(super) by_port: Pool<u16, Arc<Listener>>,
    pub(super) frontends: Pool<Frontend, OutboundAction>,
    pub(super) inbound: Pool<u16, InboundAction>,
    pub(super) cluster_plans: ClusterPlans,
}

/// Where the cluster and the endpoints of a plan are. Neither address can be another's while the plan lives.
type Addresses = (usize, usize);

/// Cluster plans by what they are made of.
#[derive(Debug)]
pub(super) struct ClusterPlans {
    by_addresses: HashMap<Addresses, Weak<ClusterPlan>>,
    /// The size at which the dead are looked for again.
    sweep_at: usize,
}

const SMALL: usize = 64;

impl Default for ClusterPlans {
    fn default() -> Self {
        Self { by_addresses: HashMap::new(), sweep_at: SMALL }
    }
}

impl ClusterPlans {
    /// The plan of a cluster with these endpoints.
    pub(super) fn get(
        &mut self,
        cluster: &Arc<Cluster>,
        load_assignment: Option<Arc<ClusterLoadAssignment>>,
    ) -> Arc<ClusterPlan> {
        let endpoints = load_assignment.as_ref().map_or(0, |endpoints| Arc::as_ptr(endpoints).addr());
        let addresses = (Arc::as_ptr(cluster).addr(), endpoints);
        if let Some(known) = self.by_addresses.get(&addresses).and_then(Weak::upgrade) {
            return known;
        }
        if self.by_addresses.len() >= self.sweep_at {
            self.by_addresses.retain(|_, plan| plan.strong_count() > 0);
            self.sweep_at = SMALL.max(self.by_addresses.len() * 2);
        }
        let plan = Arc::new(ClusterPlan::new(Arc::clone(cluster), load_assignment));
        self.by_addresses.insert(addresses, Arc::downgrade(&plan));
        plan
    }
}
