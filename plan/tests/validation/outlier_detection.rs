//! `cluster.v3.OutlierDetection`

use std::time::Duration;

use orlop_plan::resource::outlier_detection::{Consecutive, OutlierDetection, RateDetection};
use serde_json::{Value, json};

use crate::support::{cluster, cluster_refusals};

fn detection(fields: &Value) -> OutlierDetection {
    cluster(&json!({ "outlier_detection": fields })).outlier_detection.clone().expect("outlier detection")
}

fn refusals(fields: &Value) -> Vec<String> {
    cluster_refusals(&json!({ "outlier_detection": fields }))
}

#[test]
fn what_is_left_out_is_as_in_envoy() {
    let expected = OutlierDetection {
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_mins(5),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 10,
        always_eject_one_host: false,
        split_external_local_origin_errors: false,
        consecutive_5xx: Consecutive { failures: 5, enforcing: 100 },
        consecutive_gateway_failure: Consecutive { failures: 5, enforcing: 0 },
        consecutive_local_origin_failure: Consecutive { failures: 5, enforcing: 100 },
        success_rate: RateDetection {
            minimum_hosts: 5,
            request_volume: 100,
            enforcing: 100,
            enforcing_local_origin: 100,
        },
        success_rate_stdev_factor: 1900,
        failure_percentage: RateDetection {
            minimum_hosts: 5,
            request_volume: 50,
            enforcing: 0,
            enforcing_local_origin: 0,
        },
        failure_percentage_threshold: 85,
    };
    assert_eq!(detection(&json!({})), expected);
}

#[test]
fn the_longest_time_is_no_shorter_than_the_first() {
    let long = json!({ "base_ejection_time": "600s" });
    assert_eq!(detection(&long).max_ejection_time, Duration::from_mins(10));

    let contradictory = json!({ "base_ejection_time": "60s", "max_ejection_time": "30s" });
    assert_eq!(
        refusals(&contradictory),
        ["outlier_detection.max_ejection_time: is below base_ejection_time"]
    );
}

#[test]
fn what_envoy_would_refuse_is_refused() {
    assert_eq!(
        refusals(&json!({ "interval": "0s", "max_ejection_percent": 101, "enforcing_success_rate": 200 })),
        [
            "outlier_detection.interval: must be above 0",
            "outlier_detection.max_ejection_percent: is above 100",
            "outlier_detection.enforcing_success_rate: is above 100",
        ]
    );
}

#[test]
fn degradation_and_monitors_of_extensions_are_refused_by_name() {
    assert_eq!(
        refusals(&json!({ "detect_degraded_hosts": true, "monitors": [{ "name": "m" }] })),
        [
            "outlier_detection.monitors: is not supported",
            "outlier_detection.detect_degraded_hosts: is not supported",
        ]
    );
    detection(&json!({ "detect_degraded_hosts": false }));
}
