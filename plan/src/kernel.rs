//! What the kernel is told for one workload: the [`KernelPlan`].
//!
//! Made by `compile`, consumed by `datapath`, which knows how to diff and write it and decides nothing itself. In:
//! the classifier's verdicts. Out: a frontend table, backends with weights, and what happens to inbound connections.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use orlop_shared_map::{SharedMap, Value};

/// Where a workload's connection is going, as the application named it. `addr: None` is any address at this port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Destination address; `None` matches every address that has no frontend of its own at this port.
    pub addr: Option<IpAddr>,
    /// Destination TCP port.
    pub port: u16,
}

/// What the connect hook does with a connection to a [`Frontend`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundAction {
    /// The kernel picks one of the backends by weight and rewrites the destination; no proxy.
    Balance(Arc<BackendSet>),
    /// Marked, looped and steered to the pod's outbound listener of the proxy.
    Proxy,
    /// Left exactly as the application asked for it: kube-proxy and the CNI go on as before.
    Passthrough,
    /// Refused at connect with ECONNREFUSED.
    Block,
}

/// The endpoints of one service that the kernel balances over. Never empty; every weight is at least 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendSet {
    /// Backends in the order of the load assignment.
    pub backends: Vec<Backend>,
}

/// One endpoint with its effective weight (locality weight × endpoint weight, already multiplied out).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Where the connection goes.
    pub address: SocketAddr,
    /// Relative weight, ≥ 1.
    pub weight: u32,
}

/// What `sk_lookup` does with a connection that arrives at the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundAction {
    /// Straight to the application's listener.
    Direct,
    /// Steered to the pod's inbound listener of the proxy.
    Proxy,
    /// Refused before the application sees a byte.
    Drop,
}

/// Everything that the kernel does for one workload. A clone costs nothing; equal plans change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPlan {
    /// Exact and any-address frontends.
    pub frontends: SharedMap<Frontend, OutboundAction>,
    /// Destinations without a frontend (virtualOutbound's default): Proxy, Passthrough or Block.
    pub default_outbound: OutboundAction,
    /// Inbound by destination port.
    pub inbound: SharedMap<u16, InboundAction>,
    /// Inbound ports without an entry.
    pub default_inbound: InboundAction,
}

impl Default for KernelPlan {
    /// Everything is left alone.
    fn default() -> Self {
        Self {
            frontends: SharedMap::new(),
            default_outbound: OutboundAction::Passthrough,
            inbound: SharedMap::new(),
            default_inbound: InboundAction::Direct,
        }
    }
}

impl Value for OutboundAction {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Balance(mine), Self::Balance(theirs)) => Arc::ptr_eq(mine, theirs) || mine == theirs,
            _ => self == other,
        }
    }

    fn identity(&self, state: &mut impl Hasher) {
        std::mem::discriminant(self).hash(state);
        if let Self::Balance(set) = self {
            // Sets that differ do so in one of these, mostly.
            set.backends.len().hash(state);
            set.backends.first().hash(state);
            set.backends.last().hash(state);
        }
    }
}

impl Value for InboundAction {
    fn is(&self, other: &Self) -> bool {
        self == other
    }

    fn identity(&self, state: &mut impl Hasher) {
        std::mem::discriminant(self).hash(state);
    }
}
