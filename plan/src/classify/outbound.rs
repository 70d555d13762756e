//! Verdicts for connections that leave the workload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::chain::{ChainAt, all_hosts, chain_finding, routes};
use super::cluster::hop;
use super::finding::{Finding, Layer, combine};
use super::virtual_host::only_cluster;
use super::{Cause, Classified, Path};
use crate::kernel::{Frontend, OutboundAction};
use crate::proxy::ProxyPlan;
use crate::resource::FieldPath;
use crate::resource::listener::{FilterChain, FilterChainMatch, Listener, TerminalFilter};
use crate::resource::route::{Domain, RouteConfiguration, VirtualHost};
use crate::resource::tcp_proxy::TcpClusterSpecifier;
use crate::snapshot::chains;

/// Every outbound listener's verdicts.
pub(super) fn outbound(proxy: &ProxyPlan, classified: &mut Classified) {
    for ((addr, port), listener) in &proxy.outbound.exact {
        let frontend = Frontend { addr: Some(*addr), port: *port };
        let finding = listener_finding(proxy, listener, Some(*port), Scope::AllHosts);
        classified.outbound(frontend, &finding, hosts_of(proxy, listener, Scope::AllHosts));
    }
    for (port, listener) in &proxy.outbound.by_port {
        for (vip, virtual_host) in vips(proxy, listener, *port) {
            let frontend = Frontend { addr: Some(vip), port: *port };
            if proxy.outbound.exact.contains_key(&(vip, *port)) {
                continue;
            }
            let scope = Scope::Host(virtual_host);
            let finding = listener_finding(proxy, listener, Some(*port), scope);
            classified.outbound(frontend, &finding, hosts_of(proxy, listener, scope));
        }
        let finding = listener_finding(proxy, listener, Some(*port), Scope::AnyHost);
        let hosts = hosts_of(proxy, listener, Scope::AnyHost);
        classified.outbound(Frontend { addr: None, port: *port }, &finding, hosts);
    }
    let Some(default) = &proxy.outbound.default else {
        let cause = Cause::NoListener;
        let finding = Finding::new(Path::Passthrough, "workload", FieldPath::root(), cause);
        classified.outbound_elsewhere(&finding);
        return;
    };
    let own_ports: BTreeSet<u16> =
        default.filter_chains.iter().filter_map(|chain| chain.filter_chain_match.destination_port).collect();
    for port in own_ports {
        if !proxy.outbound.by_port.contains_key(&port) {
            let finding = listener_finding(proxy, default, Some(port), Scope::AllHosts);
            classified.outbound(Frontend { addr: None, port }, &finding, Vec::new());
        }
    }
    classified.outbound_elsewhere(&listener_finding(proxy, default, None, Scope::AllHosts));
}

/// Which virtual hosts a destination stands for.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    /// All that the listener has: it is one service's own.
    AllHosts,
    /// The one that has the address among its domains.
    Host(&'a VirtualHost),
    /// An address that no virtual host has.
    AnyHost,
}

