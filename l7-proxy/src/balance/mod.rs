//! Load balancing among the hosts of a cluster, as Envoy balances: a priority by its share of healthy hosts, a locality by
//! weight where the cluster asks for it, then a host by the cluster's policy.
//!
//! A [`Balancer`] is built from one `ClusterLoadAssignment` and never changes; another assignment makes another one. What
//! survives is in the hosts themselves ([`Candidate::active`]). Owned by one worker, hence the `Cell`s.

mod edf;
mod host_list;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use orlop_plan::balance::{
    Availability, BalancerConfig, HashTables, Health, PriorityLoad, PriorityShare, effective_weight,
};
use orlop_plan::resource::endpoint::HealthStatus;

use host_list::HostList;

/// What a balancer has to know of a host.
pub(crate) trait Candidate {
    /// `load_balancing_weight`, ≥ 1.
    fn weight(&self) -> u32;
    /// Requests (or TCP connections) that are on it now.
    fn active(&self) -> u32;
    /// When it became one.
    fn since(&self) -> Instant;
    /// As EDS says, but that an ejected host is unhealthy.
    fn health(&self) -> HealthStatus;
}

/// One locality of an assignment.
#[derive(Debug, Clone)]
pub(crate) struct Locality<H> {
    /// 0 is the highest.
    pub(crate) priority: u32,
    /// `load_balancing_weight`; a locality without one gets no traffic when localities are weighted.
    pub(crate) weight: Option<u32>,
    /// In order.
    pub(crate) hosts: Vec<H>,
}

/// Chooses hosts for one cluster.
#[derive(Debug)]
pub(crate) enum Balancer<H> {
    /// By load, weight or chance.
    Priorities(Vec<Priority<H>>, PriorityLoad),
    /// By what the request is. The hosts are those of the tables, in the same order.
    Hash(Vec<H>, Arc<HashTables>),
}

/// Hosts of one priority.
#[derive(Debug)]
pub(crate) struct Priority<H> {
    healthy: Tier<H>,
    degraded: Tier<H>,
    all: Tier<H>,
}

/// Hosts of one priority in one state of health, by locality where localities are weighted.
#[derive(Debug)]
enum Tier<H> {
    Flat(HostList<H>),
    ByLocality { localities: Vec<(u64, HostList<H>)>, total: u64 },
}

impl<H: Candidate + Clone> Balancer<H> {
    /// Sorts the hosts of an assignment. Draining and unhealthy hosts are chosen in a panic only, as in Envoy; draining
    /// ones not even then. `tables` are those of a cluster that balances by hash.
    pub(crate) fn new(
        config: BalancerConfig,
        localities: Vec<Locality<H>>,
        tables: Option<Arc<HashTables>>,
    ) -> Self {
        if let Some(tables) = tables {
            let hosts = localities.into_iter().flat_map(|locality| locality.hosts).collect();
            return Self::Hash(hosts, tables);
        }
        let mut by_priority: BTreeMap<u32, Vec<Locality<H>>> = BTreeMap::new();
        for mut locality in localities {
            locality.hosts.retain(|host| host.health() != HealthStatus::Draining);
            by_priority.entry(locality.priority).or_default().push(locality);
        }
        let availability: Vec<_> = by_priority
            .values()
            .map(|localities| {
                let hosts = || localities.iter().flat_map(|locality| &locality.hosts);
                Availability {
                    healthy: hosts().filter(|host| host.health() == HealthStatus::Healthy).count(),
                    degraded: hosts().filter(|host| host.health() == HealthStatus::Degraded).count(),
                    total: hosts().count(),
                }
            })
            .collect();
        let load = PriorityLoad::new(&availability, config.overprovisioning_factor, config.panic_threshold);
        let priorities = by_priority
            .into_values()
            .map(|localities| Priority {
                healthy: Tier::new(config, &localities, |host| host.health() == HealthStatus::Healthy),
                degraded: Tier::new(config, &localities, |host| host.health() == HealthStatus::Degraded),
                all: Tier::new(config, &localities, |_| true),
            })
            .collect();
        Self::Priorities(priorities, load)
    }

    /// A host, or `None` where no host may be used (`UH`). The hash counts where hosts are chosen by one; `attempt` is how
    /// often another host was asked for already.
    pub(crate) fn choose(&self, hash: u64, attempt: u32) -> Option<H> {
        let (priorities, load) = match self {
            Self::Hash(hosts, tables) => return hosts.get(tables.choose(hash, attempt)?).cloned(),
            Self::Priorities(priorities, load) => (priorities, load),
        };
        let PriorityShare { priority, health } = load.choose(fastrand::u32(0..100))?;
        let priority = priorities.get(priority)?;
        match health {
            Health::Healthy => &priority.healthy,
            Health::Degraded => &priority.degraded,
            Health::Panic => &priority.all,
        }
        .choose()
    }
}

impl<H: Candidate + Clone> Tier<H> {
    fn new(config: BalancerConfig, localities: &[Locality<H>], usable: impl Fn(&H) -> bool) -> Self {
        let pick = |locality: &Locality<H>| -> Vec<H> {
            locality.hosts.iter().filter(|host| usable(host)).cloned().collect()
        };
        if !config.locality_weighted {
            return Self::Flat(HostList::new(config, localities.iter().flat_map(pick).collect()));
        }
        let mut total = 0;
        let mut weighted = Vec::new();
        for locality in localities {
            let hosts = pick(locality);
            let (usable, all) = (hosts.len(), locality.hosts.len());
            let weight = effective_weight(locality.weight, usable, all, config.overprovisioning_factor);
            if weight > 0 {
                total += weight;
                weighted.push((weight, HostList::new(config, hosts)));
            }
        }
        Self::ByLocality { localities: weighted, total }
    }

    fn choose(&self) -> Option<H> {
        match self {
            Self::Flat(hosts) => hosts.choose(),
            Self::ByLocality { total: 0, .. } => None,
            Self::ByLocality { localities, total } => {
                let mut ticket = fastrand::u64(0..*total);
                for (weight, hosts) in localities {
                    match ticket.checked_sub(*weight) {
                        Some(rest) => ticket = rest,
                        None => return hosts.choose(),
                    }
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
