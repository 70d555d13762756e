//! Who is ejected, for how long, and who comes back.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::outlier_detection::{OutlierDetection, RateDetection};

use super::monitor::{HostMonitor, Watch};
use super::stats::{OutlierHost, OutlierStats};

/// Why a host is ejected: Envoy's `OutlierEjectionType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ejection {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

impl Ejection {
    const ALL: [Self; 7] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayFailure,
        Self::ConsecutiveLocalOriginFailure,
        Self::SuccessRate,
        Self::LocalOriginSuccessRate,
        Self::FailurePercentage,
        Self::LocalOriginFailurePercentage,
    ];

    /// As in the names of Envoy's statistics.
    const fn name(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayFailure => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailure => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
            Self::LocalOriginSuccessRate => "local_origin_success_rate",
            Self::FailurePercentage => "failure_percentage",
            Self::LocalOriginFailurePercentage => "local_origin_failure_percentage",
        }
    }

    /// How often it is enforced, in percent.
    fn enforcing(self, config: &OutlierDetection) -> u32 {
        match self {
            Self::Consecutive5xx => config.consecutive_5xx.enforcing,
            Self::ConsecutiveGatewayFailure => config.consecutive_gateway_failure.enforcing,
            Self::ConsecutiveLocalOriginFailure => config.consecutive_local_origin_failure.enforcing,
            Self::SuccessRate => config.success_rate.enforcing,
            Self::LocalOriginSuccessRate => config.success_rate.enforcing_local_origin,
            Self::FailurePercentage => config.failure_percentage.enforcing,
            Self::LocalOriginFailurePercentage => config.failure_percentage.enforcing_local_origin,
        }
    }
}

/// The detector of one version of a cluster, for one workload.
#[derive(Debug)]
pub(crate) struct Detector {
    cluster: Arc<Cluster>,
    config: OutlierDetection,
    started: Instant,
    /// When the interval is over, in milliseconds after the start.
    interval_ends: AtomicU64,
    /// Raised when a host is ejected or let back.
    changes: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hosts: HashMap<SocketAddr, Host>,
    detected: [u64; Ejection::ALL.len()],
    enforced: [u64; Ejection::ALL.len()],
    /// Hosts that were spared because too many are ejected already.
    overflow: u64,
}

/// What is remembered of a host beside its counters.
#[derive(Debug)]
struct Host {
    monitor: Arc<HostMonitor>,
    /// Since when it is ejected, and what chance adds to the time.
    ejected: Option<(Instant, Duration)>,
    let_back: Option<Instant>,
    /// How often in a row it was ejected.
    times: u32,
    /// The last interval's rates in percent, where there were enough requests.
    success_rate: Option<f64>,
    local_origin_success_rate: Option<f64>,
}

/// Which of a host's two rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    External,
    Local,
}

