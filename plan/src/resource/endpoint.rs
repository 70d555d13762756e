//! `endpoint.v3.ClusterLoadAssignment`.

use std::net::{IpAddr, SocketAddr};
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
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAbout {
    /// `endpoint.hostname`, for `auto_host_rewrite`; may be empty.
    pub hostname: String,
    /// `metadata["envoy.transport_socket_match"]`, sorted.
    pub transport_socket_match: Vec<(String, String)>,
    /// `metadata["istio"]["workload"]`: `wl;ns;canonical;revision;cluster`; may be empty.
    pub workload: String,
    /// `endpoint.additional_addresses`: further ones of the same host, as a rule of the other family.
    pub additional_addresses: Vec<SocketAddr>,
}

impl LbEndpoint {
    /// All its addresses, in the order in which they are to be tried.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(self.address).chain(self.about.additional_addresses.iter().copied())
    }

    /// The first of a family.
    pub fn address_of(&self, family: Family) -> Option<SocketAddr> {
        self.addresses().find(|address| Family::of(address.ip()) == family)
    }
}

/// Of addresses; IPv4-mapped ones are IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The address's.
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
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
