//! From accepted resources to plans: [`compile`].
//!
//! Pure. In: a [`Snapshot`], what is known of the workload, and the plans in force. Out: [`Plans`]. A listener or route
//! configuration that names something which has not arrived keeps its version in force, so that nothing that is served
//! points at something missing; it is listed in [`Plans::held`].

mod explain;
mod warming;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::classify::{self, Destination, Verdict};
use crate::kernel::KernelPlan;
use crate::proxy::ProxyPlan;
use crate::resource::listener::Listener;
use crate::snapshot::{ResourceType, Snapshot};

pub use explain::{Explanation, explain};
pub use warming::Held;

/// What is known of a workload apart from its resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkloadFacts {
    /// The addresses of its network namespace.
    pub addresses: Vec<IpAddr>,
}

/// What is to be in force for one workload.
#[derive(Debug, Clone)]
pub struct Plans {
    /// The first complete set has arrived: every load assignment and route configuration that was asked for. Until
    /// then the plans are not to be applied.
    pub ready: bool,
    /// For the datapath.
    pub kernel: KernelPlan,
    /// For the proxy.
    pub proxy: ProxyPlan,
    /// Every destination that has a verdict of its own.
    pub verdicts: BTreeMap<Destination, Verdict>,
    /// What is waiting, and for what.
    pub held: Vec<Held>,
    /// The served listeners by name.
    listeners: HashMap<String, Arc<Listener>>,
}

/// The plans for a workload. `previous` are the plans in force, `None` at first.
pub fn compile(snapshot: &Snapshot, facts: &WorkloadFacts, previous: Option<&Plans>) -> Plans {
    let warming::Served { listeners, proxy, held } = warming::served(snapshot, previous);
    let classified = classify::classify(snapshot, facts, &proxy);
    Plans {
        ready: previous.is_some_and(|plans| plans.ready) || is_complete(snapshot),
        kernel: classified.kernel,
        proxy,
        verdicts: classified.verdicts,
        held,
        listeners,
    }
}

/// Whether everything that the accepted resources name has been delivered, be it that it was refused.
fn is_complete(snapshot: &Snapshot) -> bool {
    let answered = |kind, name: &str| snapshot.rejection(kind, name).is_some();
    snapshot.was_delivered(ResourceType::Cluster)
        && snapshot.was_delivered(ResourceType::Listener)
        && snapshot.endpoints_wanted().iter().all(|name| {
            snapshot.load_assignments().get(name).is_some()
                || answered(ResourceType::ClusterLoadAssignment, name)
        })
        && snapshot.routes_wanted().iter().all(|name| {
            snapshot.routes().get(name).is_some() || answered(ResourceType::RouteConfiguration, name)
        })
}
