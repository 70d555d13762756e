//! One version of a cluster, with the hosts that live on from version to version.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use orlop_plan::proxy::ClusterPlan;
use orlop_plan::resource::cluster::{Cluster, ClusterDiscovery, ServerNameSource};
use orlop_plan::resource::endpoint::{HealthStatus, LbEndpoint};

use super::SharedClusters;
use super::assigned::AssignedHosts;
use super::circuit_breaker::{ConnectionPermit, PendingPermit, RequestPermit, ResourceManager, RetryPermit};
use super::host::{Host, HostState};
use super::named::NamedHosts;
use super::pick::{PickContext, PickError, Picked};
use crate::stats::{ClusterCounters, Refusal};
use crate::tls::{CannotSpeak, ClientContexts, ClientTls, Secrets};

/// A cluster of one pod, on one worker.
pub(crate) struct UpstreamCluster {
    plan: Arc<ClusterPlan>,
    /// What is in use; survives updates.
    resources: Rc<ResourceManager>,
    counters: Arc<ClusterCounters>,
    /// Survives updates.
    contexts: Rc<ClientContexts>,
    hosts: Hosts,
}

enum Hosts {
    /// From EDS or the cluster itself.
    Assigned(AssignedHosts),
    /// `ORIGINAL_DST`: made as they are asked for.
    OriginalDst { port_override: Option<u16>, by_address: RefCell<HashMap<SocketAddr, Rc<Host>>> },
    /// Those that names have.
    Named(NamedHosts),
}

impl UpstreamCluster {
    pub(super) fn new(
        plan: &Arc<ClusterPlan>,
        counters: Arc<ClusterCounters>,
        shared: &SharedClusters,
    ) -> Self {
        let hosts = Hosts::new(plan, &HashMap::new(), shared);
        Self { plan: Arc::clone(plan), resources: Rc::default(), counters, contexts: Rc::default(), hosts }
    }

    /// Whether this is the version that `plan` has.
    pub(super) fn is(&self, plan: &ClusterPlan) -> bool {
        let same_endpoints = match (&self.plan.load_assignment, &plan.load_assignment) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (None, None) => true,
            _ => false,
        };
        same_endpoints && Arc::ptr_eq(&self.plan.cluster, &plan.cluster)
    }

    /// The version that `plan` has. Hosts that remain keep their connections and counts; the others close their idle ones.
    pub(super) fn successor(&self, plan: &Arc<ClusterPlan>, shared: &SharedClusters) -> Self {
        let known = self.hosts.states();
        let hosts = Hosts::new(plan, &known, shared);
        for (address, state) in &known {
            if !hosts.contains(*address) {
                state.retire();
            }
        }
        self.contexts.retain(&plan.cluster.transport_socket);
        Self {
            plan: Arc::clone(plan),
            resources: Rc::clone(&self.resources),
            counters: Arc::clone(&self.counters),
            contexts: Rc::clone(&self.contexts),
            hosts,
        }
    }

    /// The cluster is gone: closes idle connections, and keeps others from being pooled again.
    pub(super) fn retire(&self) {
        for state in self.hosts.states().values() {
            state.retire();
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        match &self.hosts {
            Hosts::Assigned(assigned) => assigned.sweep(now),
            Hosts::OriginalDst { by_address, .. } => by_address.borrow_mut().retain(|_, host| {
                host.state().sweep(now);
                Rc::strong_count(host) > 1 || host.state().has_connections()
            }),
            Hosts::Named(named) => named.sweep(now),
        }
    }

    /// The cluster's configuration.
    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.plan.cluster
    }

    /// Where it is counted.
    pub(crate) fn counters(&self) -> &Arc<ClusterCounters> {
        &self.counters
    }

    /// Returns once it is known which hosts there are; only the first use of names has to wait.
    pub(crate) async fn resolved(&self) {
        if let Hosts::Named(named) = &self.hosts {
            named.resolved().await;
        }
    }

    /// A host for one request or connection.
    pub(crate) fn pick(&self, context: &PickContext<'_>) -> Result<Picked, PickError> {
        let host = match &self.hosts {
            Hosts::Named(named) => named.choose(context)?,
            Hosts::OriginalDst { port_override, by_address } => {
                let mut address = context.original_dst;
                address.set_port(port_override.unwrap_or(address.port()));
                let mut hosts = by_address.borrow_mut();
                Rc::clone(hosts.entry(address).or_insert_with(|| Rc::new(Host::original_dst(address))))
            }
            Hosts::Assigned(assigned) => assigned.choose(&self.plan, context)?,
        };
        let tls = self.tls(host.endpoint(), context.secrets);
        let tls = tls.map_err(|CannotSpeak| PickError::Refused(Refusal::UpstreamTls))?;
        Ok(Picked::new(host, tls))
    }

    /// What TLS to an endpoint is spoken with; `None` is plaintext.
    fn tls(&self, endpoint: &LbEndpoint, secrets: &Secrets) -> Result<Option<Rc<ClientTls>>, CannotSpeak> {
        let cluster = &self.plan.cluster;
        match cluster.transport_socket.context(&endpoint.about) {
            None => Ok(None),
            // The name that the endpoint's certificate has to be for would go unlooked at.
            Some(_) if cluster.server_name == ServerNameSource::Request => Err(CannotSpeak),
            Some(context) => self.contexts.get(context, secrets).map(Some),
        }
    }

    /// Room for another connection (`max_connections`); `None` is `UO`.
    pub(crate) fn try_connection(&self) -> Option<ConnectionPermit> {
        self.resources.connection(&self.plan.cluster.circuit_breakers)
    }

    /// Room for another connection to `host`, which may always have one.
    pub(crate) fn try_connection_to(&self, host: &HostState) -> Option<ConnectionPermit> {
        self.try_connection()
            .or_else(|| (!host.has_connections()).then(|| self.resources.connection_beyond_limit()))
    }

    /// Room for a request that has to wait for a connection (`max_pending_requests`); `None` is `UO`.
    pub(crate) fn try_pending(&self) -> Option<PendingPermit> {
        self.resources.pending(&self.plan.cluster.circuit_breakers)
    }

    /// Room for another request (`max_requests`); `None` is `UO`.
    pub(crate) fn try_request(&self) -> Option<RequestPermit> {
        self.resources.request(&self.plan.cluster.circuit_breakers)
    }

    /// Room for another attempt of a request (`max_retries`).
    pub(crate) fn try_retry(&self) -> Option<RetryPermit> {
        self.resources.retry(&self.plan.cluster.circuit_breakers)
    }
}

