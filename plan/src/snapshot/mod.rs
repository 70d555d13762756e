//! The resources that one workload was given and that were accepted: the [`Snapshot`].
//!
//! Owned and written by one task; the caller keeps the locks. In: deliveries of protobuf resources as they come from an
//! ADS stream or a file. Out: an [`Outcome`] for ACK or NACK, and the store that `compile` reads. A resource that does not
//! validate leaves the last good one in place, and is remembered.

mod addresses;
mod changes;
mod interner;
mod kind;
mod packed;
mod references;
mod store;
mod without_effect;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use orlop_shared_map::{SharedMap, SharedSet};

use crate::index::{self, Naming};
use crate::resource::cluster::{Cluster, ClusterDiscovery};
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::extension_config::ExtensionConfig;
use crate::resource::listener::{Listener, TrafficDirection};
use crate::resource::mesh::ProxyConfig;
use crate::resource::name_table::NameTable;
use crate::resource::route::RouteConfiguration;
use crate::resource::secret::Secret;
use crate::resource::tls::SecretSource;
use crate::resource::{RefusedRoute, ResourceError};
use store::{Changed, Delivered, Refused};

pub(crate) use references::{
    chains, discovered_filters, host_clusters, listener_clusters, rds_names, route_clusters,
};
use references::{cluster_secrets, listener_secrets};

pub use changes::Changes;
pub use interner::Interner;
pub use orlop_proto::{Resource, ResourceType};
pub use packed::Packed;
pub use store::{Store, Stored};
pub use without_effect::WithoutEffect;

/// Names that are wanted, each with the resources that name it.
pub type Wanted = SharedMap<Arc<str>, SharedSet<Arc<str>>>;

/// What a delivery came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Resources of the delivery that were accepted.
    pub accepted: usize,
    /// Those that were refused; empty is an ACK.
    pub errors: Vec<ResourceError>,
    /// Resources that had to be validated.
    pub validated: usize,
    /// Resources that some workload of the node had already.
    pub deduplicated: usize,
    /// What is not what it was.
    pub changes: Changes,
    /// Load assignments that the accepted clusters name: the EDS subscription.
    pub endpoints_wanted: Wanted,
    /// Route configurations that the accepted listeners name: the RDS subscription.
    pub routes_wanted: Wanted,
    /// Secrets that accepted resources name: the SDS subscription.
    pub secrets_wanted: Wanted,
    /// Filters that accepted listeners name: the ECDS subscription.
    pub extensions_wanted: Wanted,
}

/// A resource whose newest version was refused.
#[derive(Debug, Clone)]
pub struct Rejection {
    /// The refused version.
    pub version: String,
    /// Why.
    pub error: ResourceError,
    /// What a refused listener would have listened to: connections there are refused unless an older version is served.
    pub listener: Option<RefusedListener>,
}

/// What is known of a listener that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedListener {
    /// Its addresses, as far as they are understood.
    pub addresses: Vec<SocketAddr>,
    /// It is `virtualOutbound` or `virtualInbound`.
    pub takes_original_dst: bool,
    /// `traffic_direction`.
    pub direction: TrafficDirection,
}

/// The accepted resources of one workload.
#[derive(Debug, Default)]
pub struct Snapshot {
    clusters: Store<Cluster>,
    load_assignments: Store<ClusterLoadAssignment>,
    listeners: Store<Listener>,
    routes: Store<RouteConfiguration>,
    secrets: Store<Secret>,
    node_secrets: BTreeMap<Arc<str>, Arc<Secret>>,
    extensions: Store<ExtensionConfig>,
    name_table: Store<NameTable>,
    proxy_config: Store<ProxyConfig>,
    rejections: BTreeMap<(ResourceType, String), Rejection>,
    delivered: BTreeSet<ResourceType>,
    /// What the last delivery of clusters took away.
    clusters_just_removed: BTreeSet<Arc<str>>,
    endpoints_wanted: Wanted,
    routes_wanted: Wanted,
    secrets_wanted: Wanted,
    extensions_wanted: Wanted,
    /// Resources that are asked for by name and came before anything named them.
    strays: BTreeSet<(ResourceType, Arc<str>)>,
    /// Found when it is asked for, and good until the next delivery.
    without_effect: OnceCell<Vec<WithoutEffect>>,
}

