//! What became different in a snapshot, for `compile` to look at.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ResourceType, Snapshot};
use crate::resource::tls::SecretSource;

/// Names of resources whose content, presence or refusal is not what it was. Those of several deliveries may be merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub(crate) clusters: BTreeSet<Arc<str>>,
    pub(crate) load_assignments: BTreeSet<Arc<str>>,
    pub(crate) listeners: BTreeSet<Arc<str>>,
    pub(crate) routes: BTreeSet<Arc<str>>,
    pub(crate) secrets: BTreeSet<SecretSource>,
    /// Clusters came, be it none: those that were only kept for a while go.
    pub(crate) clusters_came: bool,
    /// A kind was delivered for the first time.
    pub(crate) first_delivery: bool,
}

impl Changes {
    /// Everything that a snapshot has, for plans that start from nothing.
    pub fn all(snapshot: &Snapshot) -> Self {
        let refused = |kind| {
            let refused = snapshot.rejections().keys().filter(move |(refused, _)| *refused == kind);
            refused.map(|(_, name)| Arc::from(name.as_str()))
        };
        let names = |names: &mut dyn Iterator<Item = &Arc<str>>| names.cloned().collect::<Vec<_>>();
        let clusters = names(&mut snapshot.clusters().iter().map(|(name, _)| name));
        let load_assignments = names(&mut snapshot.load_assignments().iter().map(|(name, _)| name));
        let listeners = names(&mut snapshot.listeners().iter().map(|(name, _)| name));
        let routes = names(&mut snapshot.routes().iter().map(|(name, _)| name));
        Self {
            clusters: clusters.into_iter().chain(refused(ResourceType::Cluster)).collect(),
            load_assignments: load_assignments
                .into_iter()
                .chain(refused(ResourceType::ClusterLoadAssignment))
                .collect(),
            listeners: listeners.into_iter().chain(refused(ResourceType::Listener)).collect(),
            routes: routes.into_iter().chain(refused(ResourceType::RouteConfiguration)).collect(),
            secrets: snapshot.secret_sources().collect(),
            clusters_came: true,
            first_delivery: true,
        }
    }

    /// Adds what another delivery changed.
    pub fn merge(&mut self, other: Self) {
        let Self { clusters, load_assignments, listeners, routes, secrets, clusters_came, first_delivery } =
            other;
        self.clusters.extend(clusters);
        self.load_assignments.extend(load_assignments);
        self.listeners.extend(listeners);
        self.routes.extend(routes);
        self.secrets.extend(secrets);
        self.clusters_came |= clusters_came;
        self.first_delivery |= first_delivery;
    }

    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes resources of a kind that the control plane sends.
    pub(super) fn add(&mut self, kind: ResourceType, names: impl IntoIterator<Item = Arc<str>>) {
        match kind {
            ResourceType::Cluster => self.clusters.extend(names),
            ResourceType::ClusterLoadAssignment => self.load_assignments.extend(names),
            ResourceType::Listener => self.listeners.extend(names),
            ResourceType::RouteConfiguration => self.routes.extend(names),
            ResourceType::Secret => self.secrets.extend(names.into_iter().map(SecretSource::ControlPlane)),
            // Nothing is compiled from them.
            ResourceType::ExtensionConfig | ResourceType::NameTable | ResourceType::ProxyConfig => {}
        }
    }
}
