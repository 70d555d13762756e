//! What the proxy is told for one workload: the [`ProxyPlan`]. Immutable; a change makes another one.
//!
//! Made by `compile`, which holds a listener or route back until the clusters it names are there, so that nothing
//! served points at something that has not arrived. Consumed by `l7-proxy`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use orlop_shared_map::SharedMap;

use crate::balance::{BalancerConfig, HashTables};
use crate::classify::Landings;
use crate::kernel::Frontend;
use crate::resource::cluster::{Cluster, ClusterDiscovery};
use crate::resource::endpoint::{ClusterLoadAssignment, DEFAULT_OVERPROVISIONING_FACTOR};
use crate::resource::listener::Listener;
use crate::resource::route::RouteConfiguration;
use crate::resource::secret::Secret;
use crate::resource::tls::SecretSource;

/// Everything that the proxy serves for one workload. A clone costs nothing; equal parts of several workloads are shared.
#[derive(Debug, Default, Clone)]
pub struct ProxyPlan {
    /// Listeners for connections that leave the pod.
    pub outbound: OutboundListeners,
    /// `virtualInbound`.
    pub inbound: Option<Arc<Listener>>,
    /// Route configurations by RDS name.
    pub routes: SharedMap<Arc<str>, Arc<RouteConfiguration>>,
    /// Clusters by name, with the endpoints that EDS gave them.
    pub clusters: SharedMap<Arc<str>, Arc<ClusterPlan>>,
    /// The workload's secrets. What needs one that is not here is refused.
    pub secrets: Arc<BTreeMap<SecretSource, Arc<Secret>>>,
}

/// Outbound listeners by the connection's original destination (ISTIOD: exact, then any address at the port, then
/// virtualOutbound).
#[derive(Debug, Default, Clone)]
pub struct OutboundListeners {
    /// `<VIP>_<port>`.
    pub exact: SharedMap<(IpAddr, u16), Arc<Listener>>,
    /// `0.0.0.0_<port>`, `[::]_<port>`.
    pub by_port: SharedMap<u16, Arc<Listener>>,
    /// `virtualOutbound`.
    pub default: Option<Arc<Listener>>,
}

impl OutboundListeners {
    /// The listener that has a destination as its own.
    pub(crate) fn own(&self, Frontend { addr, port }: Frontend) -> Option<&Arc<Listener>> {
        match addr {
            Some(addr) => self.exact.get(&(addr, port)),
            None => self.by_port.get(&port),
        }
    }

    /// The listener that takes a connection to `addr:port`.
    pub fn select(&self, addr: IpAddr, port: u16) -> Option<&Arc<Listener>> {
        self.exact.get(&(addr, port)).or_else(|| self.by_port.get(&port)).or(self.default.as_ref())
    }
}

/// A cluster and its endpoints.
#[derive(Debug)]
pub struct ClusterPlan {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// From EDS or the cluster itself; `None` for original destination and DNS.
    pub load_assignment: Option<Arc<ClusterLoadAssignment>>,
    /// What it means to be sent to it, found when it is first asked for.
    pub(crate) landings: Landings,
    /// Made when it is first asked for.
    hash_tables: OnceLock<Arc<HashTables>>,
}

impl ClusterPlan {
    /// A cluster with these endpoints.
    pub fn new(cluster: Arc<Cluster>, load_assignment: Option<Arc<ClusterLoadAssignment>>) -> Self {
        Self { cluster, load_assignment, landings: Landings::default(), hash_tables: OnceLock::new() }
    }

    /// The endpoints, whoever named them.
    pub fn endpoints(&self) -> Option<&Arc<ClusterLoadAssignment>> {
        match &self.cluster.discovery {
            ClusterDiscovery::Static(endpoints) => Some(endpoints),
            _ => self.load_assignment.as_ref(),
        }
    }

    /// How the cluster balances.
    pub fn balancer_config(&self) -> BalancerConfig {
        let Cluster { lb_policy, slow_start, healthy_panic_threshold, locality_weighted, .. } =
            &*self.cluster;
        let factor = self.endpoints().map(|assignment| assignment.overprovisioning_factor);
        BalancerConfig {
            policy: *lb_policy,
            slow_start: *slow_start,
            panic_threshold: *healthy_panic_threshold,
            locality_weighted: *locality_weighted,
            overprovisioning_factor: factor.unwrap_or(DEFAULT_OVERPROVISIONING_FACTOR),
        }
    }

    /// Where hashes lead while every endpoint is as EDS says; shared by all who have this version of the cluster.
    pub fn hash_tables(&self) -> &Arc<HashTables> {
        self.hash_tables.get_or_init(|| {
            let hosts = self.endpoints().map(|assignment| assignment.hashed_hosts());
            HashTables::new(self.balancer_config(), &hosts.unwrap_or_default()).into()
        })
    }
}
