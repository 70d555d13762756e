//! Which versions are served: those whose references have arrived.
//!
//! A change is followed from clusters over routes to listeners; what it does not touch is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orlop_shared_map::SharedMap;

use super::claims::{Contested, Winners};
use super::held::{Held, Named, Waiting};
use super::pools::Pools;
use crate::index::{self, Index, Naming, members};
use crate::proxy::ProxyPlan;
use crate::resource::cluster::{Cluster, ClusterDiscovery};
use crate::resource::listener::{Listener, TrafficDirection};
use crate::resource::route::RouteConfiguration;
use crate::resource::tls::SecretSource;
use crate::snapshot::{
    Changes, ResourceType, Snapshot, discovered_filters, listener_clusters, rds_names, route_clusters,
};

/// Who names a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum User {
    /// A listener, by itself.
    Listener(Arc<str>),
    /// A route configuration of RDS.
    Routes(Arc<str>),
}

/// What is served, and what it takes to follow a change through it.
#[derive(Debug, Clone, Default)]
pub(super) struct Serving {
    pub(super) proxy: ProxyPlan,
    /// Served listeners by name.
    pub(super) listeners: SharedMap<Arc<str>, Arc<Listener>>,
    /// By cluster, those of the served that name it.
    pub(super) users: Index<User>,
    /// By route configuration, the served listeners that take it through RDS.
    pub(super) listeners_of: Index<Arc<str>>,
    waiting: Waiting,
    /// Served only because a served listener still names them.
    kept_routes: BTreeSet<Arc<str>>,
    /// Served only because something served still names them, until clusters come again.
    kept_clusters: BTreeSet<Arc<str>>,
    contested: Contested,
    /// Served listeners that take connections by their original destination.
    original_dst: BTreeSet<Arc<str>>,
}

/// A listener or route configuration and the versions of it that are served, before and after.
#[derive(Debug)]
pub(super) struct Replaced<T> {
    pub(super) old: Option<Arc<T>>,
    pub(super) new: Option<Arc<T>>,
}

/// What is served differently, by name.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) clusters: BTreeSet<Arc<str>>,
    pub(super) routes: BTreeMap<Arc<str>, Replaced<RouteConfiguration>>,
    pub(super) listeners: Vec<Replaced<Listener>>,
}

/// What has to be looked at, or is on its way out.
#[derive(Default)]
struct Following {
    routes: BTreeSet<Arc<str>>,
    listeners: BTreeSet<Arc<str>>,
    leaving_clusters: BTreeSet<Arc<str>>,
    leaving_routes: BTreeSet<Arc<str>>,
    users: Vec<Naming<User>>,
    touched: Touched,
}

impl Following {
    fn look_at(&mut self, (kind, name): &Named) {
        match kind {
            ResourceType::RouteConfiguration => self.routes.insert(Arc::clone(name)),
            _ => self.listeners.insert(Arc::clone(name)),
        };
    }
}

fn service(cluster: &Cluster) -> Option<&Arc<str>> {
    match &cluster.discovery {
        ClusterDiscovery::Eds { service_name } => Some(service_name),
        _ => None,
    }
}

impl Serving {
    /// Serves what may be served of a snapshot that changed.
    pub(super) fn follow(&mut self, pools: &mut Pools, snapshot: &Snapshot, changes: &Changes) -> Touched {
        let mut following = Following {
            routes: changes.routes.clone(),
            listeners: changes.listeners.clone(),
            ..Following::default()
        };
        self.clusters(pools, snapshot, changes, &mut following);
        self.routes(pools, snapshot, &mut following);
        self.serve_listeners(pools, snapshot, &mut following);
        index::edit(&mut self.users, &mut pools.users, std::mem::take(&mut following.users));
        self.let_routes_go(pools, &mut following);
        index::edit(&mut self.users, &mut pools.users, std::mem::take(&mut following.users));
        self.let_clusters_go(pools, snapshot, &mut following);
        following.touched
    }

