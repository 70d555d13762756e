//! What one filter chain does with a connection.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::hop;
use super::finding::{Finding, Layer};
use super::virtual_host::{manager_asks, only_cluster, route_configuration_asks};
use super::{Cause, Path};
use crate::proxy::ProxyPlan;
use crate::resource::FieldPath;
use crate::resource::http_connection_manager::{HttpConnectionManager, RouteSpecifier};
use crate::resource::listener::{DownstreamTransportSocket, FilterChain, TerminalFilter};
use crate::resource::route::{RouteConfiguration, VirtualHost};
use crate::resource::tcp_proxy::{TcpClusterSpecifier, TcpProxy};

/// Envoy's idle timeout of a TCP proxy where none is asked for.
const DEFAULT_IDLE_TIMEOUT: Option<Duration> = Some(Duration::from_hours(1));

/// A chain, and where it stands, for reasons.
#[derive(Clone, Copy)]
pub(super) struct ChainAt<'a> {
    pub(super) chain: &'a FilterChain,
    pub(super) resource: &'a str,
    pub(super) field: &'a FieldPath,
}

impl ChainAt<'_> {
    pub(super) fn layer(self) -> Layer {
        match self.chain.terminal {
            TerminalFilter::HttpConnectionManager(_) => Layer::Http,
            TerminalFilter::TcpProxy(_) => Layer::Tcp,
        }
    }

    fn asks(self, field: &str, what: &'static str) -> Finding {
        let name = if self.chain.name.is_empty() { self.field.to_string() } else { self.chain.name.clone() };
        let cause = Cause::FilterChain { chain: name, what };
        Finding::new(self.layer().proxy(), self.resource, self.field.field(field), cause)
    }
}

/// The routes of a connection manager, if they are there.
pub(super) fn routes<'a>(
    proxy: &'a ProxyPlan,
    manager: &'a HttpConnectionManager,
) -> Option<&'a RouteConfiguration> {
    match &manager.routes {
        RouteSpecifier::Rds(name) => proxy.routes.get(name).map(Arc::as_ref),
        RouteSpecifier::Inline(routes) => Some(routes),
    }
}

/// The virtual hosts of a route configuration.
pub(super) fn all_hosts(routes: &RouteConfiguration) -> Vec<&VirtualHost> {
    routes.virtual_hosts.iter().map(AsRef::as_ref).collect()
}

/// Where a chain leads. `hosts` picks the virtual hosts that count.
pub(super) fn chain_finding<'a>(
    proxy: &'a ProxyPlan,
    at: ChainAt<'a>,
    hosts: impl Fn(&'a RouteConfiguration) -> Vec<&'a VirtualHost>,
) -> Finding {
    if at.chain.transport_socket == DownstreamTransportSocket::Tls {
        return at.asks("transport_socket", "terminates TLS");
    }
    match &at.chain.terminal {
        TerminalFilter::TcpProxy(tcp_proxy) => tcp_finding(proxy, at, tcp_proxy),
        TerminalFilter::HttpConnectionManager(manager) => {
            if let Some((field, what)) = manager_asks(manager) {
                return at.asks(field, what);
            }
            let Some(routes) = routes(proxy, manager) else {
                return at.asks("rds", "names routes that have not come or were refused");
            };
            http_finding(proxy, routes, &hosts(routes))
        }
    }
}

fn tcp_finding(proxy: &ProxyPlan, at: ChainAt<'_>, tcp_proxy: &TcpProxy) -> Finding {
    let TcpProxy {
        cluster,
        idle_timeout,
        max_connect_attempts,
        max_downstream_connection_duration,
        access_logs,
    } = tcp_proxy;
    if !access_logs.is_empty() {
        return at.asks("access_log", "writes an access log of connections");
    }
    if *idle_timeout != DEFAULT_IDLE_TIMEOUT {
        return at.asks("idle_timeout", "closes idle connections");
    }
    if *max_connect_attempts > 1 {
        return at.asks("max_connect_attempts", "connects again after a failure");
    }
    if max_downstream_connection_duration.is_some() {
        return at.asks("max_downstream_connection_duration", "limits a connection's duration");
    }
    match cluster {
        TcpClusterSpecifier::Cluster(name) => hop(proxy, name, Layer::Tcp),
        TcpClusterSpecifier::Weighted { .. } => at.asks("weighted_clusters", "draws among weighted clusters"),
    }
}

/// All of `virtual_hosts` must lead to the same place.
fn http_finding(proxy: &ProxyPlan, routes: &RouteConfiguration, virtual_hosts: &[&VirtualHost]) -> Finding {
    let resource = format!("route configuration `{}`", routes.name);
    let l7 = |field, cause| Finding::new(Path::L7Proxy, &resource, field, cause);
    if let Some((field, what)) = route_configuration_asks(routes) {
        let cause = Cause::VirtualHost { virtual_host: "*".to_owned(), what };
        return l7(FieldPath::root().field(field), cause);
    }
    let mut only: Option<&Arc<str>> = None;
    for virtual_host in virtual_hosts {
        let path = || FieldPath::root().field("virtual_hosts").key(&virtual_host.name);
        let cluster = match only_cluster(virtual_host) {
            Ok(cluster) => cluster,
            Err((field, cause)) => return l7(path().field(&field.to_string()), cause),
        };
        match only {
            Some(other) if other != cluster => {
                let cause = Cause::HostsDiffer { one: Arc::clone(other), other: Arc::clone(cluster) };
                return l7(path(), cause);
            }
            _ => only = Some(cluster),
        }
    }
    if let Some(cluster) = only {
        return hop(proxy, cluster, Layer::Http);
    }
    let cause = Cause::VirtualHost { virtual_host: "*".to_owned(), what: "is not there" };
    l7(FieldPath::root().field("virtual_hosts"), cause)
}
