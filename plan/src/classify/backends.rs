//! The endpoints of a cluster as what the kernel chooses among: Envoy's priorities, panic, localities and weights, worked
//! out into groups with a share each, and the policy within a group.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::balance::{Availability, Health, PriorityLoad, effective_weight};
use crate::kernel::{Backend, BackendSet, Choice, ConnectionLimit, Group, MAX_CHOICES};
use crate::resource::FieldPath;
use crate::resource::cluster::{Cluster, LbPolicy};
use crate::resource::endpoint::{
    ClusterLoadAssignment, Family, HealthStatus, LbEndpoint, LocalityLbEndpoints,
};

/// Why the kernel cannot choose.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotByKernel {
    /// Nothing to choose from.
    NoEndpoint,
    /// Only the proxy chooses as Envoy does.
    Proxy(FieldPath, &'static str),
}

/// To whom TLS is owed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TlsOwed {
    Nobody,
    /// Whatever is known of them, or because of what this one and all others say of themselves.
    Everybody(Option<FieldPath>),
    /// This one among others.
    Some(FieldPath, SocketAddr),
}

/// Endpoints that a share of the connections goes to.
struct Part<'a> {
    /// As a fraction, with a scale that is the same for all parts.
    share: (u128, u128),
    endpoints: Vec<(FieldPath, &'a LbEndpoint)>,
}

/// To which endpoints in use the cluster's transport socket owes TLS.
pub(super) fn tls_owed(cluster: &Cluster, assignment: &ClusterLoadAssignment) -> TlsOwed {
    if cluster.transport_socket.is_always_tls() {
        return TlsOwed::Everybody(None);
    }
    let expects = |endpoint: &LbEndpoint| cluster.transport_socket.context(&endpoint.about).is_some();
    let parts = parts(cluster, assignment);
    let in_use = || parts.iter().flat_map(|part| &part.endpoints);
    let Some((path, first)) = in_use().find(|(_, endpoint)| expects(endpoint)) else {
        return TlsOwed::Nobody;
    };
    let field = path.field("metadata");
    if in_use().all(|(_, endpoint)| expects(endpoint)) {
        TlsOwed::Everybody(Some(field))
    } else {
        TlsOwed::Some(field, first.address)
    }
}