impl Snapshot {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one delivery, which came `at` this time: every resource is validated by itself, so one that is refused does
    /// not hold back the others.
    pub fn apply(
        &mut self,
        interner: &mut Interner,
        resource_type: ResourceType,
        upserts: &[Resource],
        removals: &[String],
        at: SystemTime,
    ) -> Outcome {
        let removals: Vec<Arc<str>> = removals.iter().map(|name| name.as_str().into()).collect();
        self.without_effect.take();
        let mut outcome = Outcome::default();
        outcome.changes.first_delivery = self.delivered.insert(resource_type);
        if resource_type == ResourceType::Cluster {
            outcome.changes.clusters_came = true;
            self.clusters_just_removed = removals.iter().cloned().collect();
        }
        macro_rules! deliver {
            ($store:ident, $pool:ident) => {
                store::deliver(&mut self.$store, &mut interner.$pool, resource_type, upserts, &removals, at)
            };
        }
        match resource_type {
            ResourceType::Cluster => {
                let delivered = deliver!(clusters, clusters);
                self.want_endpoints(interner, &delivered.changed);
                self.want_secrets(interner, &delivered.changed, "cluster", cluster_secrets);
                self.note(resource_type, &removals, delivered, &mut outcome);
                self.forget_unwanted(interner, ResourceType::ClusterLoadAssignment, &mut outcome);
                self.forget_unwanted(interner, ResourceType::Secret, &mut outcome);
            }
            ResourceType::ClusterLoadAssignment => {
                let delivered = deliver!(load_assignments, load_assignments);
                self.note(resource_type, &removals, delivered, &mut outcome);
            }
            ResourceType::Listener => {
                let delivered = deliver!(listeners, listeners);
                self.want_routes(interner, &delivered.changed);
                self.want_secrets(interner, &delivered.changed, "listener", listener_secrets);
                self.want_extensions(interner, &delivered.changed);
                self.note(resource_type, &removals, delivered, &mut outcome);
                self.forget_unwanted(interner, ResourceType::RouteConfiguration, &mut outcome);
                self.forget_unwanted(interner, ResourceType::Secret, &mut outcome);
                self.forget_unwanted(interner, ResourceType::ExtensionConfig, &mut outcome);
            }
            ResourceType::RouteConfiguration => {
                let delivered = deliver!(routes, routes);
                self.note(resource_type, &removals, delivered, &mut outcome);
            }
            ResourceType::Secret => {
                let delivered = deliver!(secrets, secrets);
                self.note(resource_type, &removals, delivered, &mut outcome);
            }
            ResourceType::ExtensionConfig => {
                let delivered = deliver!(extensions, extensions);
                let names = delivered.changed.iter().map(|changed| &changed.name);
                for name in names.chain(delivered.refused.iter().map(|refused| &refused.name)) {
                    let listeners = index::members(&self.extensions_wanted, name);
                    outcome.changes.listeners.extend(listeners.cloned());
                }
                self.note(resource_type, &removals, delivered, &mut outcome);
            }
            ResourceType::NameTable => {
                let delivered = deliver!(name_table, name_tables);
                self.note(resource_type, &removals, delivered, &mut outcome);
            }
            ResourceType::ProxyConfig => {
                let delivered = deliver!(proxy_config, proxy_configs);
                self.note(resource_type, &removals, delivered, &mut outcome);
            }
        }
        outcome.endpoints_wanted = self.endpoints_wanted.clone();
        outcome.routes_wanted = self.routes_wanted.clone();
        outcome.secrets_wanted = self.secrets_wanted.clone();
        outcome.extensions_wanted = self.extensions_wanted.clone();
        outcome
    }

    /// Takes a secret that the node itself provides ([`SecretSource::Node`]), in the place of the one of the same name.
    pub fn provide(&mut self, secret: Arc<Secret>) -> Changes {
        let mut changes = Changes::default();
        changes.secrets.insert(SecretSource::Node(Arc::clone(&secret.name)));
        self.node_secrets.insert(Arc::clone(&secret.name), secret);
        changes
    }

    /// Remembers what was refused, and says what changed.
    fn note<T>(
        &mut self,
        kind: ResourceType,
        removals: &[Arc<str>],
        delivered: Delivered<T>,
        outcome: &mut Outcome,
    ) {
        let Delivered { changed, accepted, refused, validated } = delivered;
        outcome.accepted = accepted.len();
        outcome.validated = validated;
        outcome.deduplicated = (accepted.len() + refused.len()).saturating_sub(validated);
        let mut names: BTreeSet<_> = changed.into_iter().map(|changed| changed.name).collect();
        for name in removals.iter().chain(&accepted) {
            if !self.rejections.is_empty() && self.rejections.remove(&(kind, name.to_string())).is_some() {
                names.insert(Arc::clone(name));
            }
        }
        for Refused { name, version, error, listener } in refused {
            let rejection = Rejection { version, error: error.clone(), listener };
            self.rejections.insert((kind, name.to_string()), rejection);
            outcome.errors.push(error);
            names.insert(name);
        }
        for name in &names {
            if self.wanted(kind).is_some_and(|wanted| !wanted.contains_key(name)) {
                self.strays.insert((kind, Arc::clone(name)));
            }
        }
        outcome.changes.add(kind, names);
    }

