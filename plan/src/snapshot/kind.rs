//! What the kinds of resources have in common, so that they are stored in one way.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use super::RefusedListener;
use crate::resource::cluster::Cluster;
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::extension_config::ExtensionConfig;
use crate::resource::listener::Listener;
use crate::resource::mesh::ProxyConfig;
use crate::resource::name_table::NameTable;
use crate::resource::route::RouteConfiguration;
use crate::resource::secret::Secret;
use crate::validate::{self, Validate};

/// A kind of resource.
pub(super) trait Kind: Sized {
    /// From protobuf.
    const VALIDATE: Validate<Self>;

    /// What it calls itself.
    fn name(&self) -> Arc<str>;

    /// The bytes that are kept, to be printed and to find an equal resource by.
    fn kept(bytes: &[u8]) -> Cow<'_, [u8]> {
        Cow::Borrowed(bytes)
    }

    /// A listener's, of which no two have the same.
    fn addresses(&self) -> &[SocketAddr] {
        &[]
    }

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

    fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
        Arc::clone(&self.name)
    }

    /// Nothing secret is kept but in the resource itself.
    fn kept(bytes: &[u8]) -> Cow<'_, [u8]> {
        Cow::Owned(validate::without_secrets(bytes))
    }
}

impl Kind for ExtensionConfig {
    const VALIDATE: Validate<Self> = validate::extension_config;

    fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
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
