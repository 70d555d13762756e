//! The other workloads of a node, to whom the kernel attests who connects: [`Neighbours`].
//!
//! Made by whoever knows all workloads of the node, read by the classifier. In: the identities of workloads, and what is in
//! force for connections to them. Out: whether one of them takes a connection of another one without mutual TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use orlop_shared_map::SharedMap;

use crate::kernel::{InboundAction, KernelPlan, SourceAction};

/// A workload among the others of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SameNode {
    /// Its own SPIFFE identity.
    pub principal: Arc<str>,
    /// All of them, by their addresses.
    pub neighbours: Arc<Neighbours>,
}

/// Workloads of one node. No two of them have the same address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Neighbours(BTreeMap<IpAddr, Arc<Neighbour>>);

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Neighbour {
    principal: Arc<str>,
    inbound: SharedMap<u16, InboundAction>,
    default_inbound: InboundAction,
}

impl Neighbour {
    /// With its SPIFFE identity, and the plan that is in force for it.
    pub fn new(principal: Arc<str>, plan: &KernelPlan) -> Self {
        let KernelPlan { inbound, default_inbound, frontends: _, default_outbound: _ } = plan.clone();
        Self { principal, inbound, default_inbound }
    }

    /// Its SPIFFE identity.
    pub fn principal(&self) -> &Arc<str> {
        &self.principal
    }

    /// Whether this would be said again of the workload.
    pub fn is(&self, principal: &str, plan: &KernelPlan) -> bool {
        *self.principal == *principal
            && self.inbound == plan.inbound
            && self.default_inbound == plan.default_inbound
    }

    /// Whether its application takes connections at a port straight from the workload with this address.
    fn takes(&self, port: u16, source: IpAddr) -> bool {
        self.inbound.get(&port).unwrap_or(&self.default_inbound).attested(source) == SourceAction::Direct
    }
}

impl FromIterator<(IpAddr, Arc<Neighbour>)> for Neighbours {
    /// Of workloads with the same address none is known by it.
    fn from_iter<I: IntoIterator<Item = (IpAddr, Arc<Neighbour>)>>(workloads: I) -> Self {
        let (mut found, mut ambiguous) = (BTreeMap::new(), BTreeSet::new());
        for (address, neighbour) in workloads {
            if found.insert(address.to_canonical(), neighbour).is_some() {
                ambiguous.insert(address.to_canonical());
            }
        }
        found.retain(|address, _| !ambiguous.contains(address));
        Self(found)
    }
}

impl Neighbours {
    /// Each by its address.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Arc<Neighbour>)> {
        self.0.iter().map(|(address, neighbour)| (*address, neighbour))
    }

    /// The one with this address.
    pub fn get(&self, address: IpAddr) -> Option<&Arc<Neighbour>> {
        self.0.get(&address.to_canonical())
    }

    /// The addresses of which something else is said by `newer`.
    pub(crate) fn changed(&self, newer: &Self) -> BTreeSet<IpAddr> {
        let all = self.0.keys().chain(newer.0.keys());
        all.filter(|address| self.0.get(address) != newer.0.get(address)).copied().collect()
    }

    /// Whether other identities are there, or at other addresses.
    pub(crate) fn are_others(&self, newer: &Self) -> bool {
        let identities = |all: &Self| -> Vec<_> {
            all.0.iter().map(|(address, neighbour)| (*address, Arc::clone(&neighbour.principal))).collect()
        };
        identities(self) != identities(newer)
    }
}

impl SameNode {
    /// The identity of the workload at an endpoint, if it takes connections straight from the one with these addresses.
    pub(crate) fn taken_by(&self, endpoint: SocketAddr, own: &[IpAddr]) -> Option<&str> {
        let neighbour = self.neighbours.get(endpoint.ip())?;
        let source = own.iter().find(|own| own.is_ipv4() == endpoint.ip().to_canonical().is_ipv4())?;
        let takes = !own.contains(&endpoint.ip()) && neighbour.takes(endpoint.port(), *source);
        takes.then_some(&*neighbour.principal)
    }
}