impl<'a> Scope<'a> {
    /// The virtual hosts of a route configuration that it stands for, where unknown ones are left out.
    fn hosts(self, routes: &'a RouteConfiguration) -> Vec<&'a VirtualHost> {
        let all = all_hosts(routes).into_iter();
        match self {
            Self::AllHosts => all.collect(),
            Self::Host(host) => all.filter(|other| std::ptr::eq(*other, host)).collect(),
            Self::AnyHost => all.filter(|host| host.domains.contains(&Domain::Any)).collect(),
        }
    }
}

/// What a listener does with connections to a port; `None` is a port that none of its chains names.
fn listener_finding(proxy: &ProxyPlan, listener: &Listener, port: Option<u16>, scope: Scope<'_>) -> Finding {
    let resource = format!("listener `{}`", listener.name);
    let named = port.filter(|port| {
        listener.filter_chains.iter().any(|chain| chain.filter_chain_match.destination_port == Some(*port))
    });
    let mut findings = Vec::new();
    let mut catch_all = false;
    for (index, chain) in listener.filter_chains.iter().enumerate() {
        if chain.filter_chain_match.destination_port == named {
            catch_all |= takes_all(&chain.filter_chain_match);
            let field = FieldPath::root().field("filter_chains").index(index);
            findings.push(one_chain(proxy, chain, &resource, &field, scope));
        }
    }
    if !catch_all {
        if let Some(chain) = &listener.default_filter_chain {
            let field = FieldPath::root().field("default_filter_chain");
            findings.push(one_chain(proxy, chain, &resource, &field, scope));
        } else {
            let finding = Finding::new(Path::Blocked, &resource, FieldPath::root(), Cause::NoChain);
            findings.push((Layer::Tcp, finding));
        }
    }
    if matches!(scope, Scope::Host(_)) && findings.iter().any(|(layer, _)| *layer == Layer::Http) {
        // What is not HTTP goes on to the address itself, which is the service's too.
        findings.retain(|(layer, finding)| *layer == Layer::Http || finding.path != Path::Passthrough);
    }
    combine(&findings, &resource)
        .unwrap_or_else(|| Finding::new(Path::Blocked, &resource, FieldPath::root(), Cause::NoChain))
}

fn one_chain(
    proxy: &ProxyPlan,
    chain: &FilterChain,
    resource: &str,
    field: &FieldPath,
    scope: Scope<'_>,
) -> (Layer, Finding) {
    let at = ChainAt { chain, resource, field };
    let finding = match scope {
        Scope::AllHosts | Scope::Host(_) => chain_finding(proxy, at, |routes| scope.hosts(routes)),
        Scope::AnyHost => any_host(proxy, at),
    };
    (at.layer(), finding)
}

/// A request to an address of no virtual host may still name any of them. It is left alone only where an unknown host
/// is, and where every other host is served in plaintext by nothing more than L4.
fn any_host(proxy: &ProxyPlan, at: ChainAt<'_>) -> Finding {
    let unknown = chain_finding(proxy, at, |routes| Scope::AnyHost.hosts(routes));
    let TerminalFilter::HttpConnectionManager(manager) = &at.chain.terminal else {
        return unknown;
    };
    if unknown.path == Path::L7Proxy {
        return unknown;
    }
    let Some(routes) = routes(proxy, manager) else { return unknown };
    for virtual_host in &routes.virtual_hosts {
        let resource = format!("route configuration `{}`", routes.name);
        let path = FieldPath::root().field("virtual_hosts").key(&virtual_host.name);
        match only_cluster(virtual_host) {
            Err((field, cause)) => {
                return Finding::new(Path::L7Proxy, &resource, path.field(&field.to_string()), cause);
            }
            Ok(cluster) => {
                let named = hop(proxy, cluster, Layer::Http);
                if !matches!(named.path, Path::Kernel | Path::Passthrough) {
                    return Finding { path: Path::L7Proxy, ..named };
                }
            }
        }
    }
    if unknown.path == Path::Passthrough { unknown } else { Finding { path: Path::L7Proxy, ..unknown } }
}

/// Whether a chain takes every connection to its port.
fn takes_all(chain_match: &FilterChainMatch) -> bool {
    FilterChainMatch { destination_port: None, ..chain_match.clone() } == FilterChainMatch::default()
}

/// istiod lists a service's addresses among the domains of its virtual host, with or without the port.
fn address_of(domain: &Domain, port: u16) -> Option<IpAddr> {
    let Domain::Exact(host) = domain else { return None };
    if let Ok(with_port) = host.parse::<SocketAddr>() {
        return (with_port.port() == port).then(|| with_port.ip());
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn route_configurations<'a>(
    proxy: &'a ProxyPlan,
    listener: &'a Listener,
) -> impl Iterator<Item = &'a RouteConfiguration> {
    chains(listener).filter_map(|chain| match &chain.terminal {
        TerminalFilter::HttpConnectionManager(manager) => routes(proxy, manager),
        TerminalFilter::TcpProxy(_) => None,
    })
}

/// The addresses that a shared listener's virtual hosts have.
fn vips<'a>(proxy: &'a ProxyPlan, listener: &'a Listener, port: u16) -> BTreeMap<IpAddr, &'a VirtualHost> {
    let mut vips = BTreeMap::new();
    for host in route_configurations(proxy, listener).flat_map(all_hosts) {
        for vip in host.domains.iter().filter_map(|domain| address_of(domain, port)) {
            vips.entry(vip).or_insert(host);
        }
    }
    vips
}

/// The names that a destination goes by.
fn hosts_of(proxy: &ProxyPlan, listener: &Listener, scope: Scope<'_>) -> Vec<String> {
    let mut names = BTreeSet::new();
    for routes in route_configurations(proxy, listener) {
        let hosts = match scope {
            Scope::AllHosts | Scope::Host(_) => scope.hosts(routes),
            Scope::AnyHost => {
                let without_address =
                    |host: &&VirtualHost| host.domains.iter().all(|domain| address_of(domain, 0).is_none());
                all_hosts(routes).into_iter().filter(without_address).collect()
            }
        };
        let domains = hosts.into_iter().flat_map(|host| &host.domains);
        names.extend(domains.filter(|domain| **domain != Domain::Any).map(ToString::to_string));
    }
    for chain in chains(listener) {
        if let TerminalFilter::TcpProxy(tcp_proxy) = &chain.terminal
            && let TcpClusterSpecifier::Cluster(name) = &tcp_proxy.cluster
            && let Some(service) = proxy.clusters.get(name).and_then(|plan| plan.cluster.service.as_ref())
        {
            names.insert(service.host.clone());
        }
    }
    names.into_iter().collect()
}

/// What the kernel is told.
pub(super) fn action(finding: &Finding) -> OutboundAction {
    match (finding.path, &finding.backends) {
        (Path::Kernel, Some(backends)) => OutboundAction::Balance(backends.clone()),
        (Path::Passthrough, _) => OutboundAction::Passthrough,
        (Path::Blocked, _) => OutboundAction::Block,
        (Path::Kernel | Path::TcpProxy | Path::L7Proxy, _) => OutboundAction::Proxy,
    }
}
