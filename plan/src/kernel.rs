//! What the kernel is told for one workload: the [`KernelPlan`].
//!
//! Made by `compile`, consumed by `datapath`, which knows how to diff and write it and decides nothing itself. In:
//! the classifier's verdicts. Out: a frontend table, backends with weights, and what happens to inbound connections.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use orlop_shared_map::{SharedMap, Value};
use serde::Serialize;

use crate::resource::endpoint::Family;

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
    /// The kernel picks one of the backends and rewrites the destination; no proxy.
    Balance(Arc<BackendSet>),
    /// Marked, looped and steered to the pod's outbound listener of the proxy.
    Proxy,
    /// Left exactly as the application asked for it: kube-proxy and the CNI go on as before.
    Passthrough,
    /// Refused at connect with ECONNREFUSED.
    Block,
}

/// The endpoints of one service that the kernel balances over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendSet {
    /// Whom new connections may go to, in the order of the load assignment. Never empty.
    pub backends: Vec<Backend>,
    /// How one of them is chosen.
    pub choice: Choice,
    /// Most connections that a workload may have open to the cluster.
    pub limit: Option<ConnectionLimit>,
    /// Endpoints that get no new connections and may keep those that they have.
    pub resting: Vec<SocketAddr>,
    /// The same by the endpoints' addresses of the other family, where each of them has one: the kernel cannot make an IPv4
    /// connection one of IPv6.
    pub other_family: Option<Arc<BackendSet>>,
}

/// One endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Where the connection goes.
    pub address: SocketAddr,
    /// Relative weight, ≥ 1; for [`Choice::Weighted`] with the shares of priority and locality multiplied out.
    pub weight: u64,
}

/// How a backend is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Choice {
    /// By weight.
    Weighted,
    /// A group by its share; of some of the group's backends that are drawn by weight, the one with the fewest open
    /// connections.
    LeastConnections {
        /// How many are drawn, 2 to [`MAX_CHOICES`].
        choices: u8,
        /// The backends in groups, one behind another. Never empty.
        groups: Vec<Group>,
    },
}

/// Most backends that the kernel compares for one choice.
pub const MAX_CHOICES: u8 = 8;

/// Backends of one priority and locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// Relative share of the connections, ≥ 1.
    pub share: u64,
    /// How many backends; not 0.
    pub backends: usize,
}

/// `max_connections` of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionLimit {
    /// The cluster's name. Frontends of the same cluster count together.
    pub cluster: Arc<str>,
    /// How many.
    pub connections: u32,
}

impl BackendSet {
    /// Endpoints that are chosen by weight.
    pub fn weighted(backends: Vec<Backend>) -> Self {
        Self { backends, choice: Choice::Weighted, limit: None, resting: Vec::new(), other_family: None }
    }

    /// For connections to an address: the set of its family, where there is one.
    pub fn for_connections_to(self: &Arc<Self>, ip: IpAddr) -> Option<Arc<Self>> {
        let is_for = |set: &&Arc<Self>| {
            set.backends.first().is_some_and(|one| Family::of(one.address.ip()) == Family::of(ip))
        };
        std::iter::once(self).chain(&self.other_family).find(is_for).cloned()
    }

    /// Every endpoint that connections may be open to.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.backends.iter().map(|backend| backend.address).chain(self.resting.iter().copied())
    }
}

/// What `sk_lookup` does with a connection that arrives at the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboundAction {
    /// Straight to the application's listener.
    Direct,
    /// Steered to the pod's inbound listener of the proxy.
    Proxy,
    /// Refused before the application sees a byte.
    Drop,
    /// It depends on who connects.
    BySource(Arc<SourcePolicy>),
}

impl InboundAction {
    /// Whether a policy keeps connections from this source out, be it that the proxy tells them.
    pub fn denies(&self, source: IpAddr) -> bool {
        match self {
            Self::BySource(policy) => policy.actions(source).anybody.denies(),
            Self::Direct | Self::Proxy | Self::Drop => false,
        }
    }

    /// What becomes of connections that the kernel has seen the workload of the node make which has this address.
    pub fn attested(&self, source: IpAddr) -> SourceAction {
        match self {
            Self::BySource(policy) => {
                let SourceActions { anybody, attested } = policy.actions(source);
                attested.unwrap_or(anybody)
            }
            Self::Direct => SourceAction::Direct,
            Self::Proxy => SourceAction::Proxy,
            Self::Drop => SourceAction::Drop,
        }
    }
}

/// What becomes of connections by their source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourcePolicy(Vec<(IpNet, SourceActions)>);

/// What becomes of connections from some sources, by what is known of who makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct SourceActions {
    /// Whoever it is.
    pub anybody: SourceAction,
    /// Where the kernel has seen the workload of the node make them which has the source's address, and that changes anything:
    /// it counts as the other end of mutual TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attested: Option<SourceAction>,
}

impl From<SourceAction> for SourceActions {
    fn from(anybody: SourceAction) -> Self {
        Self { anybody, attested: None }
    }
}

/// What becomes of connections from some sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceAction {
    /// Straight to the application's listener.
    Direct,
    /// To the proxy, which may know more of them.
    Proxy,
    /// To the proxy, which refuses them in words: `403 Forbidden`.
    ProxyRefuses,
    /// Refused before the application sees a byte.
    Drop,
}

impl SourcePolicy {
    /// From ranges of sources, of which the narrowest counts. What no range contains is refused.
    pub fn new(mut sources: Vec<(IpNet, SourceActions)>) -> Self {
        sources.sort_unstable_by_key(|(range, _)| *range);
        Self(sources)
    }

    /// The ranges, each once.
    pub fn sources(&self) -> &[(IpNet, SourceActions)] {
        &self.0
    }

    /// What becomes of connections from an address.
    pub fn actions(&self, source: IpAddr) -> SourceActions {
        let source = source.to_canonical();
        let containing = self.0.iter().filter(|(range, _)| range.contains(&source));
        let narrowest = containing.max_by_key(|(range, _)| range.prefix_len());
        narrowest.map_or(SourceAction::Drop.into(), |(_, actions)| *actions)
    }
}

impl SourceAction {
    /// Whether a policy is the reason that they do not reach the application.
    pub fn denies(self) -> bool {
        matches!(self, Self::ProxyRefuses | Self::Drop)
    }
}

impl fmt::Display for SourceAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Proxy => "proxy",
            Self::ProxyRefuses => "refused by the proxy",
            Self::Drop => "refused",
        })
    }
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
        match (self, other) {
            (Self::BySource(mine), Self::BySource(theirs)) => Arc::ptr_eq(mine, theirs) || mine == theirs,
            _ => self == other,
        }
    }

    fn identity(&self, state: &mut impl Hasher) {
        std::mem::discriminant(self).hash(state);
        if let Self::BySource(policy) = self {
            policy.hash(state);
        }
    }
}
