//! Who may connect at a port: RBAC filters as a table of sources, for the kernel.
//!
//! The kernel knows a connection's addresses and ports when it has to decide, and no more. Of every range of sources that the
//! filters name it is found out what they say of exactly those sources that are in it and in none of the narrower ones: they
//! are in the same ranges all of them, so there is one answer. What depends on an identity is left to the proxy.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::chain::ChainAt;
use super::finding::Layer;
use super::verdict::as_text;
use crate::kernel::{SourceAction, SourceActions, SourcePolicy};
use crate::neighbours::Neighbours;
use crate::rbac::{Answer, Decision, Facts, decide};
use crate::resource::matcher::StringMatcher;
use crate::resource::rbac::Principal;

/// What becomes of connections from some sources, for whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceRule {
    /// Those of this range that no narrower one contains.
    #[serde(serialize_with = "as_text")]
    pub sources: IpNet,
    /// What becomes of them.
    pub action: SourceAction,
    /// What becomes of those that the kernel has seen a workload of the node make, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attested: Option<SourceAction>,
    /// The policy that decided, in words.
    pub because: String,
}

/// The chains that connections to a port may match.
pub(super) struct Guarded<'a> {
    pub(super) chains: Vec<ChainAt<'a>>,
    /// `None` is several.
    pub(super) port: Option<u16>,
    /// The workload's own.
    pub(super) addresses: &'a [IpAddr],
    /// What becomes of whom the filters let in.
    pub(super) allowed: SourceAction,
    /// Who may go to the application as it goes through mutual TLS.
    pub(super) neighbours: Option<&'a Neighbours>,
}

impl<'a> Guarded<'a> {
    /// What becomes of each range of sources; nothing where there are no filters.
    pub(super) fn rules(&self) -> Vec<SourceRule> {
        if self.neighbours.is_none() && self.chains.iter().all(|at| at.chain.rbac().next().is_none()) {
            return Vec::new();
        }
        let mut rules: Vec<SourceRule> = Vec::new();
        for range in self.ranges() {
            let rule = self.rule(range);
            // The ranges come from the widest to the narrowest.
            let around = rules.iter().rev().find(|wider| wider.sources.contains(&range));
            if around.is_none_or(|around| SourceRule { sources: range, ..around.clone() } != rule) {
                rules.push(rule);
            }
        }
        rules
    }

    /// The same for the kernel; `None` where it makes no difference who connects.
    pub(super) fn policy(&self) -> Option<SourcePolicy> {
        let mut sources: Vec<(IpNet, SourceActions)> = Vec::new();
        for SourceRule { sources: range, action, attested, .. } in self.rules() {
            let actions = SourceActions { anybody: action, attested };
            let around = sources.iter().rev().find(|(wider, _)| wider.contains(&range));
            if around.is_none_or(|(_, around)| *around != actions) {
                sources.push((range, actions));
            }
        }
        sources.iter().any(|(_, actions)| *actions != self.allowed.into()).then(|| SourcePolicy::new(sources))
    }

    /// Every range that the filters name, and all addresses of either family, and where identities are asked for, whose are
    /// known; the widest first.
    fn ranges(&self) -> Vec<IpNet> {
        let mut ranges = BTreeSet::from([ALL_V4, ALL_V6]);
        let policies = || self.chains.iter().flat_map(|at| at.chain.rbac()).flat_map(|rbac| &rbac.policies);
        let mut principals = policies().flat_map(|policy| &policy.principals);
        if principals.any(asks_for_identity) {
            let known = self.neighbours.into_iter().flat_map(Neighbours::iter);
            ranges.extend(known.map(|(address, _)| IpNet::from(address)));
        }
        policies().for_each(|policy| {
            policy.principals.iter().for_each(|principal| collect(principal, &mut ranges));
        });
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !MAPPED.contains(range)).collect();
        ranges.sort_by_key(IpNet::prefix_len);
        ranges
    }

    fn rule(&self, sources: IpNet) -> SourceRule {
        let own = self.addresses.iter().filter(|address| address.is_ipv4() == sources.addr().is_ipv4());
        let own: Vec<_> = own.copied().collect();
        let destination = if let [one] = *own { Some(one) } else { None };
        let of_chain = |at: &ChainAt<'a>, identity| -> (Layer, Decision<'a>) {
            let facts = Sources { range: sources, port: self.port, destination, identity };
            (at.layer(), decide(at.chain.rbac(), &facts))
        };
        let decisions = |of_plaintext| -> Vec<_> {
            let decisions = self.chains.iter().map(|at| {
                let identity = if at.terminates_tls() { Answer::Unknown } else { of_plaintext };
                of_chain(at, Identity::Is(identity))
            });
            decisions.collect()
        };
        // Whoever comes in plaintext is nobody to the proxy. The kernel does not rely on it.
        let known = decisions(Answer::Unknown);
        let every = |answer| known.iter().all(|(_, decision)| decision.allowed == answer);
        let action = if every(Answer::Yes) {
            self.allowed
        } else if every(Answer::No) && known.iter().all(|(layer, _)| *layer == Layer::Tcp) {
            SourceAction::Drop
        } else if decisions(Answer::No).iter().all(|(_, decision)| decision.allowed == Answer::No) {
            SourceAction::ProxyRefuses
        } else {
            SourceAction::Proxy
        };
        let attested = self.neighbours.and_then(|neighbours| {
            let neighbour = (sources.prefix_len() == sources.max_prefix_len())
                .then(|| neighbours.get(sources.addr()))
                .flatten();
            let identity = neighbour
                .map_or(Identity::Is(Answer::Unknown), |neighbour| Identity::Named(neighbour.principal()));
            let behind_tls = self.chains.iter().filter(|at| at.terminates_tls());
            let decisions: Vec<_> = behind_tls.map(|at| of_chain(at, identity)).collect();
            let every = |answer| decisions.iter().all(|(_, decision)| decision.allowed == answer);
            if every(Answer::Yes) {
                Some(SourceAction::Direct)
            } else if every(Answer::No) && decisions.iter().all(|(layer, _)| *layer == Layer::Tcp) {
                Some(SourceAction::Drop)
            } else {
                None
            }
        });
        let decided = known.iter().find(|(_, decision)| decision.allowed != Answer::Yes).or(known.first());
        SourceRule {
            sources,
            action,
            attested: attested.filter(|attested| *attested != action),
            because: decided.map_or_else(String::new, |(_, decision)| words(decision)),
        }
    }
}

