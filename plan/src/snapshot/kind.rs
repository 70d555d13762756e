//! What the kinds of resources have in common, so that they are stored in one way.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use orlop_proto::mesh::ProxyConfig;

use super::RefusedListener;
use crate::resource::cluster::Cluster;
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::listener::Listener;
use crate::resource::name_table::NameTable;
use crate::resource::route::RouteConfiguration;
use crate::validate::{self, Validate};

/// A kind of resource.
pub(super) trait Kind: Sized {
    /// From protobuf.
    const VALIDATE: Validate<Self>;

    /// What it calls itself.
    fn name(&self) -> Arc<str>;

    /// What is known of a listener that does not validate.
    fn refused_listener(_bytes: &[u8]) -> Option<RefusedListener> {
        None
    }
}

impl Kind for Cluster {
    const VALIDATE: Validate<Self> = validate::cluster;

    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

impl Kind for ClusterLoadAssignment {
    const VALIDATE: Validate<Self> = validate::load_assignment;

    fn name(&self) -> Arc<str> {
        Arc::clone(&self.cluster_name)
    }
}

impl Kind for Listener {
    const VALIDATE: Validate<Self> = validate::listener;

    fn name(&self) -> Arc<str> {
        self.name.as_str().into()
    }

    fn refused_listener(bytes: &[u8]) -> Option<RefusedListener> {
        validate::refused_listener(bytes)
    }
}

impl Kind for RouteConfiguration {
    const VALIDATE: Validate<Self> = validate::route_configuration;

    fn name(&self) -> Arc<str> {
        self.name.as_str().into()
    }
}

impl Kind for Secret {
    const VALIDATE: Validate<Self> = validate::secret;

    fn name(&self) -> Arc<str> {
        self.name.as_str().into()
    }
}

impl Kind for TypedExtensionConfig {
    const VALIDATE: Validate<Self> = validate::extension_config;

    fn name(&self) -> Arc<str> {
        self.name.as_str().into()
    }
}

impl Kind for NameTable {
    const VALIDATE: Validate<Self> = validate::name_table;

    /// The only one.
    fn name(&self) -> Arc<str> {
        "".into()
    }
}

impl Kind for ProxyConfig {
    const VALIDATE: Validate<Self> = validate::proxy_config;

    /// The only one.
    fn name(&self) -> Arc<str> {
        "".into()
    }
}
