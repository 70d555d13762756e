//! The resources that one workload was given and that were accepted: the [`Snapshot`].
//!
//! Owned and written by one task; the caller keeps the locks. In: deliveries of protobuf resources as they come from an
//! ADS stream or a file. Out: an [`Outcome`] for ACK or NACK, and the store that `compile` reads. A resource that does not
//! validate leaves the last good one in place, and is remembered.

mod interner;
mod references;
mod store;
mod without_effect;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use orlop_proto::mesh::ProxyConfig;
use orlop_proto::nds::NameTable;

use crate::resource::cluster::{Cluster, ClusterDiscovery};
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::listener::{Listener, TrafficDirection};
use crate::resource::route::RouteConfiguration;
use crate::resource::{FieldError, FieldPath, ResourceError};
use crate::validate;

pub(crate) use references::{chains, listener_clusters, rds_names, route_clusters};

pub use interner::Interner;
pub use orlop_proto::{Resource, ResourceType};
pub use store::{Store, Stored};
pub use without_effect::WithoutEffect;

/// What a delivery came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Resources of the delivery that were accepted.
    pub accepted: usize,
    /// Those that were refused; empty is an ACK.
    pub errors: Vec<ResourceError>,
    /// Load assignments that the accepted clusters name: the EDS subscription.
    pub endpoints_wanted: BTreeSet<String>,
    /// Route configurations that the accepted listeners name: the RDS subscription.
    pub routes_wanted: BTreeSet<String>,
    /// Secrets that accepted resources name: the SDS subscription.
    pub secrets_wanted: BTreeSet<String>,
    /// Filters that accepted listeners name: the ECDS subscription.
    pub extensions_wanted: BTreeSet<String>,
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
    extensions: Store<TypedExtensionConfig>,
    name_table: Store<NameTable>,
    proxy_config: Store<ProxyConfig>,
    rejections: BTreeMap<(ResourceType, String), Rejection>,
    delivered: BTreeSet<ResourceType>,
    /// What the last delivery of clusters took away.
    clusters_just_removed: BTreeSet<String>,
}

impl Snapshot {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one delivery: every resource is validated by itself, so one that is refused does not hold back the others.
    pub fn apply(
        &mut self,
        interner: &mut Interner,
        resource_type: ResourceType,
        upserts: Vec<Resource>,
        removals: &[String],
    ) -> Outcome {
        self.delivered.insert(resource_type);
        for name in removals {
            self.remove(resource_type, name);
        }
        if resource_type == ResourceType::Cluster {
            self.clusters_just_removed = removals.iter().cloned().collect();
        }
        let mut outcome = Outcome::default();
        for delivered in upserts {
            let key = (resource_type, delivered.name.clone());
            match self.upsert(interner, resource_type, &delivered) {
                Ok(()) => {
                    self.rejections.remove(&key);
                    outcome.accepted += 1;
                }
                Err(error) => {
                    let listener = (resource_type == ResourceType::Listener)
                        .then(|| validate::refused_listener(&delivered.body.value))
                        .flatten();
                    let rejection = Rejection { version: delivered.version, error: error.clone(), listener };
                    self.rejections.insert(key, rejection);
                    outcome.errors.push(error);
                }
            }
        }
        outcome.endpoints_wanted = self.endpoints_wanted();
        outcome.routes_wanted = self.routes_wanted();
        self.forget_unwanted(resource_type, &outcome);
        outcome
    }

    fn remove(&mut self, resource_type: ResourceType, name: &str) {
        self.rejections.remove(&(resource_type, name.to_owned()));
        match resource_type {
            ResourceType::Cluster => self.clusters.remove(name),
            ResourceType::ClusterLoadAssignment => self.load_assignments.remove(name),
            ResourceType::Listener => self.listeners.remove(name),
            ResourceType::RouteConfiguration => self.routes.remove(name),
            ResourceType::Secret => self.secrets.remove(name),
            ResourceType::ExtensionConfig => self.extensions.remove(name),
            ResourceType::NameTable => self.name_table.remove(name),
            ResourceType::ProxyConfig => self.proxy_config.remove(name),
        }
    }

