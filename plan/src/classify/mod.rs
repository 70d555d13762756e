//! The classifier: for each destination of a workload, which path its connections take, and why.
//!
//! Pure. In: what is served. Out: what the kernel does for one destination, and the [`Verdict`] behind it for whoever asks.
//! A destination is the kernel's only where it is proven that the kernel does the same as the proxy would; whatever is not
//! understood goes to the proxy or is refused.

mod backends;
mod cause;
mod chain;
mod cluster;
mod finding;
mod http;
mod inbound;
mod mode;
mod outbound;
mod policy;
mod reach;
mod verdict;
mod virtual_host;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::compile::{Refusals, WorkloadFacts};
use crate::index::Index;
use crate::kernel::{Frontend, InboundAction, OutboundAction};
use crate::proxy::ProxyPlan;
use crate::resource::FieldPath;
use crate::resource::route::{RouteConfiguration, VirtualHost};
use finding::Finding;

pub(crate) use cluster::Landings;
pub(crate) use http::asks;
pub(crate) use outbound::{frontend_ip, own_ports, route_configurations};
pub(crate) use reach::{Reach, addresses_of};

pub use cause::Cause;
pub use mode::{L7Modes, Mode, ModeOf, Subject};
pub use policy::SourceRule;
pub use verdict::{Destination, Path, Reason, Verdict};

/// What is served for one workload.
#[derive(Clone, Copy)]
pub(crate) struct Served<'a> {
    pub(crate) proxy: &'a ProxyPlan,
    pub(crate) facts: &'a WorkloadFacts,
    /// By route configuration, the positions of virtual hosts that need the proxy or are refused.
    pub(crate) asking: &'a Index<u32>,
    /// Listeners that were refused and have no older version. Connections to their destinations are refused too: letting
    /// them fall to the next listener would carry traffic past a policy that was asked for and not understood.
    pub(crate) refused: &'a Refusals,
    /// Whether modes count: outbound they do.
    pub(crate) modes: bool,
}

/// Which virtual hosts a destination stands for.
#[derive(Clone, Copy)]
enum Scope<'a> {
    /// All that the listener has: it is one service's own.
    All,
    /// The one that has the address among its domains.
    Host(&'a RouteConfiguration, &'a VirtualHost),
    /// An address that no virtual host has.
    Any,
}

impl<'a> Scope<'a> {
    /// The virtual hosts of a route configuration that it stands for, where unknown ones are left out.
    fn hosts(self, routes: &'a RouteConfiguration) -> Vec<&'a VirtualHost> {
        match self {
            Self::All => routes.virtual_hosts.iter().map(AsRef::as_ref).collect(),
            Self::Host(its, host) if std::ptr::eq(its, routes) => vec![host],
            Self::Host(..) => Vec::new(),
            Self::Any => routes.any_host().into_iter().collect(),
        }
    }
}

impl<'a> Served<'a> {
    /// What the kernel does with connections to a destination; `None` where it has no entry of its own.
    pub(crate) fn outbound(self, frontend: Frontend) -> Option<OutboundAction> {
        if self.refusal(Destination::Outbound(frontend)).is_some() {
            return Some(OutboundAction::Block);
        }
        Some(outbound::action(&outbound::taken(self, frontend)?.finding(self)))
    }

    /// The clusters that connections to a destination may be led to.
    pub(crate) fn clusters(self, frontend: Frontend) -> BTreeSet<&'a Arc<str>> {
        outbound::taken(self, frontend).map_or_else(BTreeSet::new, |taken| taken.clusters(self))
    }

    /// What the kernel does with connections to anywhere else.
    pub(crate) fn outbound_elsewhere(self) -> OutboundAction {
        outbound::action(&self.finding(Destination::OutboundElsewhere).unwrap_or_else(outbound::nobody))
    }

    /// What the kernel does with connections that come in at a port of its own.
    pub(crate) fn inbound(self, port: u16) -> InboundAction {
        inbound::action(self, &inbound::finding(self, Some(port)), Some(port))
    }

    /// What the kernel does with connections that come in at any other port.
    pub(crate) fn inbound_elsewhere(self) -> InboundAction {
        match self.finding(Destination::InboundElsewhere) {
            Some(finding) => inbound::action(self, &finding, None),
            None => InboundAction::Direct,
        }
    }

    /// The ports that come in by themselves.
    pub(crate) fn inbound_ports(self) -> BTreeSet<u16> {
        self.proxy.inbound.iter().flat_map(|listener| own_ports(listener)).collect()
    }

    /// Every destination that has a verdict of its own.
    pub(crate) fn destinations(self) -> BTreeSet<Destination> {
        let refused = self.refused.frontends();
        let outbound = outbound::destinations(self).into_iter().chain(refused).map(Destination::Outbound);
        let inbound = self.inbound_ports().into_iter().map(Destination::Inbound);
        let elsewhere = [Destination::OutboundElsewhere, Destination::InboundElsewhere];
        outbound.chain(inbound).chain(elsewhere).collect()
    }

    /// The path of a destination, and why.
    pub(crate) fn verdict(self, destination: Destination) -> Option<Verdict> {
        let finding = self.finding(destination)?;
        let taken = match destination {
            Destination::Outbound(frontend) if self.refusal(destination).is_none() => {
                outbound::taken(self, frontend)
            }
            _ => None,
        };
        Some(Verdict {
            path: finding.path,
            reason: finding.reason(),
            hosts: taken.map_or_else(Vec::new, |taken| taken.hosts(self)),
            mode: finding.mode.clone(),
            sources: match destination {
                Destination::Inbound(port) => inbound::rules(self, &finding, Some(port)),
                Destination::InboundElsewhere => inbound::rules(self, &finding, None),
                Destination::Outbound(_) | Destination::OutboundElsewhere => Vec::new(),
            },
            forgone: finding.forgone.iter().flat_map(|forgone| forgone()).collect(),
        })
    }

    fn finding(self, destination: Destination) -> Option<Finding<'a>> {
        if let Some((name, error)) = self.refusal(destination) {
            return Some(Finding::new(Path::Blocked, move || Reason {
                resource: format!("listener `{name}`"),
                field: FieldPath::root(),
                cause: Cause::Refused { error: error.to_owned() },
            }));
        }
        match destination {
            Destination::Outbound(frontend) => Some(outbound::taken(self, frontend)?.finding(self)),
            Destination::OutboundElsewhere => Some(match outbound::taken_elsewhere(self) {
                Some(taken) => taken.finding(self),
                None => outbound::nobody(),
            }),
            Destination::Inbound(port) => Some(inbound::finding(self, Some(port))),
            Destination::InboundElsewhere => Some(inbound::finding(self, None)),
        }
    }

    /// Name and refusal of the listener that would have taken connections to a destination, where no other one has the
    /// destination as its own.
    fn refusal(self, destination: Destination) -> Option<(&'a str, &'a str)> {
        let ProxyPlan { outbound, inbound, .. } = self.proxy;
        match destination {
            Destination::Outbound(frontend) if outbound.own(frontend).is_some() => None,
            Destination::Outbound(frontend) => self.refused.outbound(frontend),
            Destination::OutboundElsewhere if outbound.default.is_some() => None,
            Destination::OutboundElsewhere => self.refused.outbound_elsewhere(),
            Destination::Inbound(_) => None,
            Destination::InboundElsewhere if inbound.is_some() => None,
            Destination::InboundElsewhere => self.refused.inbound_elsewhere(),
        }
    }
}