    /// A secret that is taken away while something names it stays, as in Envoy. Returns whether something changed.
    pub(super) fn take_secrets(&mut self, snapshot: &Snapshot, changed: &BTreeSet<SecretSource>) -> bool {
        for source in changed {
            let secrets = Arc::make_mut(&mut self.proxy.secrets);
            match (snapshot.secret(source), source) {
                (Some(secret), _) => drop(secrets.insert(source.clone(), Arc::clone(secret))),
                (None, SecretSource::ControlPlane(name)) if snapshot.wants_secret(name) => {}
                (None, _) => drop(secrets.remove(source)),
            }
        }
        !changed.is_empty()
    }

    /// What is waiting, and for what.
    pub(super) fn held(&self) -> Vec<Held> {
        let kept = self.kept_clusters.iter().filter_map(|cluster| {
            let (resource_type, name) = match members(&self.users, cluster).min()? {
                User::Listener(name) => (ResourceType::Listener, name.to_string()),
                User::Routes(name) => (ResourceType::RouteConfiguration, name.to_string()),
            };
            let waiting_for = cluster.to_string();
            Some(Held { resource_type, name, waiting_for_type: ResourceType::Cluster, waiting_for })
        });
        let mut held: Vec<_> = self.waiting.iter().chain(kept).collect();
        held.sort();
        held
    }

    /// A cluster's endpoints stay in force while those of its next version are on their way.
    fn clusters(
        &mut self,
        pools: &mut Pools,
        snapshot: &Snapshot,
        changes: &Changes,
        following: &mut Following,
    ) {
        let mut names = changes.clusters.clone();
        for name in &changes.load_assignments {
            names.extend(members(snapshot.endpoints_wanted(), name).cloned());
            for waiter in self.waiting.waiters(ResourceType::ClusterLoadAssignment, name) {
                following.look_at(waiter);
            }
        }
        if changes.clusters_came {
            names.extend(self.kept_clusters.iter().cloned());
        }
        let mut edits = Vec::new();
        for name in names {
            let old = self.proxy.clusters.get(&name);
            let new = snapshot.clusters().get(&name);
            let services = [old.and_then(|plan| service(&plan.cluster)), new.and_then(|new| service(new))];
            for service in services.into_iter().flatten() {
                for waiter in self.waiting.waiters(ResourceType::ClusterLoadAssignment, service) {
                    following.look_at(waiter);
                }
            }
            let Some(cluster) = new else {
                if old.is_some() {
                    following.leaving_clusters.insert(name);
                }
                continue;
            };
            self.kept_clusters.remove(&name);
            let load_assignment = match &cluster.discovery {
                ClusterDiscovery::Eds { service_name } => snapshot
                    .load_assignments()
                    .get(service_name)
                    .or_else(|| old?.load_assignment.as_ref())
                    .cloned(),
                ClusterDiscovery::Static(endpoints) => Some(Arc::clone(endpoints)),
                ClusterDiscovery::Dns(_) | ClusterDiscovery::OriginalDst { .. } => None,
            };
            if load_assignment.is_none() && service(cluster).is_some() {
                // Those that name it already are not complete any more.
                for user in members(&self.users, &name) {
                    following.look_at(&match user {
                        User::Listener(name) => (ResourceType::Listener, Arc::clone(name)),
                        User::Routes(name) => (ResourceType::RouteConfiguration, Arc::clone(name)),
                    });
                }
            }
            let plan = pools.cluster_plans.get(cluster, load_assignment);
            if old.is_none_or(|old| !Arc::ptr_eq(old, &plan)) {
                edits.push((Arc::clone(&cluster.name), Some(plan)));
                following.touched.clusters.insert(name);
            }
        }
        self.proxy.clusters.edit(&mut pools.clusters, edits);
    }

    /// The load assignment that a cluster still waits for. One that was refused will not come by waiting.
    fn missing(&self, snapshot: &Snapshot, cluster: &Arc<str>) -> Option<Arc<str>> {
        if self.proxy.clusters.get(cluster)?.load_assignment.is_some() {
            return None;
        }
        let service = service(snapshot.clusters().get(cluster)?)?;
        let refused = snapshot.rejection(ResourceType::ClusterLoadAssignment, service).is_some();
        (!refused).then(|| Arc::clone(service))
    }

