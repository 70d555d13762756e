//! Which versions are served: those whose references have arrived.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Plans;
use crate::proxy::{ClusterPlan, OutboundListeners, ProxyPlan};
use crate::resource::cluster::ClusterDiscovery;
use crate::resource::http_connection_manager::RouteSpecifier;
use crate::resource::listener::{Listener, TerminalFilter, TrafficDirection};
use crate::resource::route::{Action, ClusterSpecifier, RouteConfiguration};
use crate::resource::tcp_proxy::TcpClusterSpecifier;
use crate::snapshot::{ResourceType, Snapshot, chains, rds_names};

/// A resource that was accepted and is not served yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its kind.
    pub resource_type: ResourceType,
    /// Its name.
    pub name: String,
    /// The kind of what it waits for.
    pub waiting_for_type: ResourceType,
    /// The name of what it waits for.
    pub waiting_for: String,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource_type, name, waiting_for_type, waiting_for } = self;
        write!(f, "{resource_type} `{name}` waits for {waiting_for_type} `{waiting_for}`")
    }
}

pub(super) struct Served {
    pub(super) listeners: HashMap<String, Arc<Listener>>,
    pub(super) proxy: ProxyPlan,
    pub(super) held: Vec<Held>,
}

pub(super) fn served(snapshot: &Snapshot, previous: Option<&Plans>) -> Served {
    let clusters = clusters(snapshot, previous);
    let mut held = Vec::new();
    let routes = routes(snapshot, previous, &clusters, &mut held);
    let listeners = listeners(snapshot, previous, &clusters, &routes, &mut held);
    held.sort_by(|a, b| (a.resource_type, &a.name).cmp(&(b.resource_type, &b.name)));
    let (outbound, inbound) = by_destination(&listeners);
    Served { listeners, proxy: ProxyPlan { outbound, inbound, routes, clusters }, held }
}

/// A cluster's endpoints stay in force while those of its next version are on their way.
fn clusters(snapshot: &Snapshot, previous: Option<&Plans>) -> HashMap<Arc<str>, ClusterPlan> {
    let before = |name: &str| previous?.proxy.clusters.get(name)?.load_assignment.clone();
    snapshot
        .clusters()
        .iter()
        .map(|(name, stored)| {
            let cluster = Arc::clone(&stored.resource);
            let load_assignment = match &cluster.discovery {
                ClusterDiscovery::Eds { service_name } => {
                    snapshot.load_assignments().get(service_name).cloned().or_else(|| before(name))
                }
                ClusterDiscovery::Static(endpoints) => Some(Arc::clone(endpoints)),
                ClusterDiscovery::Dns { .. } | ClusterDiscovery::OriginalDst { .. } => None,
            };
            (Arc::clone(name), ClusterPlan { cluster, load_assignment })
        })
        .collect()
}

fn routes(
    snapshot: &Snapshot,
    previous: Option<&Plans>,
    clusters: &HashMap<Arc<str>, ClusterPlan>,
    held: &mut Vec<Held>,
) -> HashMap<Arc<str>, Arc<RouteConfiguration>> {
    let mut served = HashMap::new();
    for (name, stored) in snapshot.routes().iter() {
        let waiting = route_clusters(&stored.resource)
            .find_map(|cluster| missing_endpoints(snapshot, clusters.get(cluster)?));
        let Some(waiting_for) = waiting else {
            served.insert(Arc::clone(name), Arc::clone(&stored.resource));
            continue;
        };
        held.push(Held {
            resource_type: ResourceType::RouteConfiguration,
            name: name.to_string(),
            waiting_for_type: ResourceType::ClusterLoadAssignment,
            waiting_for,
        });
        if let Some(before) = previous.and_then(|plans| plans.proxy.routes.get(name)) {
            served.insert(Arc::clone(name), Arc::clone(before));
        }
    }
    served
}