    /// What nothing names any more is unsubscribed from and gets stale; it is sent again when it is named again.
    fn forget_unwanted(&mut self, changed: ResourceType, outcome: &Outcome) {
        let (kind, wanted) = match changed {
            ResourceType::Cluster => (ResourceType::ClusterLoadAssignment, &outcome.endpoints_wanted),
            ResourceType::Listener => (ResourceType::RouteConfiguration, &outcome.routes_wanted),
            _ => return,
        };
        match kind {
            ResourceType::ClusterLoadAssignment => self.load_assignments.retain(wanted),
            _ => self.routes.retain(wanted),
        }
        self.rejections.retain(|(rejected, name), _| *rejected != kind || wanted.contains(name));
    }

    fn upsert(
        &mut self,
        interner: &mut Interner,
        resource_type: ResourceType,
        delivered: &Resource,
    ) -> Result<(), ResourceError> {
        let Resource { name, version, body } = delivered;
        if body.type_url != resource_type.type_url() {
            return Err(whole(name, format!("is a {}, not a {}", body.type_url, resource_type.type_url())));
        }
        match resource_type {
            ResourceType::Cluster => {
                let parsed = interner.clusters.intern(&body.value, validate::cluster)?;
                expect_name(name, &parsed.resource.name)?;
                self.clusters.insert(name, version, parsed);
            }
            ResourceType::ClusterLoadAssignment => {
                let parsed = interner.load_assignments.intern(&body.value, validate::load_assignment)?;
                expect_name(name, &parsed.resource.cluster_name)?;
                self.load_assignments.insert(name, version, parsed);
            }
            ResourceType::Listener => {
                let parsed = interner.listeners.intern(&body.value, validate::listener)?;
                expect_name(name, &parsed.resource.name)?;
                self.listeners.insert(name, version, parsed);
            }
            ResourceType::RouteConfiguration => {
                let parsed = interner.routes.intern(&body.value, validate::route_configuration)?;
                expect_name(name, &parsed.resource.name)?;
                self.routes.insert(name, version, parsed);
            }
            ResourceType::Secret => {
                let parsed = interner.secrets.intern(&body.value, validate::secret)?;
                expect_name(name, &parsed.resource.name)?;
                self.secrets.insert(name, version, parsed);
            }
            ResourceType::ExtensionConfig => {
                let parsed = interner.extensions.intern(&body.value, validate::extension_config)?;
                expect_name(name, &parsed.resource.name)?;
                self.extensions.insert(name, version, parsed);
            }
            ResourceType::NameTable => {
                let parsed = interner.name_tables.intern(&body.value, validate::name_table)?;
                self.name_table.insert(name, version, parsed);
            }
            ResourceType::ProxyConfig => {
                let parsed = interner.proxy_configs.intern(&body.value, validate::proxy_config)?;
                self.proxy_config.insert(name, version, parsed);
            }
        }
        Ok(())
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

    /// Secrets by name.
    pub fn secrets(&self) -> &Store<Secret> {
        &self.secrets
    }

    /// Extension configurations by name.
    pub fn extensions(&self) -> &Store<TypedExtensionConfig> {
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

    /// Whether a delivery of this type has come at all, be it an empty one.
    pub fn was_delivered(&self, resource_type: ResourceType) -> bool {
        self.delivered.contains(&resource_type)
    }

    /// Whether the last delivery of clusters took this one away.
    pub(crate) fn was_just_removed(&self, cluster: &str) -> bool {
        self.clusters_just_removed.contains(cluster)
    }

    pub(crate) fn endpoints_wanted(&self) -> BTreeSet<String> {
        self.clusters
            .iter()
            .filter_map(|(_, stored)| match &stored.resource.discovery {
                ClusterDiscovery::Eds { service_name } => Some(service_name.to_string()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn routes_wanted(&self) -> BTreeSet<String> {
        self.listeners
            .iter()
            .flat_map(|(_, stored)| rds_names(&stored.resource))
            .map(ToString::to_string)
            .collect()
    }
}

fn expect_name(delivered: &str, own: &str) -> Result<(), ResourceError> {
    if delivered == own {
        return Ok(());
    }
    Err(whole(delivered, format!("calls itself {own:?}; the two names must be the same")))
}

fn whole(name: &str, reason: String) -> ResourceError {
    ResourceError {
        name: name.to_owned(),
        fields: vec![FieldError { path: FieldPath::root().field("name"), reason }],
    }
}
