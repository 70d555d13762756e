//! What is to be served of a snapshot, found from scratch: the reference for plans that follow changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orlop_plan::compile::Plans;
use orlop_plan::resource::cluster::{Cluster, ClusterDiscovery};
use orlop_plan::resource::endpoint::ClusterLoadAssignment;
use orlop_plan::resource::http_connection_manager::RouteSpecifier;
use orlop_plan::resource::listener::{Listener, TerminalFilter};
use orlop_plan::resource::route::{Action, ClusterSpecifier, RouteConfiguration};
use orlop_plan::resource::tcp_proxy::TcpClusterSpecifier;
use orlop_plan::snapshot::{ResourceType, Snapshot};

type Endpoints = Option<Arc<ClusterLoadAssignment>>;

/// Served versions by name.
#[derive(Clone, Default)]
pub(crate) struct Reference {
    clusters: BTreeMap<String, (Arc<Cluster>, Endpoints)>,
    routes: BTreeMap<String, Arc<RouteConfiguration>>,
    listeners: BTreeMap<String, Arc<Listener>>,
    /// Kinds and names of what is held.
    held: BTreeSet<(ResourceType, String)>,
}

fn chains(listener: &Listener) -> impl Iterator<Item = &TerminalFilter> {
    listener.filter_chains.iter().chain(&listener.default_filter_chain).map(|chain| &chain.terminal)
}

fn rds_names(listener: &Listener) -> Vec<String> {
    let name = |terminal: &TerminalFilter| match terminal {
        TerminalFilter::HttpConnectionManager(manager) => match &manager.routes {
            RouteSpecifier::Rds(name) => Some(name.to_string()),
            RouteSpecifier::Inline(_) => None,
        },
        TerminalFilter::TcpProxy(_) => None,
    };
    chains(listener).filter_map(name).collect()
}

fn listener_clusters(listener: &Listener) -> Vec<String> {
    let name = |terminal: &TerminalFilter| match terminal {
        TerminalFilter::TcpProxy(proxy) => match &proxy.cluster {
            TcpClusterSpecifier::Cluster(name) => Some(name.to_string()),
            TcpClusterSpecifier::Weighted { .. } => None,
        },
        TerminalFilter::HttpConnectionManager(_) => None,
    };
    chains(listener).filter_map(name).collect()
}

fn route_clusters(routes: &RouteConfiguration) -> Vec<String> {
    let routes = routes.virtual_hosts.iter().flat_map(|host| host.routes.iter());
    let name = |action: &Action| match action {
        Action::Route(action) => match &action.cluster {
            ClusterSpecifier::Cluster(name) => Some(name.to_string()),
            _ => None,
        },
        _ => None,
    };
    routes.filter_map(|route| name(&route.action)).collect()
}

impl Reference {
    /// What follows. `just_removed` are the clusters that the last delivery of clusters took away.
    pub(crate) fn after(&self, snapshot: &Snapshot, just_removed: &BTreeSet<String>) -> Self {
        let mut next = Self::default();
        for (name, stored) in snapshot.clusters().iter() {
            let cluster = Arc::clone(&stored.resource);
            let endpoints = match &cluster.discovery {
                ClusterDiscovery::Eds { service_name } => snapshot
                    .load_assignments()
                    .get(service_name)
                    .cloned()
                    .or_else(|| self.clusters.get(&**name)?.1.clone()),
                ClusterDiscovery::Static(endpoints) => Some(Arc::clone(endpoints)),
                _ => None,
            };
            next.clusters.insert(name.to_string(), (cluster, endpoints));
        }
        let served = next.clusters.clone();
        let missing = |names: Vec<String>| {
            names.iter().any(|name| match served.get(name) {
                Some((cluster, None)) => match &cluster.discovery {
                    ClusterDiscovery::Eds { service_name } => {
                        snapshot.rejection(ResourceType::ClusterLoadAssignment, service_name).is_none()
                    }
                    _ => false,
                },
                _ => false,
            })
        };
        for (name, stored) in snapshot.routes().iter() {
            if !missing(route_clusters(&stored.resource)) {
                next.routes.insert(name.to_string(), Arc::clone(&stored.resource));
                continue;
            }
            next.held.insert((ResourceType::RouteConfiguration, name.to_string()));
            next.routes.extend(self.routes.get(&**name).map(|old| (name.to_string(), Arc::clone(old))));
        }
        for (name, stored) in snapshot.listeners().iter() {
            let refused = |name: &str| snapshot.rejection(ResourceType::RouteConfiguration, name).is_some();
            let waits = rds_names(&stored.resource)
                .iter()
                .any(|name| !next.routes.contains_key(name) && !refused(name));
            if !waits && !missing(listener_clusters(&stored.resource)) {
                next.listeners.insert(name.to_string(), Arc::clone(&stored.resource));
                continue;
            }
            next.held.insert((ResourceType::Listener, name.to_string()));
            next.listeners.extend(self.listeners.get(&**name).map(|old| (name.to_string(), Arc::clone(old))));
        }
        for name in next.listeners.values().flat_map(|listener| rds_names(listener)) {
            if let (false, Some(old)) = (next.routes.contains_key(&name), self.routes.get(&name)) {
                next.routes.insert(name, Arc::clone(old));
            }
        }
        let of_listeners = next.listeners.values().flat_map(|listener| listener_clusters(listener));
        let of_routes = next.routes.values().flat_map(|routes| route_clusters(routes));
        for name in of_listeners.chain(of_routes).collect::<Vec<_>>() {
            if let (false, true, Some(old)) =
                (next.clusters.contains_key(&name), just_removed.contains(&name), self.clusters.get(&name))
            {
                next.clusters.insert(name, old.clone());
            }
        }
        next
    }

    /// Whether `plans` serve the same.
    pub(crate) fn assert_is(&self, plans: &Plans) {
        let proxy = plans.proxy();
        let names: BTreeSet<_> = proxy.clusters.keys().map(ToString::to_string).collect();
        assert_eq!(names, self.clusters.keys().cloned().collect());
        for (name, (cluster, endpoints)) in &self.clusters {
            let plan = proxy.clusters.get(name.as_str()).unwrap();
            assert!(Arc::ptr_eq(&plan.cluster, cluster), "cluster {name}");
            let address = |endpoints: &Endpoints| endpoints.as_ref().map(Arc::as_ptr);
            assert_eq!(address(&plan.load_assignment), address(endpoints), "endpoints of {name}");
        }
        let routes: BTreeMap<_, _> =
            proxy.routes.iter().map(|(name, routes)| (name.to_string(), Arc::as_ptr(routes))).collect();
        let expected = self.routes.iter().map(|(name, routes)| (name.clone(), Arc::as_ptr(routes)));
        assert_eq!(routes, expected.collect());
        let outbound = &proxy.outbound;
        let default = outbound.default.iter();
        let listeners = outbound.exact.values().chain(outbound.by_port.values()).chain(default);
        let listeners: BTreeMap<_, _> =
            listeners.map(|listener| (listener.name.clone(), Arc::as_ptr(listener))).collect();
        let expected = self.listeners.iter().map(|(name, listener)| (name.clone(), Arc::as_ptr(listener)));
        assert_eq!(listeners, expected.collect());
        let held = plans.held().into_iter();
        let held = held.filter(|held| held.waiting_for_type != ResourceType::Cluster);
        let held: BTreeSet<_> = held.map(|held| (held.resource_type, held.name)).collect();
        assert_eq!(held, self.held);
    }
}