fn listeners(
    snapshot: &Snapshot,
    previous: Option<&Plans>,
    clusters: &HashMap<Arc<str>, ClusterPlan>,
    routes: &HashMap<Arc<str>, Arc<RouteConfiguration>>,
    held: &mut Vec<Held>,
) -> HashMap<String, Arc<Listener>> {
    let mut served = HashMap::new();
    for (_, stored) in snapshot.listeners().iter() {
        let listener = &stored.resource;
        let missing_route = rds_names(listener)
            .find(|name| {
                !routes.contains_key(*name)
                    && snapshot.rejection(ResourceType::RouteConfiguration, name).is_none()
            })
            .map(|name| (ResourceType::RouteConfiguration, name.to_string()));
        let waiting = missing_route.or_else(|| {
            let name = own_clusters(listener)
                .find_map(|cluster| missing_endpoints(snapshot, clusters.get(cluster)?))?;
            Some((ResourceType::ClusterLoadAssignment, name))
        });
        let Some((waiting_for_type, waiting_for)) = waiting else {
            served.insert(listener.name.clone(), Arc::clone(listener));
            continue;
        };
        held.push(Held {
            resource_type: ResourceType::Listener,
            name: listener.name.clone(),
            waiting_for_type,
            waiting_for,
        });
        if let Some(before) = previous.and_then(|plans| plans.listeners.get(&listener.name)) {
            served.insert(listener.name.clone(), Arc::clone(before));
        }
    }
    served
}

/// The load assignment that a cluster still waits for. One that was refused will not come by waiting.
fn missing_endpoints(snapshot: &Snapshot, plan: &ClusterPlan) -> Option<String> {
    match &plan.cluster.discovery {
        ClusterDiscovery::Eds { service_name }
            if plan.load_assignment.is_none()
                && snapshot.rejection(ResourceType::ClusterLoadAssignment, service_name).is_none() =>
        {
            Some(service_name.to_string())
        }
        _ => None,
    }
}

/// Clusters that a listener names without RDS.
fn own_clusters(listener: &Listener) -> impl Iterator<Item = &str> {
    chains(listener).flat_map(|chain| match &chain.terminal {
        TerminalFilter::TcpProxy(tcp_proxy) => tcp_clusters(&tcp_proxy.cluster),
        TerminalFilter::HttpConnectionManager(manager) => match &manager.routes {
            RouteSpecifier::Inline(routes) => route_clusters(routes).collect(),
            RouteSpecifier::Rds(_) => Vec::new(),
        },
    })
}

fn tcp_clusters(specifier: &TcpClusterSpecifier) -> Vec<&str> {
    match specifier {
        TcpClusterSpecifier::Cluster(name) => vec![name],
        TcpClusterSpecifier::Weighted { clusters, .. } => clusters.iter().map(|(name, _)| &**name).collect(),
    }
}

/// Clusters that a route configuration names.
fn route_clusters(routes: &RouteConfiguration) -> impl Iterator<Item = &str> {
    let routes = routes.virtual_hosts.iter().flat_map(|virtual_host| &virtual_host.routes);
    routes.flat_map(|route| match &route.action {
        Action::Route(action) => match &action.cluster {
            ClusterSpecifier::Cluster(name) => vec![&**name],
            ClusterSpecifier::Weighted(weighted) => {
                weighted.clusters.iter().map(|cluster| &*cluster.name).collect()
            }
            ClusterSpecifier::ClusterHeader(_) => Vec::new(),
        },
        Action::Redirect(_) | Action::DirectResponse(_) => Vec::new(),
    })
}

/// `virtualOutbound` and `virtualInbound` take connections by their original destination; the others have theirs by
/// address from virtualOutbound. In the order of names, so that the same listeners always make the same plan.
fn by_destination(listeners: &HashMap<String, Arc<Listener>>) -> (OutboundListeners, Option<Arc<Listener>>) {
    let mut outbound = OutboundListeners::default();
    let mut inbound = None;
    let mut sorted: Vec<_> = listeners.values().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    for listener in sorted {
        match (listener.takes_original_dst(), listener.direction) {
            (true, TrafficDirection::Inbound) => inbound = Some(Arc::clone(listener)),
            (true, _) => outbound.default = Some(Arc::clone(listener)),
            (false, TrafficDirection::Inbound) => {}
            (false, _) => {
                for address in &listener.addresses {
                    if address.ip().is_unspecified() {
                        outbound.by_port.insert(address.port(), Arc::clone(listener));
                    } else {
                        outbound.exact.insert((address.ip(), address.port()), Arc::clone(listener));
                    }
                }
            }
        }
    }
    (outbound, inbound)
}
