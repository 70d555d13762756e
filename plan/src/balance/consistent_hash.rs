//! Balancing by a consistent hash: which host a hash belongs to, in a ring or in Maglev's table, as in Envoy's
//! `ThreadAwareLoadBalancerBase`, `RingHashLoadBalancer` and `MaglevLoadBalancer`. The keys and the hash are Envoy's own, so
//! that Envoys and this proxy send the same client to the same host.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use twox_hash::XxHash64;

use super::{Availability, BalancerConfig, Health, PriorityLoad};
use crate::resource::cluster::LbPolicy;
use crate::resource::endpoint::{ClusterLoadAssignment, HealthStatus};

/// Envoy's `HashUtil::xxHash64`.
pub fn xx_hash(seed: u64, bytes: &[u8]) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

/// A host as far as its share of the hashes depends on it.
#[derive(Debug, Clone, Copy)]
pub struct HashedHost {
    /// What its hashes are made of.
    pub address: SocketAddr,
    /// `load_balancing_weight`, ≥ 1.
    pub weight: u32,
    /// Whether it is used.
    pub health: HealthStatus,
    /// 0 is the highest.
    pub priority: u32,
    /// Position and `load_balancing_weight` of its locality.
    pub locality: (usize, Option<u32>),
}

/// Where every hash leads, for one state of the hosts. Large, and made once for all who have the same hosts.
#[derive(Debug)]
pub struct HashTables {
    load: PriorityLoad,
    /// By position among the priorities.
    tables: Vec<Table>,
}

/// Positions in the list of hosts.
#[derive(Debug)]
enum Table {
    /// By ascending hash.
    Ring(Vec<(u64, u32)>),
    Maglev(Vec<u32>),
}

/// A host's position and its share of all hashes.
type Share = (u32, f64);

impl HashTables {
    /// The tables of a cluster whose hosts these are; a position is one among them. Of a cluster that does not balance by
    /// hash they are empty.
    pub fn new(config: BalancerConfig, hosts: &[HashedHost]) -> Self {
        let mut priorities: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (position, host) in (0_u32..).zip(hosts).filter(|(_, host)| host.health != HealthStatus::Draining)
        {
            priorities.entry(host.priority).or_default().push(position);
        }
        let of = |position: &u32| hosts.get(*position as usize);
        let count = |positions: &[u32], health| {
            positions.iter().filter(|position| of(position).is_some_and(|host| host.health == health)).count()
        };
        let availability: Vec<_> = priorities
            .values()
            .map(|positions| Availability {
                healthy: count(positions, HealthStatus::Healthy),
                degraded: count(positions, HealthStatus::Degraded),
                total: positions.len(),
            })
            .collect();
        let load = PriorityLoad::new(&availability, config.overprovisioning_factor, config.panic_threshold);
        let table = |(priority, positions): (usize, Vec<u32>)| {
            let mut shares = load.shares().iter().map(|(_, share)| share);
            let panics = shares.any(|share| share.priority == priority && share.health == Health::Panic);
            let is_used = |host: &HashedHost| panics || host.health == HealthStatus::Healthy;
            let used = positions.into_iter().filter_map(|position| {
                Some((position, hosts.get(position as usize).filter(|host| is_used(host))?))
            });
            Table::new(config.policy, &normalized(used, config.locality_weighted), hosts)
        };
        let tables = priorities.into_values().enumerate().map(table).collect();
        Self { load, tables }
    }

    /// The host that a hash belongs to; `attempt` is how often another one was asked for already. `None` where no host may
    /// be used (`UH`).
    pub fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let ticket = u32::try_from(hash % 100).unwrap_or_default();
        let share = self.load.choose(ticket)?;
        let position = self.tables.get(share.priority)?.choose(hash, attempt)?;
        usize::try_from(position).ok()
    }
}

impl ClusterLoadAssignment {
    /// Its endpoints in order, for [`HashTables`].
    pub fn hashed_hosts(&self) -> Vec<HashedHost> {
        let hosts = self.localities.iter().enumerate().flat_map(|(position, locality)| {
            locality.endpoints.iter().map(move |endpoint| HashedHost {
                address: endpoint.address,
                weight: endpoint.weight,
                health: endpoint.health,
                priority: locality.priority,
                locality: (position, locality.weight),
            })
        });
        hosts.collect()
    }
}

/// The hosts' shares, which add up to 1. Where localities are weighted, one without a weight gets nothing; unlike other
/// policies, Envoy's hashing takes no notice of how many of a locality's hosts are well.
fn normalized<'a>(used: impl Iterator<Item = (u32, &'a HashedHost)>, locality_weighted: bool) -> Vec<Share> {
    let mut localities: BTreeMap<usize, (u32, Vec<(u32, u32)>)> = BTreeMap::new();
    for (position, host) in used {
        let (locality, weight) =
            if locality_weighted { (host.locality.0, host.locality.1.unwrap_or(0)) } else { (0, 1) };
        localities.entry(locality).or_insert((weight, Vec::new())).1.push((position, host.weight));
    }
    let total: f64 = localities.values().map(|(weight, _)| f64::from(*weight)).sum();
    let mut shares = Vec::new();
    for (weight, hosts) in localities.into_values().filter(|(weight, _)| *weight > 0) {
        let of_locality = f64::from(weight) / total;
        let sum: f64 = hosts.iter().map(|(_, weight)| f64::from(*weight)).sum();
        shares.extend(hosts.into_iter().map(|(at, weight)| (at, f64::from(weight) * of_locality / sum)));
    }
    shares
}

