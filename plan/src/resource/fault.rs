//! `envoy.filters.http.fault`.

use std::time::Duration;

use http::StatusCode;

use super::header::HeaderMatcher;

/// `HTTPFault`: the faults of some requests.
#[derive(Debug)]
pub struct Fault {
    /// `headers`: all of them, for a request to have faults.
    pub headers: Vec<HeaderMatcher>,
    /// `delay`, before an abort.
    pub delay: Option<FaultDelay>,
    /// `abort`
    pub abort: Option<FaultAbort>,
}

impl Fault {
    /// Whether there is none, as in the filter that stands in every chain for routes to configure.
    pub fn is_none(&self) -> bool {
        self.delay.is_none() && self.abort.is_none()
    }
}

/// `FaultDelay`
#[derive(Debug, Clone, Copy)]
pub struct FaultDelay {
    /// `fixed_delay`, above zero.
    pub duration: Duration,
    /// How many of a million requests.
    pub per_million: u32,
}

/// `FaultAbort`
#[derive(Debug, Clone, Copy)]
pub struct FaultAbort {
    /// What the client is told.
    pub status: AbortStatus,
    /// How many of a million requests.
    pub per_million: u32,
}

/// `error_type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// `http_status`
    Http(StatusCode),
    /// `grpc_status`
    Grpc(u32),
}
