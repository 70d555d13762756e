//! Where connections that leave the workload lead.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::chain::{ChainAt, chain_finding, routes};
use super::finding::{Finding, Layer, combine, highest, no_chain};
use super::http::{asks, host_finding};
use super::reach::address_of;
use super::{Cause, Path, Reason, Scope, Served};
use crate::kernel::{Frontend, OutboundAction};
use crate::resource::FieldPath;
use crate::resource::http_connection_manager::{HttpConnectionManager, RouteSpecifier};
use crate::resource::listener::{FilterChain, FilterChainMatch, Listener, TerminalFilter};
use crate::resource::route::{Domain, RouteConfiguration, VirtualHost};
use crate::resource::tcp_proxy::TcpClusterSpecifier;
use crate::snapshot::{chains, host_clusters, listener_clusters};

/// A destination's listener, and which of its virtual hosts count.
#[derive(Clone, Copy)]
pub(super) struct Taken<'a> {
    listener: &'a Listener,
    ip: Option<IpAddr>,
    port: Option<u16>,
    scope: Scope<'a>,
}

/// Who takes connections to a destination, where it has somebody of its own.
pub(super) fn taken(served: Served<'_>, frontend: Frontend) -> Option<Taken<'_>> {
    let outbound = &served.proxy.outbound;
    let port = frontend.port;
    let taken = |listener, scope| Some(Taken { listener, ip: frontend.addr, port: Some(port), scope });
    let Some(ip) = frontend.addr else {
        if let Some(listener) = outbound.by_port.get(&port) {
            return taken(listener, Scope::Any);
        }
        let default = outbound.default.as_deref()?;
        return own_ports(default).any(|own| own == port).then(|| taken(default, Scope::All)).flatten();
    };
    if let Some(listener) = outbound.exact.get(&(ip, port)) {
        return taken(listener, Scope::All);
    }
    let listener: &Listener = outbound.by_port.get(&port)?;
    let (routes, host) = route_configurations(served, listener)
        .find_map(|routes| Some((routes, routes.host_at(ip, port)?)))?;
    taken(listener, Scope::Host(routes, host))
}

/// Who takes connections to destinations that have nobody of their own.
pub(super) fn taken_elsewhere(served: Served<'_>) -> Option<Taken<'_>> {
    let listener = served.proxy.outbound.default.as_deref()?;
    Some(Taken { listener, ip: None, port: None, scope: Scope::All })
}

/// No listener takes such connections.
pub(super) fn nobody<'a>() -> Finding<'a> {
    Finding::new(Path::Passthrough, || Reason {
        resource: "workload".to_owned(),
        field: FieldPath::root(),
        cause: Cause::NoListener,
    })
}

/// The ports that chains name.
pub(crate) fn own_ports(listener: &Listener) -> impl Iterator<Item = u16> {
    listener.filter_chains.iter().filter_map(|chain| chain.filter_chain_match.destination_port)
}

/// The destinations that have somebody of their own.
pub(super) fn destinations(served: Served<'_>) -> BTreeSet<Frontend> {
    let outbound = &served.proxy.outbound;
    let exact = outbound.exact.keys().map(|(ip, port)| Frontend { addr: Some(*ip), port: *port });
    let mut all: BTreeSet<_> = exact.collect();
    for (port, listener) in &outbound.by_port {
        all.insert(Frontend { addr: None, port: *port });
        for routes in route_configurations(served, listener) {
            all.extend(routes.reach().addresses(*port).map(|ip| Frontend { addr: Some(ip), port: *port }));
        }
    }
    all.extend(
        outbound.default.iter().flat_map(|own| own_ports(own)).map(|port| Frontend { addr: None, port }),
    );
    all
}

impl<'a> Taken<'a> {
    /// What the listener does with such connections.
    pub(super) fn finding(self, served: Served<'a>) -> Finding<'a> {
        let Self { listener, ip, port, scope } = self;
        let named = port.filter(|port| own_ports(listener).any(|own| own == *port));
        let mut findings = Vec::new();
        let mut catch_all = false;
        for (index, chain) in listener.filter_chains.iter().enumerate() {
            if chain.filter_chain_match.destination_port == named {
                catch_all |= takes_all(&chain.filter_chain_match);
                findings.push(one_chain(served, listener, chain, Some(index), scope));
            }
        }
        let resource = move || format!("listener `{}`", listener.name);
        if !catch_all {
            findings.push(match &listener.default_filter_chain {
                Some(chain) => one_chain(served, listener, chain, None, scope),
                None => (Layer::Tcp, no_chain(resource)),
            });
        }
        if matches!(scope, Scope::Host(..)) && findings.iter().any(|(layer, _)| *layer == Layer::Http) {
            // What is not HTTP goes on to the address itself, which is the service's too.
            findings.retain(|(layer, finding)| *layer == Layer::Http || finding.path != Path::Passthrough);
        }
        let finding = combine(&findings, resource);
        match ip {
            Some(ip) => finding.for_connections_to(ip, highest(&findings)),
            None => finding,
        }
    }

    /// The clusters that it may lead to.
    pub(super) fn clusters(self, served: Served<'a>) -> BTreeSet<&'a Arc<str>> {
        let Self { listener, scope, ip: _, port: _ } = self;
        let routes = route_configurations(served, listener);
        let hosts = routes.flat_map(|routes| scope.hosts(routes));
        listener_clusters(listener).chain(hosts.flat_map(host_clusters)).collect()
    }

    /// The names that the destination goes by.
    pub(super) fn hosts(self, served: Served<'_>) -> Vec<String> {
        let Self { listener, scope, ip: _, port: _ } = self;
        if served.proxy.outbound.default.as_deref().is_some_and(|default| std::ptr::eq(default, listener)) {
            return Vec::new();
        }
        let mut names = BTreeSet::new();
        for routes in route_configurations(served, listener) {
            let hosts = match scope {
                Scope::All | Scope::Host(..) => scope.hosts(routes),
                Scope::Any => {
                    let all = routes.virtual_hosts.iter().map(Arc::as_ref);
                    all.filter(|host| host.domains.iter().all(|domain| address_of(domain).is_none()))
                        .collect()
                }
            };
            let domains = hosts.into_iter().flat_map(|host| &host.domains);
            names.extend(domains.filter(|domain| **domain != Domain::Any).map(ToString::to_string));
        }
        for chain in chains(listener) {
            if let TerminalFilter::TcpProxy(tcp_proxy) = &chain.terminal
                && let TcpClusterSpecifier::Cluster(name) = &tcp_proxy.cluster
                && let Some(plan) = served.proxy.clusters.get(name)
                && let Some(service) = &plan.cluster.service
            {
                names.insert(service.host.clone());
            }
        }
        names.into_iter().collect()
    }
}

fn one_chain<'a>(
    served: Served<'a>,
    listener: &'a Listener,
    chain: &'a FilterChain,
    position: Option<usize>,
    scope: Scope<'a>,
) -> (Layer, Finding<'a>) {
    let at = ChainAt { chain, listener, position };
    let finding = match scope {
        Scope::All | Scope::Host(..) => chain_finding(served, at, scope),
        Scope::Any => any_host(served, at),
    };
    (at.layer(), finding)
}

/// A request to an address of no virtual host may still name any of them. It is left alone only where an unknown host
/// is, and where every other host is served in plaintext by nothing more than L4.
fn any_host<'a>(served: Served<'a>, at: ChainAt<'a>) -> Finding<'a> {
    let unknown = chain_finding(served, at, Scope::Any);
    let TerminalFilter::HttpConnectionManager(manager) = &at.chain.terminal else {
        return unknown;
    };
    if unknown.path == Path::L7Proxy {
        return unknown;
    }
    let Some(routes) = routes(served, manager) else { return unknown };
    if is_asked_for_more(served, manager, routes) {
        let mode = unknown.mode.clone();
        let why = unknown.why;
        let first = move || {
            let all = || routes.virtual_hosts.iter().map(Arc::as_ref);
            let first = all().find(|host: &&VirtualHost| asks(served, routes, host));
            first.map_or_else(|| why(), |host| host_finding(served, routes, host).reason())
        };
        return Finding { mode, ..Finding::new(Path::L7Proxy, first) };
    }
    if unknown.path == Path::Passthrough { unknown } else { Finding { path: Path::L7Proxy, ..unknown } }
}

/// Whether one of the virtual hosts needs the proxy.
fn is_asked_for_more(
    served: Served<'_>,
    manager: &HttpConnectionManager,
    routes: &RouteConfiguration,
) -> bool {
    match &manager.routes {
        RouteSpecifier::Rds(name) => served.asking.contains_key(name),
        RouteSpecifier::Inline(_) => routes.virtual_hosts.iter().any(|host| asks(served, routes, host)),
    }
}

/// Whether a chain takes every connection to its port.
fn takes_all(chain_match: &FilterChainMatch) -> bool {
    FilterChainMatch { destination_port: None, ..chain_match.clone() } == FilterChainMatch::default()
}

/// The route configurations of a listener that are there.
pub(crate) fn route_configurations<'a>(
    served: Served<'a>,
    listener: &'a Listener,
) -> impl Iterator<Item = &'a RouteConfiguration> {
    chains(listener).filter_map(move |chain| match &chain.terminal {
        TerminalFilter::HttpConnectionManager(manager) => routes(served, manager),
        TerminalFilter::TcpProxy(_) => None,
    })
}

/// What the kernel is told.
pub(super) fn action(finding: &Finding<'_>) -> OutboundAction {
    match (finding.path, &finding.backends) {
        (Path::Kernel, Some(backends)) => OutboundAction::Balance(backends.clone()),
        (Path::Passthrough, _) => OutboundAction::Passthrough,
        (Path::Blocked, _) => OutboundAction::Block,
        (Path::Kernel | Path::TcpProxy | Path::L7Proxy, _) => OutboundAction::Proxy,
    }
}

/// As a frontend's address: `None` for any.
pub(crate) fn frontend_ip(ip: IpAddr) -> Option<IpAddr> {
    (!ip.is_unspecified()).then_some(ip)
}
