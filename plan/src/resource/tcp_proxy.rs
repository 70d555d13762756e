//! `tcp_proxy.v3.TcpProxy`.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;

/// `TcpProxy`.
#[derive(Debug)]
pub struct TcpProxy {
    /// Where to.
    pub cluster: TcpClusterSpecifier,
    /// `idle_timeout`: `None` is never (an explicit 0); Envoy's default is 1 h.
    pub idle_timeout: Option<Duration>,
    /// `max_connect_attempts`; Envoy's default is 1.
    pub max_connect_attempts: u32,
    /// `max_downstream_connection_duration`.
    pub max_downstream_connection_duration: Option<Duration>,
    /// `hash_policy` is the source address: what a connection's hash is made of, where its cluster balances by one.
    pub hash_source_ip: bool,
    /// `access_log`: those that are written.
    pub access_logs: Vec<AccessLog>,
}

/// `cluster_specifier`.
#[derive(Debug)]
pub enum TcpClusterSpecifier {
    /// One.
    Cluster(Arc<str>),
    /// Drawn per connection; weights ≥ 1.
    Weighted {
        /// Cluster and weight, in order.
        clusters: Vec<(Arc<str>, u32)>,
        /// Sum of the weights.
        total_weight: u32,
    },
}
