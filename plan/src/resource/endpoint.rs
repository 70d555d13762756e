//! `endpoint.v3.ClusterLoadAssignment`.

use std::net::SocketAddr;
use std::sync::Arc;

/// Envoy's `overprovisioning_factor` in percent.
pub const DEFAULT_OVERPROVISIONING_FACTOR: u32 = 140;

/// `ClusterLoadAssignment`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ClusterLoadAssignment {
    /// The name that EDS knows it by.
    pub cluster_name: Arc<str>,
    /// In order.
    pub localities: Vec<LocalityLbEndpoints>,
    /// `policy.overprovisioning_factor` in percent; Envoy's default is 140.
    pub overprovisioning_factor: u32,
}

/// `LocalityLbEndpoints`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LocalityLbEndpoints {
    /// Where.
    pub locality: Locality,
    /// `load_balancing_weight`; `None` where not set.
    pub weight: Option<u32>,
    /// 0 is the highest.
    pub priority: u32,
    /// In order.
    pub endpoints: Vec<LbEndpoint>,
}

/// `core.v3.Locality`.
#[derive(Debug, Default, PartialEq, Eq, Hash, Clone)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}

/// `LbEndpoint`.
#[derive(Debug, PartialEq, Eq, Hash, Clone)]
pub struct LbEndpoint {
    /// Where connections go.
    pub address: SocketAddr,
    /// `health_status`.
    pub health: HealthStatus,
    /// `load_balancing_weight`, ≥ 1; Envoy's default is 1.
    pub weight: u32,
    /// What it has in common with its neighbours, as a rule: kept once for those that are alike.
    pub about: Arc<EndpointAbout>,
}

/// What is known of an endpoint besides where it is.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointAbout {
    /// `endpoint.hostname`, for `auto_host_rewrite`; may be empty.
    pub hostname: String,
    /// `metadata["envoy.transport_socket_match"]`, sorted.
    pub transport_socket_match: Vec<(String, String)>,
    /// `metadata["istio"]["workload"]`: `wl;ns;canonical;revision;cluster`; may be empty.
    pub workload: String,
}

impl EndpointAbout {
    /// Whether `transport_socket_matches` finds this pair in it.
    pub fn matches_socket(&self, key: &str, value: &str) -> bool {
        self.transport_socket_match.iter().any(|(k, v)| k == key && v == value)
    }
}

/// `HealthStatus` as Envoy's balancer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HealthStatus {
    /// HEALTHY or UNKNOWN.
    Healthy,
    /// DEGRADED.
    Degraded,
    /// UNHEALTHY, TIMEOUT.
    Unhealthy,
    /// DRAINING: no new requests or connections.
    Draining,
}
