//! The kinds of resource that a workload subscribes to.

use std::fmt;

/// A kind of xDS resource. The order is the one in which a new set is made before the old one is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// CDS
    Cluster,
    /// EDS
    ClusterLoadAssignment,
    /// LDS
    Listener,
    /// RDS
    RouteConfiguration,
}

impl ResourceType {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Cluster, Self::ClusterLoadAssignment, Self::Listener, Self::RouteConfiguration];

    /// The type URL of its `Any`.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind of a type URL.
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
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
