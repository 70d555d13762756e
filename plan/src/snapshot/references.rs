//! What resources name of each other.

use std::sync::Arc;

use crate::resource::cluster::Cluster;
use crate::resource::http_connection_manager::{DiscoveredFilter, HttpFilter, RouteSpecifier};
use crate::resource::listener::{DownstreamTransportSocket, FilterChain, Listener, TerminalFilter};
use crate::resource::route::{Action, ClusterSpecifier, RouteConfiguration, VirtualHost};
use crate::resource::tcp_proxy::TcpClusterSpecifier;

/// All filter chains of a listener, the default one last.
pub(crate) fn chains(listener: &Listener) -> impl Iterator<Item = &Arc<FilterChain>> {
    listener.filter_chains.iter().chain(&listener.default_filter_chain)
}

/// The route configurations that a listener takes through RDS.
pub(crate) fn rds_names(listener: &Listener) -> impl Iterator<Item = &Arc<str>> {
    chains(listener).filter_map(|chain| match &chain.terminal {
        TerminalFilter::HttpConnectionManager(manager) => match &manager.routes {
            RouteSpecifier::Rds(name) => Some(name),
            RouteSpecifier::Inline(_) => None,
        },
        TerminalFilter::TcpProxy(_) => None,
    })
}

/// The filters that a listener takes through ECDS.
pub(crate) fn discovered_filters(listener: &Listener) -> impl Iterator<Item = &DiscoveredFilter> {
    let filters = chains(listener).flat_map(|chain| match &chain.terminal {
        TerminalFilter::HttpConnectionManager(manager) => manager.http_filters.as_slice(),
        TerminalFilter::TcpProxy(_) => &[],
    });
    filters.filter_map(|filter| match filter {
        HttpFilter::Discovered(filter) => Some(filter),
        _ => None,
    })
}

/// The secrets that a listener takes through SDS from the control plane.
pub(super) fn listener_secrets(listener: &Listener) -> Vec<&Arc<str>> {
    let contexts = chains(listener).filter_map(|chain| match &chain.transport_socket {
        DownstreamTransportSocket::Tls(context) => Some(context),
        DownstreamTransportSocket::RawBuffer => None,
    });
    contexts.flat_map(|context| context.common.secrets()).collect()
}

/// The secrets that a cluster takes through SDS from the control plane.
pub(super) fn cluster_secrets(cluster: &Cluster) -> Vec<&Arc<str>> {
    cluster.transport_socket.contexts().flat_map(|context| context.common.secrets()).collect()
}

/// The clusters that a listener names by itself, not through RDS.
pub(crate) fn listener_clusters(listener: &Listener) -> impl Iterator<Item = &Arc<str>> {
    chains(listener).flat_map(|chain| match &chain.terminal {
        TerminalFilter::TcpProxy(tcp_proxy) => match &tcp_proxy.cluster {
            TcpClusterSpecifier::Cluster(name) => vec![name],
            TcpClusterSpecifier::Weighted { clusters, .. } => clusters.iter().map(|(name, _)| name).collect(),
        },
        TerminalFilter::HttpConnectionManager(manager) => match &manager.routes {
            RouteSpecifier::Inline(routes) => route_clusters(routes).collect(),
            RouteSpecifier::Rds(_) => Vec::new(),
        },
    })
}

/// The clusters that a route configuration names.
pub(crate) fn route_clusters(routes: &RouteConfiguration) -> impl Iterator<Item = &Arc<str>> {
    routes.virtual_hosts.iter().flat_map(|host| host_clusters(host))
}

/// The clusters that a virtual host names.
pub(crate) fn host_clusters(host: &VirtualHost) -> impl Iterator<Item = &Arc<str>> {
    host.routes.iter().flat_map(|route| {
        let action = match &route.action {
            Action::Route(action) => Some(&action.cluster),
            Action::Redirect(_) | Action::DirectResponse(_) | Action::Unsupported(_) => None,
        };
        let (one, weighted) = match action {
            Some(ClusterSpecifier::Cluster(name)) => (Some(name), &[][..]),
            Some(ClusterSpecifier::Weighted(weighted)) => (None, weighted.clusters.as_slice()),
            Some(ClusterSpecifier::ClusterHeader(_)) | None => (None, &[][..]),
        };
        one.into_iter().chain(weighted.iter().map(|cluster| &cluster.name))
    })
}
