//! What outlier detection has found, by Envoy's names.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

/// What the detector of one cluster has found.
#[derive(Debug, Default, Clone, Serialize)]
pub struct OutlierStats {
    /// Hosts that are ejected now.
    pub ejections_active: u64,
    /// Ejections that took place.
    pub ejections_enforced_total: u64,
    /// Ejections that did not, because too many hosts were ejected.
    pub ejections_overflow: u64,
    /// Reasons that were found, enforced or not.
    pub ejections_detected: BTreeMap<&'static str, u64>,
    /// Reasons that were enforced.
    pub ejections_enforced: BTreeMap<&'static str, u64>,
    /// Every host of the cluster.
    #[serde(skip)]
    pub hosts: BTreeMap<SocketAddr, OutlierHost>,
}

/// What is known of one host.
#[derive(Debug, Default, Clone, Copy)]
pub struct OutlierHost {
    /// It gets nothing for now.
    pub ejected: bool,
    /// Of the last interval, in percent; `None` where there were too few requests.
    pub success_rate: Option<f64>,
    /// The same of connections, where they are counted by themselves.
    pub local_origin_success_rate: Option<f64>,
}