    /// The names that are wanted of a kind, where only those are of use.
    fn wanted(&self, kind: ResourceType) -> Option<&Wanted> {
        match kind {
            ResourceType::ClusterLoadAssignment => Some(&self.endpoints_wanted),
            ResourceType::RouteConfiguration => Some(&self.routes_wanted),
            ResourceType::Secret => Some(&self.secrets_wanted),
            ResourceType::ExtensionConfig => Some(&self.extensions_wanted),
            _ => None,
        }
    }

    fn want_endpoints(&mut self, interner: &mut Interner, changed: &[Changed<Cluster>]) {
        let service = |cluster: &Arc<Cluster>| match &cluster.discovery {
            ClusterDiscovery::Eds { service_name } => Some(Arc::clone(service_name)),
            _ => None,
        };
        let mut namings = Vec::new();
        for Changed { name, old, new } in changed {
            let (old, new) = (old.as_ref().and_then(service), new.as_ref().and_then(service));
            self.strays.extend(old.iter().map(|old| (ResourceType::ClusterLoadAssignment, Arc::clone(old))));
            namings.extend(old.iter().map(|old| Naming::new(old, Arc::clone(name), false)));
            namings.extend(new.iter().map(|new| Naming::new(new, Arc::clone(name), true)));
        }
        index::edit(&mut self.endpoints_wanted, &mut interner.plans.names, namings);
    }

    fn want_routes(&mut self, interner: &mut Interner, changed: &[Changed<Listener>]) {
        let mut namings = Vec::new();
        for Changed { name, old, new } in changed {
            for old in old.iter().flat_map(|old| rds_names(old)) {
                self.strays.insert((ResourceType::RouteConfiguration, Arc::clone(old)));
                namings.push(Naming::new(old, Arc::clone(name), false));
            }
            for new in new.iter().flat_map(|new| rds_names(new)) {
                namings.push(Naming::new(new, Arc::clone(name), true));
            }
        }
        index::edit(&mut self.routes_wanted, &mut interner.plans.names, namings);
    }

    /// `kind` keeps the clusters apart from the listeners of the same name.
    fn want_secrets<T>(
        &mut self,
        interner: &mut Interner,
        changed: &[Changed<T>],
        kind: &str,
        secrets: fn(&T) -> Vec<&Arc<str>>,
    ) {
        let mut namings = Vec::new();
        for Changed { name, old, new } in changed {
            for (resource, names) in [(old, false), (new, true)] {
                for secret in resource.iter().flat_map(|resource| secrets(resource)) {
                    if !names {
                        self.strays.insert((ResourceType::Secret, Arc::clone(secret)));
                    }
                    namings.push(Naming::new(secret, format!("{kind} {name}").into(), names));
                }
            }
        }
        index::edit(&mut self.secrets_wanted, &mut interner.plans.names, namings);
    }

    fn want_extensions(&mut self, interner: &mut Interner, changed: &[Changed<Listener>]) {
        let mut namings = Vec::new();
        for Changed { name, old, new } in changed {
            for (listener, names) in [(old, false), (new, true)] {
                for filter in listener.iter().flat_map(|listener| discovered_filters(listener)) {
                    if !names {
                        self.strays.insert((ResourceType::ExtensionConfig, Arc::clone(&filter.name)));
                    }
                    namings.push(Naming::new(&filter.name, Arc::clone(name), names));
                }
            }
        }
        index::edit(&mut self.extensions_wanted, &mut interner.plans.names, namings);
    }

