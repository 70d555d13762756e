//! The kinds of resources that a sidecar lives on, and one resource as it arrives.

use std::fmt;

use envoy_types::pb::google::protobuf::Any;
use serde::Serialize;

/// A kind of xDS resource. The order is the order in which configuration depends on itself: a cluster comes
/// before its endpoints, both before the listeners and routes that name them (xDS protocol, "Eventual
/// consistency considerations"); what a resource waits for by itself, secrets and extensions, comes after it,
/// since only it names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    ClusterLoadAssignment,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    RouteConfiguration,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS): filters that listeners take by name.
    ExtensionConfig,
    /// `istio.networking.nds.v1.NameTable` (NDS): one for a workload, without a name.
    NameTable,
    /// `istio.mesh.v1alpha1.ProxyConfig` (PCDS): the roots of trust; one for a workload, without a name.
    ProxyConfig,
}

impl ResourceType {
    /// Every type, in order of dependency.
    pub const ALL: [Self; 8] = [
        Self::Cluster,
        Self::ClusterLoadAssignment,
        Self::Listener,
        Self::RouteConfiguration,
        Self::Secret,
        Self::ExtensionConfig,
        Self::NameTable,
        Self::ProxyConfig,
    ];

    /// The type URL that requests, responses and resources carry.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
            Self::ProxyConfig => "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig",
        }
    }

    /// The type with this URL, if a sidecar lives on it.
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource_type| resource_type.type_url() == type_url)
    }

    /// Whether a workload gets all resources of this type rather than those that it names.
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener) || self.is_singleton()
    }

    /// Whether there is one resource of this type at most, which has no name.
    pub const fn is_singleton(self) -> bool {
        matches!(self, Self::NameTable | Self::ProxyConfig)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::ClusterLoadAssignment => "load assignment",
            Self::Listener => "listener",
            Self::RouteConfiguration => "route configuration",
            Self::Secret => "secret",
            Self::ExtensionConfig => "extension configuration",
            Self::NameTable => "name table",
            Self::ProxyConfig => "proxy configuration",
        })
    }
}

/// One resource as the control plane sent it, not yet validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Unique among the resources of its type; empty for a [singleton](ResourceType::is_singleton).
    pub name: String,
    /// The control plane's version of this resource; istiod leaves it empty for most types.
    pub version: String,
    /// The message, whose type URL is that of the [`ResourceType`].
    pub body: Any,
}
