//! Local rate limits, as Istio's users have them put in: by an `EnvoyFilter`.

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Call, Reply};
use serde_json::{Value, json};

use crate::doors::Doors;
use crate::ways::assert_none;

const LOCAL_RATE_LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const FILTER: &str = "envoy.filters.http.local_ratelimit";

fn patch(name: &str, patches: &Value) -> String {
    document(&json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"workloadSelector": {"labels": {"app": "web"}}, "configPatches": patches},
    }))
}

fn filter(config: &Value) -> Value {
    json!({
        "applyTo": "HTTP_FILTER",
        "match": {"context": "SIDECAR_INBOUND", "listener": {"filterChain": {"filter": {
            "name": "envoy.filters.network.http_connection_manager"}}}},
        "patch": {"operation": "INSERT_BEFORE", "value": {"name": FILTER, "typed_config": config}},
    })
}

fn of_routes(config: &Value) -> Value {
    json!({
        "applyTo": "HTTP_ROUTE",
        "match": {"context": "SIDECAR_INBOUND"},
        "patch": {"operation": "MERGE", "value": {"typed_per_filter_config": {(FILTER): config}}},
    })
}

/// Three requests, and no more for as long as a test lasts.
fn three() -> Value {
    let always = json!({"default_value": {"numerator": 100}});
    json!({
        "@type": LOCAL_RATE_LIMIT,
        "stat_prefix": "three",
        "token_bucket": {"max_tokens": 3, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": always, "filter_enforced": always,
        "response_headers_to_add": [{"header": {"key": "x-limited", "value": "by %PROTOCOL%"}}],
    })
}

/// What is compared: who has answered, and what is said of the limit.
fn outcome(reply: &Reply) -> (u16, String, Vec<String>) {
    let headers = [
        "x-limited",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "retry-after",
        "content-type",
        "grpc-status",
        "grpc-message",
    ];
    let said = headers.iter().filter_map(|name| Some(format!("{name}: {}", reply.headers.get(*name)?)));
    match reply.echo() {
        Ok(echo) => (reply.status, format!("{:?}", echo.headers.get("x-unlimited")), said.collect()),
        Err(_) => (reply.status, reply.body.clone(), said.collect()),
    }
}

/// Five requests to each door, and what was counted.
fn compare(patches: &Value, change: impl Fn(&mut Call)) -> Result<Vec<u16>> {
    let doors = Doors::open(|_| patch("limit", patches))?;
    let mut call = doors.request();
    change(&mut call);
    let mut differences = Vec::new();
    let mut statuses = Vec::new();
    for number in 1..=5 {
        let [by_orlop, by_envoy] = doors.ask(&call)?.map(|reply| outcome(&reply));
        if by_orlop != by_envoy {
            differences.push(format!("request {number}\n  Orlop: {by_orlop:?}\n  Envoy: {by_envoy:?}"));
        }
        statuses.push(by_orlop.0);
    }
    let [by_orlop, by_envoy] = doors.counted("http_local_rate_limit")?;
    if by_orlop != by_envoy {
        differences.push(format!("counted\n  Orlop: {by_orlop}\n  Envoy: {by_envoy}"));
    }
    assert_none(&differences);
    Ok(statuses)
}

#[test]
fn requests_beyond_a_limit_are_refused_as_envoy_refuses_them() -> Result<()> {
    let statuses = compare(&json!([filter(&three())]), |_| {})?;
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    Ok(())
}

#[test]
fn a_limit_says_what_it_is() -> Result<()> {
    let mut told = three();
    told["enable_x_ratelimit_headers"] = json!("DRAFT_VERSION_03");
    told["status"] = json!({"code": "ServiceUnavailable"});
    told["rate_limited_as_resource_exhausted"] = json!(true);
    let statuses = compare(&json!([filter(&told)]), |call| {
        call.method = "POST".to_owned();
        call.h2 = true;
        call.headers.insert("content-type".to_owned(), "application/grpc".to_owned());
    })?;
    assert_eq!(statuses, [200; 5], "the status of a call is gRPC's");
    Ok(())
}

#[test]
fn a_limit_that_is_not_enforced_only_marks_requests() -> Result<()> {
    let mut lenient = three();
    lenient["filter_enforced"] = json!({"default_value": {"numerator": 0}});
    lenient["request_headers_to_add_when_not_enforced"] =
        json!([{"header": {"key": "x-unlimited", "value": "1"}}]);
    let statuses = compare(&json!([filter(&lenient)]), |_| {})?;
    assert_eq!(statuses, [200; 5]);
    Ok(())
}

#[test]
fn routes_have_limits_of_their_own_also_as_typed_structs() -> Result<()> {
    let mut value = three();
    if let Some(object) = value.as_object_mut() {
        object.remove("@type");
    }
    let as_struct = |value: &Value| json!({"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": LOCAL_RATE_LIMIT, "value": value});
    let patches = json!([filter(&as_struct(&json!({"stat_prefix": "none"}))), of_routes(&as_struct(&value))]);
    let statuses = compare(&patches, |_| {})?;
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    Ok(())
}