const ALL_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const ALL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));
/// IPv4 as IPv6: no connection comes from there, it comes from the IPv4 address.
const MAPPED: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));

fn collect(principal: &Principal, ranges: &mut BTreeSet<IpNet>) {
    match principal {
        Principal::All(ids) | Principal::OneOf(ids) => ids.iter().for_each(|id| collect(id, ranges)),
        Principal::Not(id) => collect(id, ranges),
        Principal::SourceIp(range) => drop(ranges.insert(*range)),
        Principal::Any
        | Principal::Authenticated(_)
        | Principal::RemoteIp(_)
        | Principal::Header(_)
        | Principal::Path(_)
        | Principal::Metadata(_) => {}
    }
}

fn words(decision: &Decision<'_>) -> String {
    match (decision.allowed, decision.policy) {
        (Answer::Yes, Some(policy)) => format!("allowed by `{}`", policy.name),
        (Answer::Yes, None) => "no policy denies it".to_owned(),
        (Answer::No, Some(policy)) => format!("denied by `{}`", policy.name),
        (Answer::No, None) => "no policy allows it".to_owned(),
        (Answer::Unknown, Some(policy)) => format!("`{}` asks for more than addresses", policy.name),
        (Answer::Unknown, None) => "policies ask for more than addresses".to_owned(),
    }
}

/// Whether somebody's identity is asked for.
fn asks_for_identity(principal: &Principal) -> bool {
    match principal {
        Principal::All(ids) | Principal::OneOf(ids) => ids.iter().any(asks_for_identity),
        Principal::Not(id) => asks_for_identity(id),
        Principal::Authenticated(_) => true,
        Principal::Any
        | Principal::SourceIp(_)
        | Principal::RemoteIp(_)
        | Principal::Header(_)
        | Principal::Path(_)
        | Principal::Metadata(_) => false,
    }
}

/// All connections from those addresses of a range that no narrower one contains.
struct Sources<'a> {
    range: IpNet,
    port: Option<u16>,
    destination: Option<IpAddr>,
    identity: Identity<'a>,
}

/// What is known of who connects.
#[derive(Clone, Copy)]
enum Identity<'a> {
    /// Whether it is one that is asked for, whichever that is.
    Is(Answer),
    /// It is this one: the only name in its certificate.
    Named(&'a str),
}

impl Facts for Sources<'_> {
    fn goes_to_port(&self, ports: &Range<u32>) -> Answer {
        self.port.map_or(Answer::Unknown, |port| ports.contains(&u32::from(port)).into())
    }

    fn goes_to(&self, range: &IpNet) -> Answer {
        self.destination.map_or(Answer::Unknown, |destination| range.contains(&destination).into())
    }

    fn comes_from(&self, range: &IpNet) -> Answer {
        range.contains(&self.range).into()
    }

    fn is_authenticated(&self, name: Option<&StringMatcher>) -> Answer {
        match self.identity {
            Identity::Is(answer) => answer,
            Identity::Named(principal) => name.is_none_or(|name| name.matches(principal.as_bytes())).into(),
        }
    }

    fn asks_for_server(&self, _name: &StringMatcher) -> Answer {
        Answer::Unknown
    }
}
