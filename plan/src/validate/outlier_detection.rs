//! `cluster.v3.OutlierDetection`.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::OutlierDetection as Proto;
use envoy_types::pb::google::protobuf;

use super::at::{At, no_effect, refuse_set};
use super::scalar::duration;
use crate::resource::outlier_detection::{Consecutive, OutlierDetection, RateDetection};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_BASE_EJECTION_TIME: Duration = Duration::from_secs(30);
const DEFAULT_MAX_EJECTION_TIME: Duration = Duration::from_mins(5);

pub(super) fn outlier_detection(value: Proto, at: &At<'_>) -> Option<OutlierDetection> {
    let Proto {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = value;
    no_effect!(at; "is of active health checks, which are refused"; successful_active_health_check_uneject_host);
    let detect_degraded_hosts = detect_degraded_hosts.is_some_and(|flag| flag.value);
    refuse_set!(at; monitors, detect_degraded_hosts);
    let time = |field, value, default| positive(value, default, &at.field(field));
    let interval = time("interval", interval, DEFAULT_INTERVAL);
    let base = time("base_ejection_time", base_ejection_time, DEFAULT_BASE_EJECTION_TIME);
    let default = DEFAULT_MAX_EJECTION_TIME.max(base.unwrap_or_default());
    let max = time("max_ejection_time", max_ejection_time, default);
    let jitter = match max_ejection_time_jitter {
        None => Some(Duration::ZERO),
        Some(value) => duration(value, &at.field("max_ejection_time_jitter")),
    };
    let percent = |field, value, default| percentage(value, default, &at.field(field));
    let max_ejection_percent = percent("max_ejection_percent", max_ejection_percent, 10);
    let threshold = percent("failure_percentage_threshold", failure_percentage_threshold, 85);
    let of_5xx = percent("enforcing_consecutive_5xx", enforcing_consecutive_5xx, 100);
    let of_gateway =
        percent("enforcing_consecutive_gateway_failure", enforcing_consecutive_gateway_failure, 0);
    let of_local = percent(
        "enforcing_consecutive_local_origin_failure",
        enforcing_consecutive_local_origin_failure,
        100,
    );
    let of_rate = percent("enforcing_success_rate", enforcing_success_rate, 100);
    let of_local_rate =
        percent("enforcing_local_origin_success_rate", enforcing_local_origin_success_rate, 100);
    let of_failures = percent("enforcing_failure_percentage", enforcing_failure_percentage, 0);
    let of_local_failures =
        percent("enforcing_failure_percentage_local_origin", enforcing_failure_percentage_local_origin, 0);
    let (base, max) = (base?, max?);
    if max < base {
        return at.field("max_ejection_time").refuse("is below base_ejection_time");
    }
    let number = |value: Option<protobuf::UInt32Value>, default| value.map_or(default, |number| number.value);
    Some(OutlierDetection {
        interval: interval?,
        base_ejection_time: base,
        max_ejection_time: max,
        max_ejection_time_jitter: jitter?,
        max_ejection_percent: max_ejection_percent?,
        always_eject_one_host: always_eject_one_host.is_some_and(|flag| flag.value),
        split_external_local_origin_errors,
        consecutive_5xx: Consecutive { failures: number(consecutive_5xx, 5), enforcing: of_5xx? },
        consecutive_gateway_failure: Consecutive {
            failures: number(consecutive_gateway_failure, 5),
            enforcing: of_gateway?,
        },
        consecutive_local_origin_failure: Consecutive {
            failures: number(consecutive_local_origin_failure, 5),
            enforcing: of_local?,
        },
        success_rate: RateDetection {
            minimum_hosts: number(success_rate_minimum_hosts, 5),
            request_volume: number(success_rate_request_volume, 100),
            enforcing: of_rate?,
            enforcing_local_origin: of_local_rate?,
        },
        success_rate_stdev_factor: number(success_rate_stdev_factor, 1900),
        failure_percentage: RateDetection {
            minimum_hosts: number(failure_percentage_minimum_hosts, 5),
            request_volume: number(failure_percentage_request_volume, 50),
            enforcing: of_failures?,
            enforcing_local_origin: of_local_failures?,
        },
        failure_percentage_threshold: threshold?,
    })
}

fn positive(value: Option<protobuf::Duration>, default: Duration, at: &At<'_>) -> Option<Duration> {
    match value {
        None => Some(default),
        Some(value) => match duration(value, at)? {
            Duration::ZERO => at.refuse("must be above 0"),
            time => Some(time),
        },
    }
}

fn percentage(value: Option<protobuf::UInt32Value>, default: u32, at: &At<'_>) -> Option<u32> {
    match value.map_or(default, |percent| percent.value) {
        percent @ 0..=100 => Some(percent),
        _ => at.refuse("is above 100"),
    }
}