/// The backends, or why the kernel would choose otherwise than Envoy. `limited` is whether `max_connections` counts.
pub(super) fn backends(
    cluster: &Cluster,
    assignment: &ClusterLoadAssignment,
    limited: bool,
) -> Result<BackendSet, NotByKernel> {
    let parts = parts(cluster, assignment);
    if parts.iter().all(|part| part.endpoints.is_empty()) {
        return Err(NotByKernel::NoEndpoint);
    }
    let at = |field: &str| FieldPath::root().field(field);
    if parts.iter().any(|part| part.endpoints.is_empty()) {
        let what = "has no endpoint for a share of its connections";
        return Err(NotByKernel::Proxy(at("endpoints"), what));
    }
    let inexact = || NotByKernel::Proxy(at("endpoints"), "has weights that cannot be multiplied out exactly");
    let (choice, weights) = match cluster.lb_policy {
        LbPolicy::LeastRequest { choice_count } if choice_count > 1 => {
            let choices = u8::try_from(choice_count).ok().filter(|choices| *choices <= MAX_CHOICES);
            let choices = choices.ok_or_else(|| {
                let field = at("least_request_lb_config").field("choice_count");
                NotByKernel::Proxy(field, "compares more endpoints than the kernel does")
            })?;
            let shares = to_integers(parts.iter().map(|part| Some(part.share))).ok_or_else(inexact)?;
            let group = |(part, share): (&Part<'_>, u64)| Group { share, backends: part.endpoints.len() };
            let groups = parts.iter().zip(shares).map(group).collect();
            let own = parts.iter().flat_map(|part| &part.endpoints);
            let own = own.map(|(_, endpoint)| u64::from(endpoint.weight)).collect();
            (Choice::LeastConnections { choices, groups }, own)
        }
        _ => {
            let fractions = parts.iter().flat_map(|part| {
                let own = |endpoint: &LbEndpoint| u128::from(own_weight(cluster, endpoint));
                let sum: u128 = part.endpoints.iter().map(|(_, endpoint)| own(endpoint)).sum();
                part.endpoints.iter().map(move |(_, endpoint)| {
                    let (share, scale) = part.share;
                    Some((share.checked_mul(own(endpoint))?, scale.checked_mul(sum)?))
                })
            });
            (Choice::Weighted, to_integers(fractions).ok_or_else(inexact)?)
        }
    };
    let connections = cluster.circuit_breakers.max_connections;
    let limit = (limited && connections != u32::MAX)
        .then(|| ConnectionLimit { cluster: cluster.name.clone(), connections });
    let of = |family| -> Option<BackendSet> {
        let in_use = parts.iter().flat_map(|part| &part.endpoints).zip(&weights);
        let backend = |((_, endpoint), weight): (&(_, &LbEndpoint), &u64)| {
            Some(Backend { address: endpoint.address_of(family)?, weight: *weight })
        };
        let backends: Vec<_> = in_use.map(backend).collect::<Option<_>>()?;
        let rests = |address: &SocketAddr| backends.iter().all(|backend| backend.address != *address);
        let all = assignment.localities.iter().flat_map(|locality| &locality.endpoints);
        let resting = all.filter_map(|endpoint| endpoint.address_of(family)).filter(rests).collect();
        let (choice, limit) = (choice.clone(), limit.clone());
        Some(BackendSet { backends, choice, limit, resting, other_family: None })
    };
    let first = parts.iter().flat_map(|part| &part.endpoints).next();
    let family = first.map_or(Family::V4, |(_, endpoint)| Family::of(endpoint.address.ip()));
    let other_family = of(family.other());
    match (of(family), other_family) {
        (Some(set), other) => Ok(BackendSet { other_family: other.map(Arc::new), ..set }),
        (None, Some(other)) => Ok(other),
        (None, None) => {
            let what = "has endpoints of IPv4 alone beside ones of IPv6 alone";
            Err(NotByKernel::Proxy(at("endpoints"), what))
        }
    }
}

/// What Envoy's balancer goes by, from priorities to localities.
fn parts<'a>(cluster: &Cluster, assignment: &'a ClusterLoadAssignment) -> Vec<Part<'a>> {
    let mut priorities: BTreeMap<u32, Vec<(FieldPath, &LocalityLbEndpoints)>> = BTreeMap::new();
    for (i, locality) in assignment.localities.iter().enumerate() {
        let path = FieldPath::root().field("endpoints").index(i);
        priorities.entry(locality.priority).or_default().push((path, locality));
    }
    let priorities: Vec<_> = priorities.into_values().collect();
    let availability: Vec<_> = priorities
        .iter()
        .map(|localities| {
            let count = |health| -> usize {
                localities.iter().map(|(path, locality)| members(path, locality, health).count()).sum()
            };
            Availability {
                healthy: count(Health::Healthy),
                degraded: count(Health::Degraded),
                total: count(Health::Panic),
            }
        })
        .collect();
    let factor = assignment.overprovisioning_factor;
    let load = PriorityLoad::new(&availability, factor, cluster.healthy_panic_threshold);
    let mut parts = Vec::new();
    for (percent, target) in load.shares() {
        let Some(localities) = priorities.get(target.priority) else { continue };
        let of = |(path, locality): &(FieldPath, &'a LocalityLbEndpoints)| {
            members(path, locality, target.health).collect::<Vec<_>>()
        };
        let percent = u128::from(*percent);
        if !cluster.locality_weighted {
            parts.push(Part { share: (percent, 1), endpoints: localities.iter().flat_map(of).collect() });
            continue;
        }
        let weighted: Vec<_> = localities
            .iter()
            .map(|one| {
                let (endpoints, total) = (of(one), members(&one.0, one.1, Health::Panic).count());
                (effective_weight(one.1.weight, endpoints.len(), total, factor), endpoints)
            })
            .filter(|(weight, _)| *weight > 0)
            .collect();
        let sum: u128 = weighted.iter().map(|(weight, _)| u128::from(*weight)).sum();
        if weighted.is_empty() {
            parts.push(Part { share: (percent, 1), endpoints: Vec::new() });
        }
        parts.extend(weighted.into_iter().map(|(weight, endpoints)| Part {
            share: (percent.saturating_mul(weight.into()), sum),
            endpoints,
        }));
    }
    parts
}

/// A locality's endpoints of a state of health; draining ones are of none.
fn members<'a>(
    path: &FieldPath,
    locality: &'a LocalityLbEndpoints,
    health: Health,
) -> impl Iterator<Item = (FieldPath, &'a LbEndpoint)> {
    let is_meant = move |endpoint: &LbEndpoint| match health {
        Health::Healthy => endpoint.health == HealthStatus::Healthy,
        Health::Degraded => endpoint.health == HealthStatus::Degraded,
        Health::Panic => endpoint.health != HealthStatus::Draining,
    };
    let path = path.field("lb_endpoints");
    let endpoints = locality.endpoints.iter().enumerate();
    endpoints
        .filter(move |(_, endpoint)| is_meant(endpoint))
        .map(move |(j, endpoint)| (path.index(j), endpoint))
}

/// `RANDOM` takes no notice of endpoint weights.
fn own_weight(cluster: &Cluster, endpoint: &LbEndpoint) -> u32 {
    if cluster.lb_policy == LbPolicy::Random { 1 } else { endpoint.weight }
}

/// Fractions over one denominator, in the smallest integers. `None` where they do not fit.
fn to_integers(fractions: impl Iterator<Item = Option<(u128, u128)>>) -> Option<Vec<u64>> {
    let fractions: Vec<_> = fractions.collect::<Option<_>>()?;
    let denominator = fractions
        .iter()
        .try_fold(1_u128, |lcm, (_, scale)| lcm.checked_mul(scale.checked_div(gcd(lcm, *scale))?))?;
    let scaled: Vec<_> = fractions
        .iter()
        .map(|(share, scale)| share.checked_mul(denominator.checked_div(*scale)?))
        .collect::<Option<_>>()?;
    let common = scaled.iter().fold(0, |common, share| gcd(common, *share));
    scaled.into_iter().map(|share| u64::try_from(share.checked_div(common)?).ok()).collect()
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}
