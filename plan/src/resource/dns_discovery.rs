//! `STRICT_DNS` and `LOGICAL_DNS`: endpoints that have names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::endpoint::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};

/// The names of a cluster's endpoints, and how often they are asked for.
#[derive(Debug)]
pub struct DnsDiscovery {
    /// `LOGICAL_DNS`: of one name, the first address. Otherwise each address of each name is an endpoint.
    pub logical: bool,
    /// Of the endpoints in order; an IP address is a name too.
    pub names: Vec<String>,
    /// The endpoints with their ports; their addresses mean nothing.
    pub endpoints: ClusterLoadAssignment,
    /// `dns_lookup_family`
    pub family: DnsLookupFamily,
    /// `dns_refresh_rate`; Envoy's default is 5 s.
    pub refresh_rate: Duration,
    /// `respect_dns_ttl`: the answers say when to ask again, and not `refresh_rate`.
    pub respect_ttl: bool,
    /// `dns_jitter`: up to so much later.
    pub jitter: Duration,
    /// `dns_failure_refresh_rate`: at first, and at most; Envoy's default is `refresh_rate`.
    pub failure_refresh_rate: (Duration, Duration),
}

/// `Cluster.DnsLookupFamily`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsLookupFamily {
    /// `AUTO`: IPv4 where there is no IPv6.
    Auto,
    /// `V4_ONLY`
    V4Only,
    /// `V6_ONLY`
    V6Only,
    /// `V4_PREFERRED`: IPv6 where there is no IPv4.
    V4Preferred,
    /// `ALL`
    All,
}

impl DnsDiscovery {
    /// The endpoints, as far as their names have `addresses`.
    pub fn resolved(&self, addresses: &BTreeMap<String, Vec<IpAddr>>) -> ClusterLoadAssignment {
        let ClusterLoadAssignment { cluster_name, localities, overprovisioning_factor } = &self.endpoints;
        let most = if self.logical { 1 } else { usize::MAX };
        let mut names = self.names.iter();
        let mut of_endpoint = |endpoint: &LbEndpoint| -> Vec<LbEndpoint> {
            let known = names.next().and_then(|name| addresses.get(name)).map(Vec::as_slice);
            let known = known.unwrap_or_default().iter().take(most);
            let at = |ip: &IpAddr| SocketAddr::new(*ip, endpoint.address.port());
            known.map(|ip| LbEndpoint { address: at(ip), ..endpoint.clone() }).collect()
        };
        let localities = localities
            .iter()
            .map(|of| LocalityLbEndpoints {
                locality: of.locality.clone(),
                weight: of.weight,
                priority: of.priority,
                endpoints: of.endpoints.iter().flat_map(&mut of_endpoint).collect(),
            })
            .collect();
        ClusterLoadAssignment {
            cluster_name: cluster_name.clone(),
            localities,
            overprovisioning_factor: *overprovisioning_factor,
        }
    }
}