    fn routes(&mut self, pools: &mut Pools, snapshot: &Snapshot, following: &mut Following) {
        let mut edits = Vec::new();
        for name in std::mem::take(&mut following.routes) {
            let old = self.proxy.routes.get(&name).cloned();
            for (_, listener) in self.waiting.waiters(ResourceType::RouteConfiguration, &name) {
                following.listeners.insert(Arc::clone(listener));
            }
            if old.is_none() || snapshot.routes().get(&name).is_none() {
                // What they name is not there, or was not.
                following.listeners.extend(members(&self.listeners_of, &name).cloned());
            }
            let waiter = (ResourceType::RouteConfiguration, Arc::clone(&name));
            let Some(new) = snapshot.routes().get(&name) else {
                self.waiting.set(&waiter, None);
                if old.is_some() && !self.kept_routes.contains(&name) {
                    following.leaving_routes.insert(name);
                }
                continue;
            };
            // Also where an older version goes on for a while.
            self.kept_routes.remove(&name);
            let awaited = route_clusters(new).find_map(|cluster| self.missing(snapshot, cluster));
            let complete = awaited.is_none();
            self.waiting.set(&waiter, awaited.map(|name| (ResourceType::ClusterLoadAssignment, name)));
            if complete && old.as_ref().is_none_or(|old| !Arc::ptr_eq(old, new)) {
                edits.push((Arc::clone(&name), Some(Arc::clone(new))));
                following.replace_routes(&name, old, Some(Arc::clone(new)));
            }
        }
        self.proxy.routes.edit(&mut pools.routes, edits);
    }

    fn serve_listeners(&mut self, pools: &mut Pools, snapshot: &Snapshot, following: &mut Following) {
        let (mut edits, mut winners, mut namings) = (Vec::new(), Winners::new(), Vec::new());
        for name in std::mem::take(&mut following.listeners) {
            let new = snapshot.listeners().get(&name);
            let awaited = new.and_then(|new| self.awaited(snapshot, new, following));
            let complete = awaited.is_none();
            self.waiting.set(&(ResourceType::Listener, Arc::clone(&name)), awaited);
            let old = self.listeners.get(&name).cloned();
            let same = match (&old, new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (old, new) => old.is_none() && new.is_none(),
            };
            if !complete || same {
                continue;
            }
            for (listener, names) in [(old.as_ref(), false), (new, true)] {
                let Some(listener) = listener else { continue };
                let user = User::Listener(Arc::clone(&name));
                let clusters = listener_clusters(listener);
                following.users.extend(clusters.map(|cluster| Naming::new(cluster, user.clone(), names)));
                namings.extend(rds_names(listener).map(|rds| Naming::new(rds, Arc::clone(&name), names)));
            }
            self.contested.replace(
                &self.proxy.outbound,
                &name,
                old.as_deref(),
                new.map(AsRef::as_ref),
                &mut winners,
            );
            if new.is_some_and(|new| new.takes_original_dst()) {
                self.original_dst.insert(Arc::clone(&name));
            } else {
                self.original_dst.remove(&name);
            }
            edits.push((name, new.cloned()));
            following.touched.listeners.push(Replaced { old, new: new.cloned() });
        }
        self.listeners.edit(&mut pools.listeners, edits);
        index::edit(&mut self.listeners_of, &mut pools.names, namings);
        self.hand_over(pools, winners);
    }

    /// What a listener that was accepted waits for.
    fn awaited(&self, snapshot: &Snapshot, listener: &Listener, following: &Following) -> Option<Named> {
        // One that is refused does not come by waiting, but without it the listener is not what it was meant to be.
        let missing = discovered_filters(listener).find(|filter| {
            let refused = snapshot.rejection(ResourceType::ExtensionConfig, &filter.name).is_some();
            let does_without = !filter.waits || (refused && filter.default_config.is_some());
            !does_without && snapshot.extensions().get(&filter.name).is_none()
        });
        if let Some(filter) = missing {
            return Some((ResourceType::ExtensionConfig, Arc::clone(&filter.name)));
        }
        let is_there = |name: &Arc<str>| {
            self.proxy.routes.contains_key(name)
                && !self.kept_routes.contains(name)
                && !following.leaving_routes.contains(name)
        };
        let refused = |name: &str| snapshot.rejection(ResourceType::RouteConfiguration, name).is_some();
        if let Some(name) = rds_names(listener).find(|name| !is_there(name) && !refused(name)) {
            return Some((ResourceType::RouteConfiguration, Arc::clone(name)));
        }
        let name = listener_clusters(listener).find_map(|cluster| self.missing(snapshot, cluster))?;
        Some((ResourceType::ClusterLoadAssignment, name))
    }

