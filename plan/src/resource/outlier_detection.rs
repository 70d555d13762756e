//! `cluster.v3.OutlierDetection`: which endpoints are ejected for a while, because they fail.

use std::time::Duration;

/// `OutlierDetection`. Percentages are 0..=100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierDetection {
    /// `interval` at which rates are looked at and endpoints let back; Envoy's default is 10 s.
    pub interval: Duration,
    /// `base_ejection_time`, times how often the endpoint was ejected; Envoy's default is 30 s.
    pub base_ejection_time: Duration,
    /// `max_ejection_time`, ≥ `base_ejection_time`; Envoy's default is 300 s.
    pub max_ejection_time: Duration,
    /// `max_ejection_time_jitter`; Envoy's default is 0.
    pub max_ejection_time_jitter: Duration,
    /// `max_ejection_percent` of a cluster's endpoints; Envoy's default is 10.
    pub max_ejection_percent: u32,
    /// `always_eject_one_host`, whatever the percentage says.
    pub always_eject_one_host: bool,
    /// `split_external_local_origin_errors`: failures to connect are counted by themselves.
    pub split_external_local_origin_errors: bool,
    /// `consecutive_5xx`; Envoy's default is 5, enforced.
    pub consecutive_5xx: Consecutive,
    /// `consecutive_gateway_failure`; Envoy's default is 5, not enforced.
    pub consecutive_gateway_failure: Consecutive,
    /// `consecutive_local_origin_failure`; Envoy's default is 5, enforced.
    pub consecutive_local_origin_failure: Consecutive,
    /// `success_rate_*`; Envoy's default is 5 endpoints of 100 requests, enforced.
    pub success_rate: RateDetection,
    /// `success_rate_stdev_factor` in thousandths; Envoy's default is 1900.
    pub success_rate_stdev_factor: u32,
    /// `failure_percentage_*`; Envoy's default is 5 endpoints of 50 requests, not enforced.
    pub failure_percentage: RateDetection,
    /// `failure_percentage_threshold`; Envoy's default is 85.
    pub failure_percentage_threshold: u32,
}

/// So many failures one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consecutive {
    /// How many; 0 is never.
    pub failures: u32,
    /// `enforcing_*`: how often an endpoint is ejected for them, in percent.
    pub enforcing: u32,
}

/// A rate that stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDetection {
    /// `*_minimum_hosts` that have enough requests.
    pub minimum_hosts: u32,
    /// `*_request_volume` of an endpoint within an interval that is enough.
    pub request_volume: u32,
    /// `enforcing_*`: how often an endpoint is ejected for it, in percent.
    pub enforcing: u32,
    /// The same where failures to connect are counted by themselves.
    pub enforcing_local_origin: u32,
}
