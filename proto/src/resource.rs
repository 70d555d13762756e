//! The four kinds of resources that a sidecar lives on, and one resource as it arrives.

use std::fmt;

use envoy_types::pb::google::protobuf::Any;
use serde::Serialize;

/// A kind of xDS resource. The order is the order in which configuration depends on itself: a cluster comes
/// before its endpoints, both before the listeners and routes that name them (xDS protocol, "Eventual
/// consistency considerations").
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
}

impl ResourceType {
    /// Every type, in order of dependency.
    pub const ALL: [Self; 4] =
        [Self::Cluster, Self::ClusterLoadAssignment, Self::Listener, Self::RouteConfiguration];

    /// The type URL that requests, responses and resources carry.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type with this URL, if it is one of the four.
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource_type| resource_type.type_url() == type_url)
    }

    /// Whether a workload gets all resources of this type rather than those that it names.
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::ClusterLoadAssignment => "load assignment",
            Self::Listener => "listener",
            Self::RouteConfiguration => "route configuration",
        })
    }
}

/// One resource as the control plane sent it, not yet validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Unique among the resources of its type.
    pub name: String,
    /// The control plane's version of this resource; istiod leaves it empty for most types.
    pub version: String,
    /// The message, whose type URL is that of the [`ResourceType`].
    pub body: Any,
}
