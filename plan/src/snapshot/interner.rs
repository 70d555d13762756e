//! Equal resources are parsed and kept once, however many workloads have them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use orlop_proto::mesh::ProxyConfig;
use orlop_proto::nds::NameTable;

use crate::resource::cluster::Cluster;
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::listener::Listener;
use crate::resource::route::RouteConfiguration;
use crate::resource::{FieldNote, ResourceError};
use crate::validate::{Validate, Validated, validated};

/// The parsed resources of all workloads of the node, by their bytes. Holds nothing alive by itself.
#[derive(Debug, Default)]
pub struct Interner {
    pub(super) clusters: Pool<Cluster>,
    pub(super) load_assignments: Pool<ClusterLoadAssignment>,
    pub(super) listeners: Pool<Listener>,
    pub(super) routes: Pool<RouteConfiguration>,
    pub(super) secrets: Pool<Secret>,
    pub(super) extensions: Pool<TypedExtensionConfig>,
    pub(super) name_tables: Pool<NameTable>,
    pub(super) proxy_configs: Pool<ProxyConfig>,
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

/// What was accepted with a resource and has no effect yet.
type Notes = Arc<[FieldNote]>;

/// A resource and the bytes that it was parsed from.
#[derive(Debug)]
pub(super) struct Parsed<T> {
    pub(super) resource: Arc<T>,
    pub(super) bytes: Arc<[u8]>,
    pub(super) notes: Notes,
}

#[derive(Debug)]
pub(super) struct Pool<T> {
    by_bytes: HashMap<Arc<[u8]>, (Weak<T>, Notes)>,
    /// The size at which the dead are looked for again.
    sweep_at: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { by_bytes: HashMap::new(), sweep_at: SMALL }
    }
}

const SMALL: usize = 64;

impl<T> Pool<T> {
    /// The resource of these bytes; `validate` is called only where it is not there yet.
    pub(super) fn intern(&mut self, bytes: &[u8], validate: Validate<T>) -> Result<Parsed<T>, ResourceError> {
        if let Some((bytes, (weak, notes))) = self.by_bytes.get_key_value(bytes)
            && let Some(resource) = weak.upgrade()
        {
            return Ok(Parsed { resource, bytes: Arc::clone(bytes), notes: Arc::clone(notes) });
        }
        let Validated { resource, notes } = validated(validate, bytes)?;
        let (resource, notes) = (Arc::new(resource), Notes::from(notes));
        if self.by_bytes.len() >= self.sweep_at {
            self.by_bytes.retain(|_, (weak, _)| weak.strong_count() > 0);
            self.sweep_at = SMALL.max(self.by_bytes.len() * 2);
        }
        let bytes: Arc<[u8]> = bytes.into();
        self.by_bytes.insert(Arc::clone(&bytes), (Arc::downgrade(&resource), Arc::clone(&notes)));
        Ok(Parsed { resource, bytes, notes })
    }

    fn alive(&self) -> usize {
        self.by_bytes.values().filter(|(weak, _)| weak.strong_count() > 0).count()
    }
}
