//! Which versions are served: those whose references have arrived.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::Plans;
use crate::proxy::{ClusterPlan, OutboundListeners, ProxyPlan};
use crate::resource::cluster::ClusterDiscovery;
use crate::resource::listener::{Listener, TrafficDirection};
use crate::resource::route::RouteConfiguration;
use crate::snapshot::{ResourceType, Snapshot, listener_clusters, rds_names, route_clusters};

/// A resource that was accepted and is not served yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
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
    let mut clusters = clusters(snapshot, previous);
    let mut held = Vec::new();
    let mut routes = routes(snapshot, previous, &clusters, &mut held);
    let listeners = listeners(snapshot, previous, &clusters, &routes, &mut held);
    if let Some(previous) = previous {
        keep_routes(&listeners, previous, &mut routes);
        keep_clusters(snapshot, &listeners, &routes, previous, &mut clusters, &mut held);
    }
    held.sort();
    let (outbound, inbound) = by_destination(&listeners);
    Served { listeners, proxy: ProxyPlan { outbound, inbound, routes, clusters }, held }
}

/// A listener that is served in an older version keeps the routes of that version.
fn keep_routes(
    listeners: &HashMap<String, Arc<Listener>>,
    previous: &Plans,
    routes: &mut HashMap<Arc<str>, Arc<RouteConfiguration>>,
) {
    for name in listeners.values().flat_map(|listener| rds_names(listener)) {
        if let (false, Some(before)) = (routes.contains_key(name), previous.proxy.routes.get(name)) {
            routes.insert(Arc::clone(name), Arc::clone(before));
        }
    }
}

/// istiod takes a cluster away before it sends the listeners and routes that do without it. Until those have come, or
/// until another delivery of clusters says that they will not, the cluster that they name stays.
fn keep_clusters(
    snapshot: &Snapshot,
    listeners: &HashMap<String, Arc<Listener>>,
    routes: &HashMap<Arc<str>, Arc<RouteConfiguration>>,
    previous: &Plans,
    clusters: &mut HashMap<Arc<str>, ClusterPlan>,
    held: &mut Vec<Held>,
) {
    let of_listeners = listeners.values().flat_map(|listener| {
        listener_clusters(listener).map(|name| (ResourceType::Listener, listener.name.as_str(), name))
    });
    let of_routes = routes.values().flat_map(|routes| {
        route_clusters(routes).map(|name| (ResourceType::RouteConfiguration, routes.name.as_str(), name))
    });
    for (resource_type, name, cluster) in of_listeners.chain(of_routes) {
        if clusters.contains_key(cluster) || !snapshot.was_just_removed(cluster) {
            continue;
        }
        if let Some(before) = previous.proxy.clusters.get(cluster) {
            clusters.insert(Arc::clone(cluster), before.clone());
            held.push(Held {
                resource_type,
                name: name.to_owned(),
                waiting_for_type: ResourceType::Cluster,
                waiting_for: cluster.to_string(),
            });
        }
    }
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
            let name = listener_clusters(listener)
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
