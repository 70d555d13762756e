//! What the workloads of a node have in common is parsed and kept once: equal resources, and equal parts of tables.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use hashbrown::HashTable;
use orlop_shared_map as shared_map;

use super::kind::Kind;
use super::packed::Packed;
use super::store::Stored;
use crate::compile::Pools;
use crate::resource::ResourceError;
use crate::resource::cluster::Cluster;
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::extension_config::ExtensionConfig;
use crate::resource::listener::Listener;
use crate::resource::mesh::ProxyConfig;
use crate::resource::name_table::NameTable;
use crate::resource::route::RouteConfiguration;
use crate::resource::secret::Secret;
use crate::validate::{Validated, validated};

/// What all workloads of the node have in common. Holds nothing alive by itself.
#[derive(Debug, Default)]
pub struct Interner {
    pub(super) clusters: Pool<Cluster>,
    pub(super) load_assignments: Pool<ClusterLoadAssignment>,
    pub(super) listeners: Pool<Listener>,
    pub(super) routes: Pool<RouteConfiguration>,
    pub(super) secrets: Pool<Secret>,
    pub(super) extensions: Pool<ExtensionConfig>,
    pub(super) name_tables: Pool<NameTable>,
    pub(super) proxy_configs: Pool<ProxyConfig>,
    pub(crate) plans: Pools,
}

impl Interner {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many distinct resources are alive.
    pub fn len(&self) -> usize {
        self.clusters.alive()
            + self.load_assignments.alive()
            + self.listeners.alive()
            + self.routes.alive()
            + self.secrets.alive()
            + self.extensions.alive()
            + self.name_tables.alive()
            + self.proxy_configs.alive()
    }

    /// Whether no resource is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Resources of one kind, found by their bytes.
#[derive(Debug)]
pub(super) struct Pool<T> {
    hasher: RandomState,
    by_bytes: HashTable<(u64, Weak<Stored<T>>)>,
    /// The size at which the dead are looked for again.
    sweep_at: usize,
    /// The last new version: a push has one for all that it brings.
    version: Arc<str>,
    pub(super) nodes: shared_map::Pool<Arc<str>, Arc<Stored<T>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            by_bytes: HashTable::new(),
            sweep_at: SMALL,
            version: Arc::default(),
            nodes: shared_map::Pool::new(),
        }
    }
}

const SMALL: usize = 64;

/// A resource, and whether it had to be validated.
pub(super) struct Interned<T> {
    pub(super) stored: Arc<Stored<T>>,
    pub(super) validated: bool,
}

impl<T: Kind> Pool<T> {
    /// The resource of these bytes, which is validated only where it is not there yet. `at` is when it came.
    pub(super) fn intern(
        &mut self,
        bytes: &[u8],
        version: &str,
        at: SystemTime,
    ) -> Result<Interned<T>, ResourceError> {
        let hash = self.hasher.hash_one(bytes);
        let mut other_version = None;
        for (_, weak) in self.by_bytes.iter_hash(hash) {
            let Some(stored) = weak.upgrade().filter(|stored| stored.bytes.holds(bytes)) else {
                continue;
            };
            if *stored.version == *version {
                return Ok(Interned { stored, validated: false });
            }
            other_version = Some(stored);
        }
        let is_new = other_version.is_none();
        let (name, resource, bytes, notes, refused_routes) = if let Some(other) = other_version {
            let (name, resource) = (Arc::clone(&other.name), Arc::clone(&other.resource));
            let refused_routes = Arc::clone(&other.refused_routes);
            (name, resource, other.bytes.clone(), Arc::clone(&other.notes), refused_routes)
        } else {
            let Validated { resource, notes, refused_routes } = validated(T::VALIDATE, bytes)?;
            let bytes = Packed::new(&T::kept(bytes));
            (resource.name(), Arc::new(resource), bytes, shared(notes), shared(refused_routes))
        };
        if self.by_bytes.len() >= self.sweep_at {
            self.by_bytes.retain(|(_, weak)| weak.strong_count() > 0);
            self.sweep_at = SMALL.max(self.by_bytes.len() * 2);
        }
        if *self.version != *version {
            self.version = version.into();
        }
        let version = Arc::clone(&self.version);
        let stored =
            Arc::new(Stored { name, resource, bytes, version, last_updated: at, notes, refused_routes });
        self.by_bytes.insert_unique(hash, (hash, Arc::downgrade(&stored)), |(hash, _)| *hash);
        Ok(Interned { stored, validated: is_new })
    }

    fn alive(&self) -> usize {
        self.by_bytes.iter().filter(|(_, weak)| weak.strong_count() > 0).count()
    }
}

/// Hardly ever anything, which then takes no room.
fn shared<T>(list: Vec<T>) -> Arc<[T]> {
    if list.is_empty() { Arc::default() } else { list.into() }
}
