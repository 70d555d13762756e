//! The classifier: for each destination of a workload, which path its connections take, and why.
//!
//! Pure. In: the served resources. Out: a [`KernelPlan`] and the [`Verdict`]s behind it. A destination is the kernel's
//! only where it is proven that the kernel does the same as the proxy would; whatever is not understood goes to the
//! proxy or is refused.

mod backends;
mod cause;
mod chain;
mod cluster;
mod finding;
mod inbound;
mod outbound;
mod refused;
mod verdict;
mod virtual_host;

use std::collections::BTreeMap;

use crate::compile::WorkloadFacts;
use crate::kernel::{Frontend, InboundAction, KernelPlan, OutboundAction};
use crate::proxy::ProxyPlan;
use crate::snapshot::Snapshot;

use finding::Finding;

pub use cause::Cause;
pub use verdict::{Destination, Path, Reason, Verdict};

/// What the classifier comes to.
pub(crate) struct Classified {
    pub(crate) kernel: KernelPlan,
    pub(crate) verdicts: BTreeMap<Destination, Verdict>,
}

/// Judges every destination.
pub(crate) fn classify(snapshot: &Snapshot, facts: &WorkloadFacts, proxy: &ProxyPlan) -> Classified {
    let mut classified = Classified {
        kernel: KernelPlan {
            frontends: BTreeMap::new(),
            default_outbound: OutboundAction::Passthrough,
            inbound: BTreeMap::new(),
            default_inbound: InboundAction::Direct,
        },
        verdicts: BTreeMap::new(),
    };
    outbound::outbound(proxy, &mut classified);
    inbound::inbound(proxy, facts, &mut classified);
    refused::refused(snapshot, &mut classified);
    classified
}

impl Classified {
    fn outbound(&mut self, frontend: Frontend, finding: &Finding, hosts: Vec<String>) {
        self.kernel.frontends.insert(frontend, outbound::action(finding));
        self.verdict(Destination::Outbound(frontend), finding, hosts);
    }

    fn outbound_elsewhere(&mut self, finding: &Finding) {
        self.kernel.default_outbound = outbound::action(finding);
        self.verdict(Destination::OutboundElsewhere, finding, Vec::new());
    }

    fn inbound(&mut self, port: u16, finding: &Finding) {
        self.kernel.inbound.insert(port, inbound::action(finding));
        self.verdict(Destination::Inbound(port), finding, Vec::new());
    }

    fn inbound_elsewhere(&mut self, finding: &Finding) {
        self.kernel.default_inbound = inbound::action(finding);
        self.verdict(Destination::InboundElsewhere, finding, Vec::new());
    }

    fn verdict(&mut self, destination: Destination, finding: &Finding, hosts: Vec<String>) {
        let verdict = Verdict { path: finding.path, reason: finding.reason.clone(), hosts };
        self.verdicts.insert(destination, verdict);
    }
}