impl Table {
    fn new(policy: LbPolicy, shares: &[Share], hosts: &[HashedHost]) -> Self {
        let address = |position: u32| hosts.get(position as usize).map(|host| host.address);
        let keyed = shares
            .iter()
            .filter_map(|(position, share)| Some((address(*position)?.to_string(), *position, *share)));
        match policy {
            LbPolicy::RingHash { minimum, maximum } => Self::ring(keyed, shares, minimum, maximum),
            LbPolicy::Maglev { table_size } => Self::maglev(keyed.collect(), table_size),
            _ => Self::Ring(Vec::new()),
        }
    }

    /// Each host gets hashes in proportion to its share: so many that the least one gets a whole number of the smallest
    /// ring, as long as the largest is not exceeded.
    #[expect(clippy::cast_precision_loss, reason = "sizes of rings are far below 2^53")]
    fn ring(
        keyed: impl Iterator<Item = (String, u32, f64)>,
        shares: &[Share],
        minimum: u64,
        maximum: u64,
    ) -> Self {
        let least = shares.iter().map(|(_, share)| *share).fold(1.0, f64::min);
        let scale = ((least * minimum as f64).ceil() / least).min(maximum as f64);
        let mut ring = Vec::new();
        let mut target = 0.0;
        for (mut key, position, share) in keyed {
            target += scale * share;
            key.push('_');
            let stem = key.len();
            for number in 0_u64.. {
                if ring.len() as f64 >= target {
                    break;
                }
                key.truncate(stem);
                // Writing to a String cannot fail.
                let _ = write!(key, "{number}");
                ring.push((xx_hash(0, key.as_bytes()), position));
            }
        }
        ring.sort_by_key(|(hash, _)| *hash);
        ring.shrink_to_fit();
        Self::Ring(ring)
    }

    /// Listing 1 of "Maglev: A Fast and Reliable Software Network Load Balancer", where a host of a smaller share sits out
    /// some of the turns.
    fn maglev(mut hosts: Vec<(String, u32, f64)>, size: u64) -> Self {
        struct Entry {
            position: u32,
            offset: u64,
            skip: u64,
            next: u64,
            share: f64,
            target: f64,
        }
        const FREE: u32 = u32::MAX;
        if hosts.is_empty() || size < 2 {
            return Self::Maglev(Vec::new());
        }
        hosts.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let greatest = hosts.iter().map(|(_, _, share)| *share).fold(0.0, f64::max);
        let entry = |(key, position, share): (String, u32, f64)| Entry {
            position,
            offset: xx_hash(0, key.as_bytes()) % size,
            skip: xx_hash(1, key.as_bytes()) % (size - 1) + 1,
            next: 0,
            share,
            target: 0.0,
        };
        let mut entries: Vec<_> = hosts.into_iter().map(entry).collect();
        let mut table = vec![FREE; usize::try_from(size).unwrap_or_default()];
        let mut free = table.len();
        for turn in 1_u32.. {
            for entry in &mut entries {
                if free == 0 {
                    return Self::Maglev(table);
                }
                if f64::from(turn) * entry.share < entry.target {
                    continue;
                }
                entry.target += greatest;
                // The size is a prime, so that every place is come to.
                loop {
                    let place = (entry.offset + entry.skip * entry.next) % size;
                    entry.next += 1;
                    let place = usize::try_from(place).ok().and_then(|place| table.get_mut(place));
                    if let Some(place) = place.filter(|place| **place == FREE) {
                        *place = entry.position;
                        free -= 1;
                        break;
                    }
                }
            }
        }
        Self::Maglev(table)
    }

    fn choose(&self, hash: u64, attempt: u32) -> Option<u32> {
        match self {
            Self::Ring(ring) => {
                let first = ring.partition_point(|(known, _)| *known < hash).checked_rem(ring.len())?;
                let place = first.checked_add(attempt as usize)?.checked_rem(ring.len())?;
                ring.get(place).map(|(_, position)| *position)
            }
            Self::Maglev(table) => {
                // Another attempt goes by another hash.
                let hash = if attempt > 0 { hash ^ u64::from(attempt).wrapping_neg() } else { hash };
                let place = hash.checked_rem(table.len() as u64)?;
                table.get(usize::try_from(place).ok()?).copied()
            }
        }
    }
}

#[cfg(test)]
mod tests;
