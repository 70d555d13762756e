//! Timeouts, retries and failures.

use anyhow::Result;
use orlop_integration::{Call, Mesh};
use serde_json::json;

use crate::ways::{Answer, Ways, assert_none};

#[test]
fn timeouts_retries_and_failures_are_answered_as_envoy_does() -> Result<()> {
    let ways = Ways::open(|web| {
        let v1 = json!([web.subset("v1")]);
        json!([
            {"match": [{"uri": {"prefix": "/slow"}}], "timeout": "0.2s", "route": v1},
            {"match": [{"uri": {"prefix": "/try-timeout"}}], "timeout": "2s",
             "retries": {"attempts": 1, "perTryTimeout": "0.2s", "retryOn": "reset"}, "route": v1},
            {"match": [{"uri": {"prefix": "/retry"}}], "retries": {"attempts": 2, "retryOn": "5xx"}, "route": v1},
            {"match": [{"uri": {"prefix": "/gateway"}}], "retries": {"attempts": 1, "retryOn": "gateway-error"}, "route": v1},
            {"match": [{"uri": {"prefix": "/no-retry"}}], "retries": {"attempts": 0}, "route": v1},
            {"match": [{"uri": {"prefix": "/gone"}}], "route": [{"destination": {"host": "gone.default.svc.cluster.local"}}]},
            {"match": [{"uri": {"prefix": "/default"}}], "route": v1},
            {"route": v1},
        ])
    })?;
    // Both ways share the server's count of failures, so each way gets its own key.
    let mut keyed = 0;
    let mut differences = Vec::new();
    for (name, path, wish, value) in [
        ("timeout", "/slow", "x-echo-delay", "1000"),
        ("within the timeout", "/slow", "x-echo-delay", "10"),
        ("per-try timeout", "/try-timeout", "x-echo-delay", "1000"),
        ("a 503 is retried", "/retry", "x-echo-fail-first", "1"),
        ("twice", "/retry", "x-echo-fail-first", "2"),
        ("but not three times", "/retry", "x-echo-fail-first", "3"),
        ("a 503 is a gateway error", "/gateway", "x-echo-fail-first", "1"),
        ("a 500 is none", "/gateway", "x-echo-status", "500"),
        ("no retries", "/no-retry", "x-echo-fail-first", "1"),
        ("Istio's default retries", "/default", "x-echo-fail-first", "1"),
        ("a cluster that does not exist", "/gone", "x-echo-status", "200"),
    ] {
        let mut answers = Vec::new();
        for pod in [&ways.orlop, &ways.envoy] {
            keyed += 1;
            let value =
                if wish == "x-echo-fail-first" { format!("{value}/{keyed}") } else { value.to_owned() };
            let call = Call { path: path.to_owned(), ..ways.request() };
            answers.push(Answer::of(&pod.http(Mesh::WEB).call(call).header(wish, &value).send()?));
        }
        if answers[0] != answers[1] {
            differences.push(format!("{name}\n  Orlop: {:?}\n  Envoy: {:?}", answers[0], answers[1]));
        }
    }
    assert_none(&differences);
    Ok(())
}
