//! What a pod's network namespace needs, so that a marked connection goes over loopback and a reply to the proxy comes
//! back to it.
//!
//! ```text
//! ip rule add fwmark 0x6f72 lookup 28530
//! ip rule add from 127.111.114.53 lookup 28530
//! ip route add local default dev lo src <pod address> table 28530
//! sysctl net.ipv4.tcp_fwmark_accept=1 net.ipv4.fwmark_reflect=1 net.ipv6.fwmark_reflect=1
//! ```
//!
//! The route's `src` keeps the pod's address on a connection: without it the kernel would take the destination, which
//! is local by this very route. The first sysctl gives the mark of a SYN to the accepted socket, so the application's answers
//! to a client's address that the proxy borrowed stay on loopback; it holds for IPv6 as well
//! (Documentation/networking/ip-sysctl.rst). The others do so for the RST of a port where nothing listens, which no socket
//! sends: else it would go to the client, and the proxy would wait for ever. The second rule is for questions to a resolver,
//! see `ebpf/src/dns.rs`.

use std::fs;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;

use futures_util::future::{Either, select};
use orlop_abi::{DNS_SOURCE_V4, DNS_SOURCE_V6, MARK, ROUTE_TABLE};
use orlop_podnet::NetNs;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error as NetlinkError, Handle};

use crate::error::Error;
use crate::workload::PodAddresses;

/// After the kernel's own rule for local addresses (0), before any other.
const RULE_PRIORITY: u32 = 1;
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;
pub(crate) const SYSCTL_PATH: &str = "/proc/sys/net/ipv4/tcp_fwmark_accept";
/// Those by which answers keep the mark.
const SYSCTLS: [(&str, &str); 3] = [
    ("net.ipv4.tcp_fwmark_accept", SYSCTL_PATH),
    ("net.ipv4.fwmark_reflect", "/proc/sys/net/ipv4/fwmark_reflect"),
    ("net.ipv6.fwmark_reflect", "/proc/sys/net/ipv6/fwmark_reflect"),
];
const ON: &str = "1";
const OFF: &str = "0";
/// In the place of a value, where the kernel has no IPv6.
const ABSENT: &str = "-";

/// Adds rules and routes for the families that the pod has. What is there already stays.
pub(crate) async fn add_routes(netns: &NetNs, addresses: PodAddresses) -> Result<(), Error> {
    with_netlink(netns, |handle| async move {
        for address in addresses.iter() {
            for rule in rules(address) {
                let mut request = handle.rule().add();
                *request.message_mut() = rule;
                accept(&[libc::EEXIST], request.execute().await).map_err(|e| ("add a rule", e))?;
            }
            let route = route(address, true);
            handle.route().add(route).replace().execute().await.map_err(|e| ("add a route", e))?;
        }
        Ok(())
    })
    .await
}

/// Removes the rules and routes of both families, if there are any.
pub(crate) async fn remove_routes(netns: &NetNs) -> Result<(), Error> {
    // The kernel's words for: no such rule, no such route or table, no such family.
    let absent = [libc::ENOENT, libc::ESRCH, libc::EAFNOSUPPORT];
    with_netlink(netns, |handle| async move {
        for address in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            for rule in rules(address) {
                let deleted = handle.rule().del(rule).execute().await;
                accept(&absent, deleted).map_err(|e| ("remove a rule", e))?;
            }
            let deleted = handle.route().del(route(address, false)).execute().await;
            accept(&absent, deleted).map_err(|e| ("remove a route", e))?;
        }
        Ok(())
    })
    .await
}

/// The sysctls' values in the namespace, to be set again.
pub(crate) fn sysctls(netns: &NetNs) -> Result<String, Error> {
    let read = netns.run(|| SYSCTLS.map(|(_, path)| fs::read_to_string(path)))?;
    let mut values = Vec::new();
    for ((name, path), value) in SYSCTLS.into_iter().zip(read) {
        values.push(match value {
            Ok(value) => value.trim().to_owned(),
            Err(error) if is_absent(path, &error) => ABSENT.to_owned(),
            Err(source) => return Err(Error::Sysctl { name, path: netns.path().to_owned(), source }),
        });
    }
    Ok(values.join(" "))
}

/// Sets them as [`sysctls`] has said; those of which nothing is said are off.
pub(crate) fn set_sysctls(netns: &NetNs, values: &str) -> Result<(), Error> {
    let values = values.split_whitespace().chain(std::iter::repeat(OFF));
    for ((name, path), value) in SYSCTLS.into_iter().zip(values).filter(|(_, value)| *value != ABSENT) {
        match netns.run(|| fs::write(path, value))? {
            Err(source) if !is_absent(path, &source) => {
                return Err(Error::Sysctl { name, path: netns.path().to_owned(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Turns them on.
pub(crate) fn turn_sysctls_on(netns: &NetNs) -> Result<(), Error> {
    set_sysctls(netns, &[ON; SYSCTLS.len()].join(" "))
}

/// Whether they are on.
pub(crate) fn sysctls_are_on(netns: &NetNs) -> Result<bool, Error> {
    Ok(sysctls(netns)?.split_whitespace().all(|value| matches!(value, ON | ABSENT)))
}

/// Without the first, nothing works.
fn is_absent(path: &str, error: &io::Error) -> bool {
    path != SYSCTL_PATH && error.kind() == io::ErrorKind::NotFound
}

/// Runs `work` with a netlink socket of the namespace, which is closed at the end.
pub(crate) async fn with_netlink<F>(netns: &NetNs, work: impl FnOnce(Handle) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), (&'static str, NetlinkError)>>,
{
    let opened = netns.run(rtnetlink::new_connection)?;
    let open = |source| Error::NetlinkSocket { path: netns.path().to_owned(), source };
    let (connection, handle, _notifications) = opened.map_err(open)?;
    let outcome = match select(pin!(work(handle)), connection).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(((), _)) => Err(("talk to the kernel", NetlinkError::RequestFailed)),
    };
    outcome.map_err(|(doing, source)| Error::Netlink { doing, path: netns.path().to_owned(), source })
}

/// The rules of the address's family.
fn rules(address: IpAddr) -> [RuleMessage; 2] {
    let (source, bits) = match address {
        IpAddr::V4(_) => (IpAddr::V4(DNS_SOURCE_V4), 32),
        IpAddr::V6(_) => (IpAddr::V6(DNS_SOURCE_V6), 128),
    };
    [(RuleAttribute::FwMark(MARK), 0), (RuleAttribute::Source(source), bits)].map(
        |(selector, source_bits)| {
            let mut rule = RuleMessage::default();
            rule.header.family = family(address);
            rule.header.src_len = source_bits;
            rule.header.action = RuleAction::ToTable;
            rule.attributes =
                vec![selector, RuleAttribute::Table(ROUTE_TABLE), RuleAttribute::Priority(RULE_PRIORITY)];
            rule
        },
    )
}

fn route(address: IpAddr, with_source: bool) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family(address);
    route.header.kind = RouteType::Local;
    route.header.scope = RouteScope::Host;
    route.attributes = vec![RouteAttribute::Table(ROUTE_TABLE), RouteAttribute::Oif(LOOPBACK_IFINDEX)];
    if with_source {
        route.attributes.push(RouteAttribute::PrefSource(match address {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        }));
    }
    route
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Takes the kernel's refusal with one of `codes` for success.
fn accept(codes: &[i32], result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(NetlinkError::NetlinkError(message)) if codes.contains(&-message.raw_code()) => Ok(()),
        other => other,
    }
}
