//! How to treat a control plane over gRPC.

use std::time::Duration;

use super::BackoffBounds;

/// How to treat a control plane over gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcOptions {
    /// The delay between attempts of one workload to connect.
    pub backoff: BackoffBounds,
    /// The shortest time between two openings of streams, over all workloads, as long as the control plane refuses
    /// none. The default is the pace that istiod keeps on two cores.
    pub stream_interval: Duration,
    /// The longest response that is taken. A whole mesh without `Sidecar` resources sends some megabytes.
    pub max_response_bytes: usize,
    /// How long the first response of a stream may take.
    pub first_response: Duration,
    /// When streams move to a fresh connection.
    pub renewal: RenewalWindow,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            backoff: BackoffBounds::default(),
            stream_interval: Duration::from_millis(40),
            max_response_bytes: 256 << 20,
            first_response: Duration::from_mins(1),
            renewal: RenewalWindow::default(),
        }
    }
}

/// The age of a connection at which its streams move to a fresh one, each at a moment of its own between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalWindow {
    /// The first may move; no stream opens on the connection any more.
    pub earliest: Duration,
    /// The last has moved.
    pub latest: Duration,
}

impl RenewalWindow {
    /// One stream's moment.
    pub(super) fn choose(self) -> Duration {
        let width = self.latest.saturating_sub(self.earliest);
        self.earliest + width.mul_f64(fastrand::f64())
    }
}

impl Default for RenewalWindow {
    /// Before istiod's chart ends a connection after 30 minutes (`keepaliveMaxServerConnectionAge`).
    fn default() -> Self {
        Self { earliest: Duration::from_mins(20), latest: Duration::from_mins(27) }
    }
}