    /// What nothing names any more is unsubscribed from and gets stale; it is sent again when it is named again.
    fn forget_unwanted(&mut self, interner: &mut Interner, kind: ResourceType, outcome: &mut Outcome) {
        let (forgotten, others): (BTreeSet<_>, _) =
            std::mem::take(&mut self.strays).into_iter().partition(|(stray, _)| *stray == kind);
        self.strays = others;
        let unwanted: Vec<_> = forgotten
            .into_iter()
            .map(|(_, name)| name)
            .filter(|name| self.wanted(kind).is_none_or(|wanted| !wanted.contains_key(name)))
            .collect();
        for name in &unwanted {
            self.rejections.remove(&(kind, name.to_string()));
        }
        match kind {
            ResourceType::ClusterLoadAssignment => {
                self.load_assignments.forget(&mut interner.load_assignments, &unwanted);
            }
            ResourceType::Secret => self.secrets.forget(&mut interner.secrets, &unwanted),
            ResourceType::ExtensionConfig => self.extensions.forget(&mut interner.extensions, &unwanted),
            _ => self.routes.forget(&mut interner.routes, &unwanted),
        }
        outcome.changes.add(kind, unwanted);
    }

    /// Clusters by name.
    pub fn clusters(&self) -> &Store<Cluster> {
        &self.clusters
    }

    /// Load assignments by the name that clusters know them by.
    pub fn load_assignments(&self) -> &Store<ClusterLoadAssignment> {
        &self.load_assignments
    }

    /// Listeners by name.
    pub fn listeners(&self) -> &Store<Listener> {
        &self.listeners
    }

    /// Route configurations by name.
    pub fn routes(&self) -> &Store<RouteConfiguration> {
        &self.routes
    }

    /// Secrets of the control plane by name.
    pub fn secrets(&self) -> &Store<Secret> {
        &self.secrets
    }

    /// The secret from this source, if it is there.
    pub(crate) fn secret(&self, source: &SecretSource) -> Option<&Arc<Secret>> {
        match source {
            SecretSource::ControlPlane(name) => self.secrets.get(name),
            SecretSource::Node(name) => self.node_secrets.get(name),
        }
    }

    /// Where there are secrets from.
    pub(crate) fn secret_sources(&self) -> impl Iterator<Item = SecretSource> {
        let sent = self.secrets.iter().map(|(name, _)| SecretSource::ControlPlane(Arc::clone(name)));
        sent.chain(self.node_secrets.keys().map(|name| SecretSource::Node(Arc::clone(name))))
    }

    /// Whether an accepted resource names this secret of the control plane.
    pub(crate) fn wants_secret(&self, name: &str) -> bool {
        self.secrets_wanted.contains_key(name)
    }

    /// Extension configurations by name.
    pub fn extensions(&self) -> &Store<ExtensionConfig> {
        &self.extensions
    }

    /// The names that the workload's resolver answers for.
    pub fn name_table(&self) -> Option<&Arc<NameTable>> {
        self.name_table.get("")
    }

    /// What the control plane says of the mesh: the roots of trust.
    pub fn proxy_config(&self) -> Option<&Arc<ProxyConfig>> {
        self.proxy_config.get("")
    }

    /// Resources whose newest version was refused.
    pub fn rejections(&self) -> &BTreeMap<(ResourceType, String), Rejection> {
        &self.rejections
    }

    /// Why a resource's newest version was refused.
    pub fn rejection(&self, resource_type: ResourceType, name: &str) -> Option<&Rejection> {
        self.rejections.get(&(resource_type, name.to_owned()))
    }

    /// Routes of accepted resources that are refused by themselves, in no order, with the resource that each is in.
    pub fn refused_routes(&self) -> impl Iterator<Item = (ResourceType, &Arc<str>, &RefusedRoute)> {
        let of_routes = self.routes.iter().map(|(name, stored)| (name, &stored.refused_routes));
        let of_listeners = self.listeners.iter().map(|(name, stored)| (name, &stored.refused_routes));
        let kinds = of_routes
            .map(|found| (ResourceType::RouteConfiguration, found))
            .chain(of_listeners.map(|found| (ResourceType::Listener, found)));
        kinds.flat_map(|(kind, (name, routes))| routes.iter().map(move |refused| (kind, name, refused)))
    }

    /// Whether a delivery of this type has come at all, be it an empty one.
    pub fn was_delivered(&self, resource_type: ResourceType) -> bool {
        self.delivered.contains(&resource_type)
    }

    /// Whether the last delivery of clusters took this one away.
    pub(crate) fn was_just_removed(&self, cluster: &str) -> bool {
        self.clusters_just_removed.contains(cluster)
    }

    /// Load assignments that clusters name, with the clusters.
    pub(crate) fn endpoints_wanted(&self) -> &Wanted {
        &self.endpoints_wanted
    }

    /// Route configurations that listeners name, with the listeners.
    pub(crate) fn routes_wanted(&self) -> &Wanted {
        &self.routes_wanted
    }
}
