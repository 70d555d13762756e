//! The choice of one host among equals in priority, locality and health.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use orlop_plan::balance::BalancerConfig;
use orlop_plan::resource::cluster::{LbPolicy, SlowStart};

use super::Candidate;
use super::edf::EdfSchedule;

/// Hosts and how one of them is chosen.
#[derive(Debug)]
pub(super) struct HostList<H> {
    hosts: Vec<H>,
    method: Method,
    /// In the method's place while a host is new.
    warm_up: Option<WarmUp>,
}

/// While a host is new, the choice is by weight, which for it is less (Envoy: `EdfLoadBalancerBase::applySlowStartFactor`).
#[derive(Debug)]
struct WarmUp {
    until: Instant,
    slow_start: SlowStart,
    schedule: RefCell<EdfSchedule>,
    by_load: bool,
}

#[derive(Debug)]
enum Method {
    /// One after the other, from a random start so that workers do not move in step.
    Rotation(Cell<usize>),
    /// By weight; `by_load` divides a host's weight by its active requests.
    Edf { schedule: RefCell<EdfSchedule>, by_load: bool },
    /// The least loaded of a few drawn at random.
    FewestActive { choices: u32 },
    /// Any.
    Random,
}

impl<H: Candidate + Clone> HostList<H> {
    pub(super) fn new(config: BalancerConfig, hosts: Vec<H>) -> Self {
        let warm_up = config.slow_start.and_then(|slow_start| WarmUp::new(config.policy, slow_start, &hosts));
        let method = Self::method(config.policy, &hosts);
        Self { hosts, method, warm_up }
    }

    fn method(policy: LbPolicy, hosts: &[H]) -> Method {
        let mut weights = hosts.iter().map(Candidate::weight);
        let first = weights.next();
        let equal = weights.all(|weight| Some(weight) == first);
        match policy {
            LbPolicy::Random => Method::Random,
            LbPolicy::LeastRequest { choice_count } if equal => {
                Method::FewestActive { choices: choice_count }
            }
            LbPolicy::LeastRequest { .. } => Method::edf(hosts, true),
            _ if equal => Method::Rotation(Cell::new(fastrand::usize(..))),
            _ => Method::edf(hosts, false),
        }
    }

    pub(super) fn choose(&self) -> Option<H> {
        if let [only] = self.hosts.as_slice() {
            return Some(only.clone());
        }
        if self.hosts.is_empty() {
            return None;
        }
        if let Some(position) = self.warm_up.as_ref().and_then(|warm_up| warm_up.choose(&self.hosts)) {
            return self.hosts.get(position).cloned();
        }
        let position = match &self.method {
            Method::Rotation(next) => {
                let position = next.get() % self.hosts.len();
                next.set(position + 1);
                position
            }
            Method::Edf { schedule, by_load } => {
                let mut schedule = schedule.borrow_mut();
                let position = schedule.next()?;
                schedule.add(position, scheduled_weight(self.hosts.get(position)?, *by_load));
                position
            }
            Method::FewestActive { choices } => self.fewest_active(*choices)?,
            Method::Random => fastrand::usize(..self.hosts.len()),
        };
        self.hosts.get(position).cloned()
    }

    fn fewest_active(&self, choices: u32) -> Option<usize> {
        (0..choices.max(1))
            .map(|_| fastrand::usize(..self.hosts.len()))
            .min_by_key(|position| self.hosts.get(*position).map_or(u32::MAX, Candidate::active))
    }
}

impl WarmUp {
    /// `None` where no host is new, or the policy knows no weights.
    fn new<H: Candidate>(policy: LbPolicy, slow_start: SlowStart, hosts: &[H]) -> Option<Self> {
        let by_load = match policy {
            LbPolicy::LeastRequest { .. } => true,
            LbPolicy::RoundRobin => false,
            _ => return None,
        };
        let until = hosts.iter().map(Candidate::since).max()?.checked_add(slow_start.window)?;
        let now = Instant::now();
        if until <= now {
            return None;
        }
        let warm_up = Self { until, slow_start, schedule: RefCell::default(), by_load };
        for (position, host) in hosts.iter().enumerate() {
            warm_up.schedule.borrow_mut().add(position, warm_up.weight(host, now));
        }
        Some(warm_up)
    }

    /// `None` once no host is new any more.
    fn choose<H: Candidate>(&self, hosts: &[H]) -> Option<usize> {
        let now = Instant::now();
        if now >= self.until {
            return None;
        }
        let mut schedule = self.schedule.borrow_mut();
        let position = schedule.next()?;
        schedule.add(position, self.weight(hosts.get(position)?, now));
        Some(position)
    }

    fn weight<H: Candidate>(&self, host: &H, now: Instant) -> f64 {
        let age = now.saturating_duration_since(host.since());
        // A weight of 0 would never come again.
        (scheduled_weight(host, self.by_load) * self.slow_start.factor(age)).max(f64::MIN_POSITIVE.sqrt())
    }
}

impl Method {
    fn edf<H: Candidate>(hosts: &[H], by_load: bool) -> Self {
        let mut schedule = EdfSchedule::default();
        for (position, host) in hosts.iter().enumerate() {
            schedule.add(position, scheduled_weight(host, by_load));
        }
        // Workers start at different places, or all of them would open with the heaviest host.
        for _ in 0..fastrand::usize(..=hosts.len()) {
            let Some(position) = schedule.next() else { break };
            if let Some(host) = hosts.get(position) {
                schedule.add(position, scheduled_weight(host, by_load));
            }
        }
        Self::Edf { schedule: RefCell::new(schedule), by_load }
    }
}

/// Envoy's least request divides a weight by the active requests plus one (`active_request_bias` 1).
fn scheduled_weight<H: Candidate>(host: &H, by_load: bool) -> f64 {
    let weight = f64::from(host.weight().max(1));
    if by_load { weight / (f64::from(host.active()) + 1.0) } else { weight }
}
