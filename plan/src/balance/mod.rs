//! What Envoy's balancers have in common before a policy chooses: the shares of priorities and localities. Kernel and proxy
//! both go by it.
//!
//! Priorities as in Envoy's `LoadBalancerBase::recalculatePerPriorityState`.
//! A priority is fully available while its healthy hosts, times the overprovisioning factor, make up all of its hosts.
//! What it lacks flows over to the next priority, first to healthy, then to degraded hosts. When all priorities together
//! lack something, those below the panic threshold are used without regard to health.

mod consistent_hash;

use crate::resource::cluster::{LbPolicy, SlowStart};

pub use consistent_hash::{HashTables, HashedHost, xx_hash};

/// The part of a cluster's configuration that balancing depends on.
#[derive(Debug, Clone, Copy)]
pub struct BalancerConfig {
    /// How a host is chosen within a locality or priority.
    pub policy: LbPolicy,
    /// How hosts that are new are treated.
    pub slow_start: Option<SlowStart>,
    /// Below this percentage of available hosts all of them are used; 0 is never.
    pub panic_threshold: u8,
    /// Localities are chosen by their weights first.
    pub locality_weighted: bool,
    /// `overprovisioning_factor` in percent.
    pub overprovisioning_factor: u32,
}

/// Hosts of a priority.
#[derive(Debug, Clone, Copy, Default)]
pub struct Availability {
    /// Healthy hosts.
    pub healthy: usize,
    /// Degraded hosts.
    pub degraded: usize,
    /// All hosts but draining ones.
    pub total: usize,
}

/// Which hosts of a priority are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Healthy ones.
    Healthy,
    /// Degraded ones.
    Degraded,
    /// All.
    Panic,
}

/// A priority and which of its hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriorityShare {
    /// Position among the priorities.
    pub priority: usize,
    /// Which hosts.
    pub health: Health,
}

/// How 100 requests are shared out.
#[derive(Debug)]
pub struct PriorityLoad(Vec<(u32, PriorityShare)>);

impl PriorityLoad {
    /// From the priorities in order, the factor in percent and the threshold in percent.
    pub fn new(priorities: &[Availability], overprovisioning: u32, panic_threshold: u8) -> Self {
        let available = |hosts: usize, total: usize| percent(hosts, total, overprovisioning);
        let sum: u32 = priorities
            .iter()
            .map(|p| available(p.healthy, p.total) + available(p.degraded, p.total))
            .sum::<u32>()
            .min(100);
        let in_panic = |p: &Availability| {
            sum < 100
                && p.total > 0
                && panic_threshold > 0
                && percent(p.healthy + p.degraded, p.total, 100) < u32::from(panic_threshold)
        };
        if sum == 0 {
            return Self::all_in_panic(priorities, in_panic);
        }
        let mut remaining = 100;
        let mut shares = Vec::new();
        for health in [Health::Healthy, Health::Degraded] {
            for (priority, p) in priorities.iter().enumerate() {
                let hosts = if health == Health::Healthy { p.healthy } else { p.degraded };
                let share = (available(hosts, p.total) * 100 / sum).min(remaining);
                remaining -= share;
                let health = if in_panic(p) { Health::Panic } else { health };
                if share > 0 {
                    shares.push((share, PriorityShare { priority, health }));
                }
            }
        }
        // What rounding left over.
        if let Some((share, _)) = shares.first_mut() {
            *share += remaining;
        }
        Self(shares)
    }

    /// Nothing is available anywhere: by the number of hosts, or nowhere where panic is off.
    fn all_in_panic(priorities: &[Availability], in_panic: impl Fn(&Availability) -> bool) -> Self {
        let hosts: usize = priorities.iter().map(|p| p.total).sum();
        let mut remaining = 100;
        let mut shares = Vec::new();
        for (priority, p) in priorities.iter().enumerate().filter(|(_, p)| in_panic(p)) {
            let share = percent(p.total, hosts, 100).min(remaining);
            remaining -= share;
            shares.push((share, PriorityShare { priority, health: Health::Panic }));
        }
        if let Some((share, _)) = shares.first_mut() {
            *share += remaining;
        }
        Self(shares)
    }

    /// The shares, which add up to 100; empty where no host may be used.
    pub fn shares(&self) -> &[(u32, PriorityShare)] {
        &self.0
    }

    /// The share that `ticket` (0..100) falls on; `None` where no host may be used.
    pub fn choose(&self, ticket: u32) -> Option<PriorityShare> {
        if let [(_, only)] = self.0.as_slice() {
            return Some(*only);
        }
        let mut ticket = ticket;
        for (share, target) in &self.0 {
            match ticket.checked_sub(*share) {
                Some(rest) => ticket = rest,
                None => return Some(*target),
            }
        }
        None
    }
}

/// A locality's weight, scaled down by the share of its hosts that are usable (Envoy: `effectiveLocalityWeight`), in parts
/// of 100 so that scaling keeps its precision. A locality without a weight gets nothing.
pub fn effective_weight(weight: Option<u32>, usable: usize, total: usize, overprovisioning: u32) -> u64 {
    let Some(weight) = weight.filter(|_| total > 0) else { return 0 };
    u64::from(weight) * u64::from(percent(usable, total, overprovisioning))
}

/// `hosts` of `total` in percent, times `factor` percent, at most 100.
fn percent(hosts: usize, total: usize, factor: u32) -> u32 {
    let share = (u64::from(factor) * hosts as u64).checked_div(total as u64).unwrap_or(0);
    u32::try_from(share.min(100)).unwrap_or(100)
}
