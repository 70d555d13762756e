//! The endpoints of a cluster as weighted backends, where Envoy's choice among them can be told by weights alone.

use std::net::SocketAddr;

use crate::kernel::{Backend, BackendSet};
use crate::resource::FieldPath;
use crate::resource::cluster::{Cluster, LbPolicy, UpstreamTransportSocket};
use crate::resource::endpoint::{ClusterLoadAssignment, HealthStatus, LbEndpoint, LocalityLbEndpoints};

/// What stands in the way of weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotByWeight {
    /// Nothing to choose from.
    NoEndpoint,
    /// Only the proxy chooses as Envoy does.
    Proxy(FieldPath, &'static str),
}

/// To whom TLS is owed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TlsOwed {
    Nobody,
    Everybody,
    /// This one among others.
    Some(FieldPath, SocketAddr),
}

/// The endpoints that may be sent to.
fn usable(assignment: &ClusterLoadAssignment) -> impl Iterator<Item = (FieldPath, &LbEndpoint)> {
    assignment.localities.iter().enumerate().flat_map(|(i, locality)| {
        locality.endpoints.iter().enumerate().filter_map(move |(j, endpoint)| {
            let path = || FieldPath::root().field("endpoints").index(i).field("lb_endpoints").index(j);
            matches!(endpoint.health, HealthStatus::Healthy | HealthStatus::Degraded)
                .then(|| (path(), endpoint))
        })
    })
}

/// To which usable endpoints the cluster's transport socket owes TLS.
pub(super) fn tls_owed(cluster: &Cluster, assignment: &ClusterLoadAssignment) -> TlsOwed {
    let (key, value) = match &cluster.transport_socket {
        UpstreamTransportSocket::RawBuffer => return TlsOwed::Nobody,
        UpstreamTransportSocket::Tls => return TlsOwed::Everybody,
        UpstreamTransportSocket::TlsForEndpointsWith { key, value } => (key, value),
    };
    let expects = |endpoint: &LbEndpoint| endpoint.about.matches_socket(key, value);
    let Some((path, first)) = usable(assignment).find(|(_, endpoint)| expects(endpoint)) else {
        return TlsOwed::Nobody;
    };
    if usable(assignment).all(|(_, endpoint)| expects(endpoint)) {
        TlsOwed::Everybody
    } else {
        TlsOwed::Some(path.field("metadata"), first.address)
    }
}

/// The backends, or why weights would not tell Envoy's choice.
pub(super) fn backends(
    cluster: &Cluster,
    assignment: &ClusterLoadAssignment,
) -> Result<BackendSet, NotByWeight> {
    if usable(assignment).next().is_none() {
        return Err(NotByWeight::NoEndpoint);
    }
    let localities: Vec<_> = assignment
        .localities
        .iter()
        .enumerate()
        .filter(|(_, locality)| !locality.endpoints.is_empty())
        .map(|(i, locality)| (FieldPath::root().field("endpoints").index(i), locality))
        .collect();
    for (path, locality) in &localities {
        if locality.priority != 0 {
            return Err(NotByWeight::Proxy(path.field("priority"), "has endpoints of several priorities"));
        }
        let sick = |health| locality.endpoints.iter().position(|endpoint| endpoint.health == health);
        if let Some(j) = sick(HealthStatus::Degraded) {
            let field = path.field("lb_endpoints").index(j).field("health_status");
            return Err(NotByWeight::Proxy(field, "has a degraded endpoint"));
        }
        let unfit = sick(HealthStatus::Unhealthy).or_else(|| sick(HealthStatus::Draining));
        if let Some(j) = unfit
            && (cluster.healthy_panic_threshold > 0 || cluster.locality_weighted)
        {
            let field = path.field("lb_endpoints").index(j).field("health_status");
            let what = "has an unfit endpoint, and panic threshold or locality weights depend on how many";
            return Err(NotByWeight::Proxy(field, what));
        }
    }
    let backends = if cluster.locality_weighted {
        by_locality(cluster, &localities).ok_or_else(|| {
            let field = FieldPath::root().field("endpoints");
            NotByWeight::Proxy(field, "has locality weights that cannot be multiplied out exactly")
        })?
    } else {
        let healthy = localities.iter().flat_map(|(_, locality)| healthy(locality));
        healthy
            .map(|endpoint| Backend {
                address: endpoint.address,
                weight: own_weight(cluster, endpoint).into(),
            })
            .collect()
    };
    if backends.is_empty() { Err(NotByWeight::NoEndpoint) } else { Ok(BackendSet::weighted(backends)) }
}

fn healthy(locality: &LocalityLbEndpoints) -> impl Iterator<Item = &LbEndpoint> {
    locality.endpoints.iter().filter(|endpoint| endpoint.health == HealthStatus::Healthy)
}

/// `RANDOM` takes no notice of endpoint weights.
fn own_weight(cluster: &Cluster, endpoint: &LbEndpoint) -> u32 {
    if cluster.lb_policy == LbPolicy::Random { 1 } else { endpoint.weight }
}

/// A locality's weight shared out among its endpoints, over one denominator for all. A locality without weight gets
/// nothing, as in Envoy. `None` where the weights would not fit.
fn by_locality(cluster: &Cluster, localities: &[(FieldPath, &LocalityLbEndpoints)]) -> Option<Vec<Backend>> {
    let sum = |locality: &LocalityLbEndpoints| {
        healthy(locality).map(|endpoint| u64::from(own_weight(cluster, endpoint))).sum::<u64>()
    };
    let weighted: Vec<_> = localities
        .iter()
        .filter_map(|(_, locality)| Some((u64::from(locality.weight?), *locality)))
        .filter(|(weight, _)| *weight > 0)
        .collect();
    let denominator = weighted
        .iter()
        .map(|(_, locality)| sum(locality))
        .try_fold(1_u64, |lcm, sum| lcm.checked_mul(sum.checked_div(gcd(lcm, sum))?))?;
    let mut shares = Vec::new();
    for (weight, locality) in weighted {
        let factor = weight.checked_mul(denominator.checked_div(sum(locality))?)?;
        for endpoint in healthy(locality) {
            shares.push((endpoint.address, factor.checked_mul(u64::from(own_weight(cluster, endpoint)))?));
        }
    }
    let common = shares.iter().fold(0, |common, (_, share)| gcd(common, *share));
    shares
        .into_iter()
        .map(|(address, share)| Some(Backend { address, weight: share.checked_div(common)? }))
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
