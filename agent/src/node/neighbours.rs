//! What the workloads of the node know of one another, where the kernel attests who connects instead of mutual TLS.
//!
//! In: whose plans are in force, and which. Out: plans that lead connections to a neighbour's application straight, and let them
//! in by who makes them. A workload whose plan is not in force, or that is about to go, is nobody's neighbour: connections to
//! it go through TLS.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use orlop_plan::compile::WorkloadFacts;
use orlop_plan::neighbours::{Neighbour, Neighbours, SameNode};
use orlop_plan::snapshot::Changes;

use super::identity;
use super::work::Work;
use super::workload::{Stage, Workload};
use super::{Node, Parts};
use crate::config::WorkloadId;

/// What a workload lets in depends on who the others are, and where they lead their connections on what it lets in. There is
/// nothing that the second round could change for a third one.
const ROUNDS: usize = 2;

impl Node {
    /// Tells the workloads what is in force for the others, save for those that are about to go. To be called after
    /// whatever may have changed that.
    pub(super) fn introduce_neighbours(&mut self, leaving: &BTreeSet<WorkloadId>) {
        for _ in 0..ROUNDS {
            let Some(known) = &self.parts.neighbours else { return };
            let staying = self.workloads.iter().filter(|(id, _)| !leaving.contains(id));
            let now: Neighbours =
                staying.flat_map(|(_, workload)| workload.as_neighbour(known, &self.parts)).collect();
            if now == **known {
                return;
            }
            self.parts.neighbours = Some(Arc::new(now));
            for workload in self.workloads.values_mut() {
                workload.neighbours_changed(&mut self.parts);
            }
        }
    }
}

impl Workload {
    /// Whether the kernel vouches for its connections to others.
    pub(super) fn is_attested(&self, parts: &Parts) -> bool {
        parts.neighbours.is_some() && self.has_identity(parts)
    }

    /// Whether the others know something else of it than what is in force.
    pub(super) fn is_news_to_neighbours(&self, parts: &Parts) -> bool {
        let Some(known) = &parts.neighbours else { return false };
        let now = self.as_neighbour(known, parts);
        self.spec.addresses.iter().any(|address| {
            let now = now.iter().find(|(its, _)| its == address).map(|(_, neighbour)| Arc::as_ptr(neighbour));
            known.get(*address).map(Arc::as_ptr) != now
        })
    }

    /// What it is to be told of the others.
    fn same_node(&self, parts: &Parts) -> Option<SameNode> {
        let neighbours = Arc::clone(parts.neighbours.as_ref()?);
        let principal = identity::spiffe_id(&self.spec, &parts.config.trust_domain).to_string().into();
        Some(SameNode { principal, neighbours })
    }

    /// What the others are to know of it.
    fn as_neighbour(&self, known: &Neighbours, parts: &Parts) -> Vec<(IpAddr, Arc<Neighbour>)> {
        let Stage::Enrolled(enrolled) = &self.stage else { return Vec::new() };
        if !enrolled.is_in_force() || !self.is_attested(parts) {
            return Vec::new();
        }
        let principal = identity::spiffe_id(&self.spec, &parts.config.trust_domain).to_string();
        let (addresses, plan) = (&self.spec.addresses, enrolled.plans.kernel());
        let before = addresses.iter().find_map(|address| known.get(*address));
        let neighbour = match before {
            Some(before) if before.is(&principal, plan) => Arc::clone(before),
            _ => Arc::new(Neighbour::new(principal.into(), plan)),
        };
        addresses.iter().map(|address| (*address, Arc::clone(&neighbour))).collect()
    }

    fn neighbours_changed(&mut self, parts: &mut Parts) {
        let (id, key) = (self.spec.id(), self.key());
        let (Stage::Enrolled(enrolled), Some(neighbours)) = (&mut self.stage, &parts.neighbours) else {
            return;
        };
        let reclassified = enrolled.plans.set_neighbours(&mut parts.interner, neighbours);
        if reclassified > 0 {
            let work = Work { reclassified, ..Work::default() };
            enrolled.put_in_force(&key, &id, &Changes::default(), work, parts);
        }
    }

    /// Whether the node keeps a certificate for it.
    fn has_identity(&self, parts: &Parts) -> bool {
        parts.identities.as_ref().is_some_and(|i| identity::credential(&self.spec, i).is_some())
    }

    /// What the classifier is to know of it.
    pub(super) fn facts(&self, parts: &Parts) -> WorkloadFacts {
        WorkloadFacts {
            addresses: self.spec.addresses.clone(),
            l7: parts.l7.clone(),
            identity: self.has_identity(parts),
            same_node: self.same_node(parts),
        }
    }
}