impl Detector {
    pub(super) fn new(cluster: &Arc<Cluster>, config: OutlierDetection) -> Self {
        let interval_ends = AtomicU64::new(milliseconds(config.interval));
        Self {
            cluster: Arc::clone(cluster),
            config,
            started: Instant::now(),
            interval_ends,
            changes: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    pub(super) fn is_of(&self, cluster: &Arc<Cluster>) -> bool {
        Arc::ptr_eq(&self.cluster, cluster)
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster.name
    }

    pub(super) fn config(&self) -> &OutlierDetection {
        &self.config
    }

    /// Watches these hosts, which are the cluster's from now on.
    pub(crate) fn watch(
        self: &Arc<Self>,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> HashMap<SocketAddr, Watch> {
        let mut state = self.state();
        let mut known = std::mem::take(&mut state.hosts);
        for address in addresses {
            let host = known.remove(&address);
            state.hosts.entry(address).or_insert_with(|| host.unwrap_or_else(|| Host::new(address)));
        }
        state.hosts.iter().map(|(address, host)| (*address, Watch::new(self, &host.monitor))).collect()
    }

    /// Changes whenever another set of hosts is ejected.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Does what is due at the end of an interval: one worker does it for all.
    pub(crate) fn tick(&self, now: Instant) {
        let elapsed = milliseconds(now.saturating_duration_since(self.started));
        let ends = self.interval_ends.load(Ordering::Relaxed);
        let next = elapsed.saturating_add(milliseconds(self.config.interval).max(1));
        let (relaxed, over) = (Ordering::Relaxed, elapsed >= ends);
        if over && self.interval_ends.compare_exchange(ends, next, relaxed, relaxed).is_ok() {
            self.interval_over(now);
        }
    }

    /// A host has failed so often in a row that it is to be ejected.
    pub(super) fn failed_in_a_row(&self, monitor: &HostMonitor, ejection: Ejection, now: Instant) {
        let mut state = self.state();
        if !monitor.is_ejected() {
            self.eject(&mut state, monitor.address, ejection, now);
            monitor.forget(ejection);
        }
    }

    fn interval_over(&self, now: Instant) {
        let mut state = self.state();
        for host in state.hosts.values_mut() {
            if host.ejected.is_some_and(|(since, jitter)| now >= since + self.ejection_time(host) + jitter) {
                host.let_back(now);
                self.changed();
            }
        }
        for origin in [Origin::External, Origin::Local] {
            self.compare_rates(&mut state, origin, now);
        }
        for host in state.hosts.values_mut().filter(|host| host.ejected.is_none()) {
            let well_for = host.let_back.map(|then| now.saturating_duration_since(then));
            if well_for.is_some_and(|time| time >= self.config.interval) {
                host.times = host.times.saturating_sub(1);
            }
        }
    }

    fn ejection_time(&self, host: &Host) -> Duration {
        self.config.base_ejection_time.saturating_mul(host.times).min(self.config.max_ejection_time)
    }

    /// Ejects hosts whose rate of successes stands out from the others', or is too low by itself.
    fn compare_rates(&self, state: &mut State, origin: Origin, now: Instant) {
        let OutlierDetection { success_rate, failure_percentage, .. } = &self.config;
        let enough = success_rate.request_volume.min(failure_percentage.request_volume);
        let mut rates = Vec::new();
        for (address, host) in &mut state.hosts {
            let taken = match origin {
                Origin::External => host.monitor.external.take(),
                Origin::Local => host.monitor.local.take(),
            };
            let known = taken.filter(|(_, volume)| *volume >= u64::from(enough)).map(|(rate, _)| rate);
            match origin {
                Origin::External => host.success_rate = known,
                Origin::Local => host.local_origin_success_rate = known,
            }
            if host.ejected.is_none() {
                rates.extend(taken.map(|(rate, volume)| (*address, rate, volume)));
            }
        }
        let of = |detection: &RateDetection| -> Vec<(SocketAddr, f64)> {
            let volume = u64::from(detection.request_volume);
            let busy = rates.iter().filter(|(.., requests)| *requests >= volume);
            let busy: Vec<_> = busy.map(|(address, rate, _)| (*address, *rate)).collect();
            if busy.len() >= detection.minimum_hosts as usize { busy } else { Vec::new() }
        };
        let busy = of(success_rate);
        let threshold = success_rate_threshold(&busy, self.config.success_rate_stdev_factor);
        let ejection = match origin {
            Origin::External => Ejection::SuccessRate,
            Origin::Local => Ejection::LocalOriginSuccessRate,
        };
        for (address, _) in busy.into_iter().filter(|(_, rate)| *rate < threshold) {
            self.eject(state, address, ejection, now);
        }
        let ejection = match origin {
            Origin::External => Ejection::FailurePercentage,
            Origin::Local => Ejection::LocalOriginFailurePercentage,
        };
        let threshold = f64::from(self.config.failure_percentage_threshold);
        for (address, _) in of(failure_percentage).into_iter().filter(|(_, rate)| 100.0 - rate >= threshold) {
            self.eject(state, address, ejection, now);
        }
    }

    /// Ejects a host unless too many are, or chance spares it.
    fn eject(&self, state: &mut State, address: SocketAddr, ejection: Ejection, now: Instant) {
        let (ejected, all) = (state.ejected(), state.hosts.len());
        let Some(host) = state.hosts.get_mut(&address).filter(|host| host.ejected.is_none()) else { return };
        count(&mut state.detected, ejection);
        let is_within = (ejected + 1) * 100 <= all * self.config.max_ejection_percent as usize;
        let may_be_ejected = is_within || (self.config.always_eject_one_host && ejected == 0);
        if !may_be_ejected {
            state.overflow += 1;
            return;
        }
        if fastrand::u32(0..100) >= ejection.enforcing(&self.config) {
            return;
        }
        let most = milliseconds(self.config.max_ejection_time_jitter);
        host.ejected = Some((now, Duration::from_millis(fastrand::u64(0..=most))));
        host.monitor.set_ejected(true);
        // Not more often than the longest time needs.
        let OutlierDetection { base_ejection_time: base, max_ejection_time: max, .. } = self.config;
        if base.saturating_mul(host.times) < max.saturating_add(base) {
            host.times += 1;
        }
        count(&mut state.enforced, ejection);
        self.changed();
        tracing::info!(cluster = %self.cluster.name, host = %address, because = ejection.name(), "ejected");
    }

    /// What was found so far.
    pub(super) fn stats(&self) -> OutlierStats {
        let state = self.state();
        let named = |counts: &[u64]| -> BTreeMap<&'static str, u64> {
            Ejection::ALL.iter().map(|ejection| ejection.name()).zip(counts.iter().copied()).collect()
        };
        let host = |host: &Host| OutlierHost {
            ejected: host.ejected.is_some(),
            success_rate: host.success_rate,
            local_origin_success_rate: host.local_origin_success_rate,
        };
        OutlierStats {
            ejections_active: state.ejected() as u64,
            ejections_enforced_total: state.enforced.iter().sum(),
            ejections_overflow: state.overflow,
            ejections_detected: named(&state.detected),
            ejections_enforced: named(&state.enforced),
            hosts: state.hosts.iter().map(|(address, known)| (*address, host(known))).collect(),
        }
    }

    /// After what has changed, so that whoever sees the number sees that too.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ejected(&self) -> usize {
        self.hosts.values().filter(|host| host.ejected.is_some()).count()
    }
}

impl Host {
    fn new(address: SocketAddr) -> Self {
        Self {
            monitor: Arc::new(HostMonitor::new(address)),
            ejected: None,
            let_back: None,
            times: 0,
            success_rate: None,
            local_origin_success_rate: None,
        }
    }

    /// Afresh, so that a few new failures do not eject it again at once.
    fn let_back(&mut self, now: Instant) {
        self.ejected = None;
        self.let_back = Some(now);
        self.monitor.set_ejected(false);
        for ejection in Ejection::ALL {
            self.monitor.forget(ejection);
        }
    }
}

fn count(counts: &mut [u64], ejection: Ejection) {
    if let Some(count) = counts.get_mut(ejection as usize) {
        *count += 1;
    }
}

/// So many standard deviations, in thousandths, below the mean.
#[expect(clippy::cast_precision_loss, reason = "clusters have far fewer than 2^53 hosts")]
fn success_rate_threshold(rates: &[(SocketAddr, f64)], factor: u32) -> f64 {
    let hosts = rates.len().max(1) as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / hosts;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / hosts;
    mean - f64::from(factor) / 1000.0 * variance.sqrt()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