impl Hosts {
    fn new(plan: &ClusterPlan, known: &HashMap<SocketAddr, Rc<HostState>>, shared: &SharedClusters) -> Self {
        match &plan.cluster.discovery {
            ClusterDiscovery::Dns(discovery) => {
                let (cluster, SharedClusters { detectors, names }) = (&plan.cluster, shared);
                Self::Named(NamedHosts::new(names.get(cluster, discovery), detectors.get(cluster)))
            }
            ClusterDiscovery::OriginalDst { port_override, .. } => {
                let by_address = known
                    .iter()
                    .map(|(address, state)| {
                        (
                            *address,
                            Rc::new(Host::new(original_dst_endpoint(*address), Rc::clone(state), None)),
                        )
                    })
                    .collect();
                Self::OriginalDst { port_override: *port_override, by_address: RefCell::new(by_address) }
            }
            ClusterDiscovery::Static(_) | ClusterDiscovery::Eds { .. } => {
                Self::Assigned(AssignedHosts::new(plan, known, shared.detectors.get(&plan.cluster)))
            }
        }
    }

    fn states(&self) -> HashMap<SocketAddr, Rc<HostState>> {
        match self {
            Self::Assigned(assigned) => assigned.by_address().clone(),
            Self::OriginalDst { by_address, .. } => by_address
                .borrow()
                .iter()
                .map(|(address, host)| (*address, Rc::clone(host.state())))
                .collect(),
            Self::Named(named) => named.states(),
        }
    }

    fn contains(&self, address: SocketAddr) -> bool {
        match self {
            Self::Assigned(assigned) => assigned.by_address().contains_key(&address),
            Self::OriginalDst { by_address, .. } => by_address.borrow().contains_key(&address),
            Self::Named(named) => named.states().contains_key(&address),
        }
    }
}

/// What is known of a host that no assignment names.
pub(super) fn original_dst_endpoint(address: SocketAddr) -> LbEndpoint {
    LbEndpoint { address, health: HealthStatus::Healthy, weight: 1, about: Arc::default() }
}