    /// `virtualOutbound` and `virtualInbound` take connections by their original destination; the others have theirs by
    /// address from virtualOutbound.
    fn hand_over(&mut self, pools: &mut Pools, winners: Winners) {
        let (mut exact, mut by_port) = (Vec::new(), Vec::new());
        for ((ip, port), winner) in winners {
            let listener = winner.and_then(|winner| self.listeners.get(&winner)).cloned();
            match ip {
                Some(ip) => exact.push(((ip, port), listener)),
                None => by_port.push((port, listener)),
            }
        }
        let outbound = &mut self.proxy.outbound;
        outbound.exact.edit(&mut pools.exact, exact);
        outbound.by_port.edit(&mut pools.by_port, by_port);
        let (inbound, default): (Vec<_>, Vec<_>) = self
            .original_dst
            .iter()
            .filter_map(|name| self.listeners.get(name))
            .partition(|listener| listener.direction == TrafficDirection::Inbound);
        outbound.default = default.last().copied().cloned();
        self.proxy.inbound = inbound.last().copied().cloned();
    }

    /// A listener that is served in an older version keeps the routes of that version.
    fn let_routes_go(&mut self, pools: &mut Pools, following: &mut Following) {
        let mut edits = Vec::new();
        let mut candidates = std::mem::take(&mut following.leaving_routes);
        candidates.append(&mut self.kept_routes);
        for name in candidates {
            if self.listeners_of.contains_key(&name) {
                self.kept_routes.insert(name);
            } else {
                let old = self.proxy.routes.get(&name).cloned();
                edits.push((Arc::clone(&name), None));
                following.replace_routes(&name, old, None);
            }
        }
        self.proxy.routes.edit(&mut pools.routes, edits);
    }

    /// istiod takes a cluster away before it sends the listeners and routes that do without it. Until those have come, or
    /// until another delivery of clusters says that they will not, the cluster that they name stays.
    fn let_clusters_go(&mut self, pools: &mut Pools, snapshot: &Snapshot, following: &mut Following) {
        let mut edits = Vec::new();
        let mut candidates = std::mem::take(&mut following.leaving_clusters);
        candidates.append(&mut self.kept_clusters);
        for name in candidates {
            if snapshot.was_just_removed(&name) && self.users.contains_key(&name) {
                self.kept_clusters.insert(name);
            } else {
                edits.push((Arc::clone(&name), None));
                following.touched.clusters.insert(name);
            }
        }
        self.proxy.clusters.edit(&mut pools.clusters, edits);
    }
}

impl Following {
    fn replace_routes(
        &mut self,
        name: &Arc<str>,
        old: Option<Arc<RouteConfiguration>>,
        new: Option<Arc<RouteConfiguration>>,
    ) {
        let names = |routes: &Option<Arc<RouteConfiguration>>, cluster: &str| {
            routes.as_ref().is_some_and(|routes| routes.reach().naming(cluster).next().is_some())
        };
        for (one, other, here) in [(&old, &new, false), (&new, &old, true)] {
            let clusters = one.iter().flat_map(|routes| routes.reach().clusters());
            self.users.extend(
                clusters
                    .filter(|cluster| !names(other, cluster))
                    .map(|cluster| Naming::new(cluster, User::Routes(Arc::clone(name)), here)),
            );
        }
        let old = match self.touched.routes.remove(name) {
            Some(replaced) => replaced.old,
            None => old,
        };
        self.touched.routes.insert(Arc::clone(name), Replaced { old, new });
    }
}
