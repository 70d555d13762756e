//! From accepted resources to plans: [`Plans`].
//!
//! Pure. In: a [`Snapshot`] and what changed in it, and what is known of the workload. Out: what is to be in force. A
//! listener or route configuration that names something which has not arrived keeps its version in force, so that nothing
//! that is served points at something missing; it is listed in [`Plans::held`].
//!
//! A change costs what it touches: it is followed from clusters over routes and listeners to destinations. Tables are shared
//! with the plans of other workloads wherever they are equal.

mod claims;
mod destinations;
mod explain;
mod held;
mod peer;
mod pools;
mod refusals;
mod warming;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::classify::{Destination, L7Modes, Served, Verdict};
use crate::index::Index;
use crate::kernel::KernelPlan;
use crate::neighbours::{Neighbours, SameNode};
use crate::proxy::ProxyPlan;
use crate::snapshot::{Changes, Interner, ResourceType, Snapshot};
use warming::{Serving, User};

pub use explain::{Explanation, explain};
pub use held::Held;
pub use peer::{Peer, peer};
pub(crate) use pools::Pools;
pub(crate) use refusals::Refusals;

/// What is known of a workload apart from its resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadFacts {
    /// The addresses of its network namespace.
    pub addresses: Vec<IpAddr>,
    /// When HTTP goes through the L7 proxy.
    pub l7: L7Modes,
    /// The node provides its identity: the secrets `default` and `ROOTCA` of [`SecretSource::Node`], now or as soon as it
    /// has them. Without, what owes TLS is refused by the kernel.
    ///
    /// [`SecretSource::Node`]: crate::resource::tls::SecretSource::Node
    pub identity: bool,
    /// The kernel attests connections among the workloads of the node, in the place of mutual TLS.
    pub same_node: Option<SameNode>,
}

/// What is to be in force for one workload.
#[derive(Debug, Clone)]
pub struct Plans {
    facts: WorkloadFacts,
    ready: bool,
    serving: Serving,
    kernel: KernelPlan,
    asking: Index<u32>,
    refused: Refusals,
}

/// What an update came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Updated {
    /// The proxy is to do something else than before.
    pub proxy: bool,
    /// Clusters that are not what they were, or gone: the only ones that the proxy has to look at.
    pub clusters: Vec<Arc<str>>,
    /// Destinations that were looked at.
    pub reclassified: usize,
}

impl Plans {
    /// Plans of a workload that has no resources yet.
    pub fn new(facts: WorkloadFacts) -> Self {
        Self {
            facts,
            ready: false,
            serving: Serving::default(),
            kernel: KernelPlan::default(),
            asking: Index::new(),
            refused: Refusals::default(),
        }
    }

    /// The first complete set has arrived: every load assignment and route configuration that was asked for. Until
    /// then the plans are not to be applied.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// For the datapath.
    pub fn kernel(&self) -> &KernelPlan {
        &self.kernel
    }

    /// For the proxy.
    pub fn proxy(&self) -> &ProxyPlan {
        &self.serving.proxy
    }

    /// What is waiting, and for what.
    pub fn held(&self) -> Vec<Held> {
        self.serving.held()
    }

    /// The path of every destination that has one of its own, found anew.
    pub fn verdicts(&self) -> BTreeMap<Destination, Verdict> {
        let served = self.served();
        let verdict = |destination| Some((destination, served.verdict(destination)?));
        served.destinations().into_iter().filter_map(verdict).collect()
    }

    /// Follows what changed in the snapshot since the last update.
    pub fn update(&mut self, interner: &mut Interner, snapshot: &Snapshot, changes: &Changes) -> Updated {
        if changes.is_empty() {
            return Updated::default();
        }
        let pools = &mut interner.plans;
        let touched = self.serving.follow(pools, snapshot, changes);
        let secrets_changed = self.serving.take_secrets(snapshot, &changes.secrets);
        let reclassified = self.reclassify(pools, snapshot, changes, &touched);
        self.ready = self.ready || is_complete(snapshot);
        Updated {
            proxy: secrets_changed
                || !(touched.clusters.is_empty()
                    && touched.routes.is_empty()
                    && touched.listeners.is_empty()),
            clusters: touched.clusters.into_iter().collect(),
            reclassified,
        }
    }

    /// Goes on with other facts. Returns how many destinations were looked at.
    pub fn set_facts(&mut self, interner: &mut Interner, facts: WorkloadFacts) -> usize {
        if facts == self.facts {
            return 0;
        }
        self.facts = facts;
        self.reclassify_all(&mut interner.plans)
    }

    /// Goes on among other workloads of the node. Returns how many destinations were looked at.
    pub fn set_neighbours(&mut self, interner: &mut Interner, neighbours: &Arc<Neighbours>) -> usize {
        let Some(same_node) = &mut self.facts.same_node else { return 0 };
        let before = std::mem::replace(&mut same_node.neighbours, Arc::clone(neighbours));
        self.reclassify_among(&mut interner.plans, &before, neighbours)
    }

    fn served(&self) -> Served<'_> {
        let Self { facts, serving, asking, refused, ready: _, kernel: _ } = self;
        Served { proxy: &serving.proxy, facts, asking, refused, modes: true }
    }
}

/// Whether everything that the accepted resources name has been delivered, be it that it was refused.
fn is_complete(snapshot: &Snapshot) -> bool {
    let answered = |kind, name: &str| snapshot.rejection(kind, name).is_some();
    snapshot.was_delivered(ResourceType::Cluster)
        && snapshot.was_delivered(ResourceType::Listener)
        && snapshot.endpoints_wanted().keys().all(|name| {
            snapshot.load_assignments().get(name).is_some()
                || answered(ResourceType::ClusterLoadAssignment, name)
        })
        && snapshot.routes_wanted().keys().all(|name| {
            snapshot.routes().get(name).is_some() || answered(ResourceType::RouteConfiguration, name)
        })
}
