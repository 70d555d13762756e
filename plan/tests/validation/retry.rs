//! `route.v3.RetryPolicy`

use std::sync::Arc;
use std::time::Duration;

use orlop_plan::resource::retry::{RetryOn, RetryPolicy};
use serde_json::{Value, json};

use crate::support::{action, action_refusals};

fn retry_policy(policy: &Value) -> Arc<RetryPolicy> {
    action(&json!({ "retry_policy": policy }), |action| action.retry_policy.clone().unwrap())
}

fn refusals(policy: &Value) -> Vec<String> {
    action_refusals(&json!({ "retry_policy": policy }))
}

#[test]
fn the_policy_of_every_route_of_istiod() {
    let policy = retry_policy(&json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }],
        "host_selection_retry_max_attempts": 5,
    }));

    let on = RetryOn {
        connect_failure: true,
        refused_stream: true,
        grpc_unavailable: true,
        grpc_cancelled: true,
        retriable_status_codes: true,
        ..RetryOn::default()
    };
    assert_eq!(policy.retry_on, on);
    assert_eq!(policy.num_retries, 2);
    assert!(policy.avoid_previous_hosts);
    assert_eq!(policy.host_selection_attempts, 5);
}

#[test]
fn fields_that_are_left_out_have_the_defaults_of_envoy() {
    let policy = retry_policy(&json!({}));

    assert_eq!(policy.num_retries, 1);
    assert_eq!(policy.per_try_timeout, None);
    assert_eq!(policy.base_interval, Duration::from_millis(25));
    assert_eq!(policy.max_interval, Duration::from_millis(250));
    assert_eq!(policy.host_selection_attempts, 1);
    assert!(!policy.avoid_previous_hosts && !policy.avoid_previous_priorities);
}

#[test]
fn an_unknown_condition_is_refused() {
    assert_eq!(
        refusals(&json!({ "retry_on": "5xx,on-mondays" })),
        ["retry_policy.retry_on: the condition \"on-mondays\" is not supported"]
    );
}

#[test]
fn other_predicates_than_previous_hosts_are_refused_by_name() {
    let refusals = refusals(&json!({
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.omit_canary_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
            },
        }],
    }));

    assert_eq!(refusals.len(), 1);
    for part in ["retry_policy.retry_host_predicate[0]", "OmitCanaryHostsPredicate"] {
        assert!(refusals[0].contains(part), "{refusals:?}");
    }
}

#[test]
fn the_longest_pause_is_ten_times_the_shortest_unless_told() {
    let pauses = |back_off| {
        let policy = retry_policy(&json!({ "retry_back_off": back_off }));
        (policy.base_interval, policy.max_interval)
    };

    assert_eq!(pauses(json!({ "base_interval": "1s" })), (Duration::from_secs(1), Duration::from_secs(10)));
    let refused = refusals(&json!({ "retry_back_off": { "base_interval": "1s", "max_interval": "0.5s" } }));
    assert!(refused[0].starts_with("retry_policy.retry_back_off.max_interval: "), "{refused:?}");
}
