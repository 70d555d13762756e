//! Plans in few words.

use std::net::SocketAddr;
use std::sync::Arc;

use orlop_plan::kernel::{
    Backend, BackendSet, Frontend, InboundAction, KernelPlan, OutboundAction, SourceActions, SourcePolicy,
};
use orlop_shared_map::Pool;

/// A plan that leaves everything alone.
pub(crate) fn nothing() -> KernelPlan {
    KernelPlan::default()
}

pub(crate) trait PlanExt: Sized {
    fn frontend(self, to: &str, action: OutboundAction) -> Self;
    fn any_address(self, port: u16, action: OutboundAction) -> Self;
    fn inbound(self, port: u16, action: InboundAction) -> Self;
}

impl PlanExt for KernelPlan {
    fn frontend(mut self, to: &str, action: OutboundAction) -> Self {
        let to: SocketAddr = to.parse().unwrap();
        self.frontends.insert(&mut Pool::new(), Frontend { addr: Some(to.ip()), port: to.port() }, action);
        self
    }

    fn any_address(mut self, port: u16, action: OutboundAction) -> Self {
        self.frontends.insert(&mut Pool::new(), Frontend { addr: None, port }, action);
        self
    }

    fn inbound(mut self, port: u16, action: InboundAction) -> Self {
        self.inbound.insert(&mut Pool::new(), port, action);
        self
    }
}

/// By where from, in ranges.
pub(crate) fn by_source<A: Copy + Into<SourceActions>>(ranges: &[(&str, A)]) -> InboundAction {
    let ranges = ranges.iter().map(|(range, action)| (range.parse().unwrap(), (*action).into())).collect();
    InboundAction::BySource(Arc::new(SourcePolicy::new(ranges)))
}

/// Balances over `(address, weight)`.
pub(crate) fn balance(backends: &[(&str, u32)]) -> OutboundAction {
    let backend = |(address, weight): &(&str, u32)| Backend {
        address: address.parse().unwrap(),
        weight: u64::from(*weight),
    };
    OutboundAction::Balance(Arc::new(BackendSet::weighted(backends.iter().map(backend).collect())))
}
