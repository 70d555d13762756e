//! Notices when somebody takes away what Orlop has put into a pod.
//!
//! Of rules and routes netlink tells, one socket a pod; a [`Watch`] says whose pod it was, and the datapath puts back what is
//! missing. Of links and sysctls the kernel tells nobody: [`Turns`] says which workloads to look at next.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::ops::Bound;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::select;
use orlop_abi::ROUTE_TABLE;
use orlop_podnet::NetNs;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::RuleAttribute;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::error::Error;
use crate::hook::Hook;
use crate::netns::{self, LOOPBACK_IFINDEX};
use crate::programs::{Programs, Targets};
use crate::workload::{Enrolled, PodAddresses, is_attached};

/// Whoever deletes in a loop is answered once in this time.
const PATIENCE: Duration = Duration::from_millis(20);

/// What was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A rule or a route of the pod's namespace.
    Routing,
    /// `net.ipv4.tcp_fwmark_accept` or `fwmark_reflect` of the pod's namespace.
    Sysctl,
    /// A program's attachment, or its pin.
    Link(Hook),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Routing => f.write_str("routing rules and routes"),
            Self::Sysctl => f.write_str("net.ipv4.tcp_fwmark_accept or fwmark_reflect"),
            Self::Link(hook) => write!(f, "the attachment of {hook}"),
        }
    }
}

/// What was missing from a workload, and whether it is back.
#[derive(Debug)]
pub struct Repair {
    /// Whose.
    pub workload: String,
    /// What.
    pub damage: Damage,
    /// Whether it was put back.
    pub outcome: Result<(), Error>,
}

/// A pod's rules and routes under watch, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch(AbortHandle);

impl Watch {
    /// Says `workload` to `tell` whenever a rule or route of Orlop's is gone or changed.
    pub(crate) fn start(
        netns: &NetNs,
        addresses: PodAddresses,
        workload: String,
        tell: mpsc::Sender<String>,
    ) -> Result<Self, Error> {
        let groups = [
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let opened = netns.run(|| new_multicast_connection(&groups))?;
        let open = |source| Error::NetlinkSocket { path: netns.path().to_owned(), source };
        let (connection, handle, mut messages) = opened.map_err(open)?;
        let watch = async move {
            let _open = handle;
            while let Some((message, _)) = messages.next().await {
                if is_harm(&message, addresses) {
                    if tell.send(workload.clone()).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        };
        let task = tokio::spawn(async move { drop(select(pin!(watch), connection).await) });
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether the message tells that something of Orlop's is gone, or may be.
fn is_harm(message: &NetlinkMessage<RouteNetlinkMessage>, addresses: PodAddresses) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRule(rule)) => {
            rule.attributes.contains(&RuleAttribute::Table(ROUTE_TABLE))
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => is_in_our_table(route),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
            is_in_our_table(route) && !is_ours(route, addresses)
        }
        // Messages were lost.
        NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_) => true,
        _ => false,
    }
}

fn is_in_our_table(route: &RouteMessage) -> bool {
    route.attributes.contains(&RouteAttribute::Table(ROUTE_TABLE))
}

fn is_ours(route: &RouteMessage, addresses: PodAddresses) -> bool {
    route.header.kind == RouteType::Local
        && route.attributes.contains(&RouteAttribute::Oif(LOOPBACK_IFINDEX))
        && addresses.iter().any(|address| {
            let source = match address {
                IpAddr::V4(v4) => RouteAddress::Inet(v4),
                IpAddr::V6(v6) => RouteAddress::Inet6(v6),
            };
            route.attributes.contains(&RouteAttribute::PrefSource(source))
        })
}

/// Looks whether the workload's attachments and sysctl are as they should be, and puts back what is missing.
pub(crate) fn repair(workload: &Enrolled, programs: &mut Programs) -> Vec<(Damage, Result<(), Error>)> {
    let Enrolled { index, netns, cgroup, cgroup_id, addresses, pins, records, waiting, .. } = workload;
    // A pod that is going takes its attachments along; one that still runs another agent's programs is not ours yet.
    let Ok(cgroup) = File::open(cgroup) else { return Vec::new() };
    if waiting.is_some() || cgroup.metadata().is_ok_and(|meta| meta.ino() != *cgroup_id) {
        return Vec::new();
    }
    let mut repairs = Vec::new();
    let lost: Vec<_> =
        Hook::ALL.into_iter().filter(|hook| !is_attached(pins, *hook, *cgroup_id, netns)).collect();
    if let [first, ..] = lost[..] {
        let targets = Targets { cgroup: cgroup.as_fd(), cgroup_id: *cgroup_id, netns: netns.file().as_fd() };
        let outcome = pins
            .restore(records)
            .and_then(|()| lost.iter().try_for_each(|hook| pins.unpin(*hook)))
            .and_then(|()| programs.attach_missing(addresses.pod(*index), targets, pins));
        repairs.push((Damage::Link(first), outcome));
    }
    // Of a namespace that is gone there is nothing to put back.
    if let Ok(false) = netns::sysctls_are_on(netns) {
        repairs.push((Damage::Sysctl, netns::turn_sysctls_on(netns)));
    }
    repairs
}

/// Goes through the workloads, some at a time.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    last: Option<String>,
}

impl Turns {
    /// In so many calls every workload has had its turn.
    const ROUND: usize = 5;

    /// Those whose turn it is.
    pub(crate) fn next<T>(&mut self, workloads: &BTreeMap<String, T>) -> Vec<String> {
        let after = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let most = workloads.len().div_ceil(Self::ROUND);
        let names: Vec<_> =
            workloads.range((after, Bound::Unbounded)).take(most).map(|(name, _)| name.clone()).collect();
        // A short turn was the last of its round.
        self.last = names.last().filter(|_| names.len() == most).cloned();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_its_turn_in_each_round() {
        let workloads: BTreeMap<_, _> = (0..12).map(|n| (format!("w{n:02}"), n)).collect();
        let mut turns = Turns::default();
        for _ in 0..3 {
            let round: Vec<_> = (0..Turns::ROUND).flat_map(|_| turns.next(&workloads)).collect();
            assert_eq!(round, workloads.keys().cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_workloads_it_is_nobodys_turn() {
        assert_eq!(Turns::default().next(&BTreeMap::<String, u32>::new()), [""; 0]);
    }
}
