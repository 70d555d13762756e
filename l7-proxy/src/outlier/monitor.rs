//! What is counted of one host, by all workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::detector::{Detector, Ejection};

/// What became of a request or a connection: Envoy's `Outlier::Result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// A response, with its status or what stands for it.
    Status(u16),
    /// A connection for a request of which more will be told.
    Connected,
    /// A connection, and it is all that is looked at.
    Established,
    /// No connection, or the request ended without a response.
    Failed,
    /// No connection or no response in time.
    TimedOut,
}

/// The counters of one host.
#[derive(Debug)]
pub(super) struct HostMonitor {
    pub(super) address: SocketAddr,
    ejected: AtomicBool,
    consecutive_5xx: AtomicU32,
    consecutive_gateway_failure: AtomicU32,
    consecutive_local_origin_failure: AtomicU32,
    /// Of responses; of everything where failures to connect are not counted by themselves.
    pub(super) external: Rate,
    /// Of connections, where they are counted by themselves.
    pub(super) local: Rate,
}

/// Successes of the current interval.
#[derive(Debug, Default)]
pub(super) struct Rate {
    successes: AtomicU64,
    total: AtomicU64,
}

/// A host under its detector's eyes.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    detector: Arc<Detector>,
    monitor: Arc<HostMonitor>,
}

impl Rate {
    fn count(&self, success: bool) {
        self.total.fetch_add(1, Relaxed);
        if success {
            self.successes.fetch_add(1, Relaxed);
        }
    }

    /// The percentage and the number of all, since last asked; `None` where there was nothing.
    #[expect(clippy::cast_precision_loss, reason = "requests of an interval are far below 2^53")]
    pub(super) fn take(&self) -> Option<(f64, u64)> {
        let (successes, total) = (self.successes.swap(0, Relaxed), self.total.swap(0, Relaxed));
        (total > 0).then(|| (successes as f64 * 100.0 / total as f64, total))
    }
}

impl HostMonitor {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            ejected: AtomicBool::new(false),
            consecutive_5xx: AtomicU32::new(0),
            consecutive_gateway_failure: AtomicU32::new(0),
            consecutive_local_origin_failure: AtomicU32::new(0),
            external: Rate::default(),
            local: Rate::default(),
        }
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Relaxed)
    }

    pub(super) fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Relaxed);
    }

    /// What came so far of a row of failures does not count any more.
    pub(super) fn forget(&self, ejection: Ejection) {
        match ejection {
            Ejection::Consecutive5xx => self.consecutive_5xx.store(0, Relaxed),
            Ejection::ConsecutiveGatewayFailure => self.consecutive_gateway_failure.store(0, Relaxed),
            Ejection::ConsecutiveLocalOriginFailure => {
                self.consecutive_local_origin_failure.store(0, Relaxed);
            }
            _ => {}
        }
    }
}

/// Only where it is not 0 anyway: the workers share it.
fn reset(count: &AtomicU32) {
    if count.load(Relaxed) != 0 {
        count.store(0, Relaxed);
    }
}

impl Watch {
    pub(super) fn new(detector: &Arc<Detector>, monitor: &Arc<HostMonitor>) -> Self {
        Self { detector: Arc::clone(detector), monitor: Arc::clone(monitor) }
    }

    /// Whether the host gets nothing for now.
    pub(crate) fn is_ejected(&self) -> bool {
        self.monitor.is_ejected()
    }

    /// Counts what became of something that was sent to the host.
    pub(crate) fn report(&self, report: Report) {
        let split = self.detector.config().split_external_local_origin_errors;
        match (report, split) {
            (Report::Status(status), _) => self.responded(status),
            (Report::Connected, false) => {}
            (Report::Connected | Report::Established, true) => {
                self.monitor.local.count(true);
                reset(&self.monitor.consecutive_local_origin_failure);
            }
            (Report::Failed | Report::TimedOut, true) => self.not_connected(),
            (Report::Established, false) => self.responded(200),
            (Report::Failed, false) => self.responded(503),
            (Report::TimedOut, false) => self.responded(504),
        }
    }

    fn responded(&self, status: u16) {
        let Self { detector, monitor } = self;
        let config = detector.config();
        let failed = (500..600).contains(&status);
        monitor.external.count(!failed);
        if !failed {
            reset(&monitor.consecutive_5xx);
            reset(&monitor.consecutive_gateway_failure);
            return;
        }
        if (502..=504).contains(&status) {
            let limit = config.consecutive_gateway_failure.failures;
            self.another(&monitor.consecutive_gateway_failure, limit, Ejection::ConsecutiveGatewayFailure);
        } else {
            reset(&monitor.consecutive_gateway_failure);
        }
        self.another(&monitor.consecutive_5xx, config.consecutive_5xx.failures, Ejection::Consecutive5xx);
    }

    fn not_connected(&self) {
        self.monitor.local.count(false);
        let limit = self.detector.config().consecutive_local_origin_failure.failures;
        let count = &self.monitor.consecutive_local_origin_failure;
        self.another(count, limit, Ejection::ConsecutiveLocalOriginFailure);
    }

    /// Another failure in a row; one of the workers comes to the limit.
    fn another(&self, count: &AtomicU32, limit: u32, ejection: Ejection) {
        if count.fetch_add(1, Relaxed).wrapping_add(1) == limit {
            self.detector.failed_in_a_row(&self.monitor, ejection, Instant::now());
        }
    }
}
