//! Filters that routes configure: faults, and answers to pages of other origins.

use anyhow::Result;
use orlop_integration::{Call, Service};
use serde_json::{Value, json};

use crate::ways::Ways;

fn faults(web: &Service) -> Value {
    let v1 = json!([web.subset("v1")]);
    let always = json!({"value": 100});
    json!([
        {"match": [{"uri": {"exact": "/abort"}}], "route": v1,
         "fault": {"abort": {"httpStatus": 418, "percentage": always}},
         "headers": {"response": {"set": {"x-resp": "1"}}}},
        {"match": [{"uri": {"exact": "/never"}}], "route": v1,
         "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 0}}}},
        {"match": [{"uri": {"exact": "/grpc"}}], "route": v1,
         "fault": {"abort": {"grpcStatus": "RESOURCE_EXHAUSTED", "percentage": always}}},
        {"match": [{"uri": {"exact": "/delay"}}], "route": v1,
         "fault": {"delay": {"fixedDelay": "0.3s", "percentage": always}}},
        {"match": [{"uri": {"exact": "/late"}}], "route": v1, "timeout": "0.1s",
         "fault": {"delay": {"fixedDelay": "0.3s", "percentage": always}}},
        {"match": [{"uri": {"exact": "/both"}}], "route": v1, "fault": {
            "delay": {"fixedDelay": "0.3s", "percentage": always},
            "abort": {"httpStatus": 503, "percentage": always}}},
        {"route": v1},
    ])
}

#[test]
fn faults_are_injected_as_envoy_injects_them() -> Result<()> {
    let ways = Ways::open(faults)?;
    let get = |path: &str| Call { path: path.to_owned(), ..ways.request() };
    let grpc = |path: &str| {
        let mut call = Call { method: "POST".to_owned(), h2: true, ..get(path) };
        call.headers.insert("content-type".to_owned(), "application/grpc".to_owned());
        call
    };
    ways.compare(&[
        ("abort", get("/abort")),
        ("abort to HEAD", Call { method: "HEAD".to_owned(), ..get("/abort") }),
        ("abort over HTTP/2", Call { h2: true, ..get("/abort") }),
        ("abort of a call", grpc("/abort")),
        ("abort of no requests", get("/never")),
        ("gRPC status to a request", get("/grpc")),
        ("gRPC status to a call", grpc("/grpc")),
        ("delay", get("/delay")),
        ("delay beyond the route's timeout, which does not run yet", get("/late")),
        ("delay, then abort", get("/both")),
        ("none", get("/")),
    ])?;
    let [by_orlop, by_envoy] = ways.counted("fault.*injected")?;
    assert_eq!(by_orlop, by_envoy);
    for path in ["/delay", "/both"] {
        let took = ways.orlop.http(ways.request().to).call(get(path)).send()?.us;
        assert!(took >= 300_000, "{path} took {took} µs");
    }
    Ok(())
}

fn origins(web: &Service) -> Value {
    let v1 = json!([web.subset("v1")]);
    let all = json!({
        "allowOrigins": [{"exact": "https://a.example"}, {"prefix": "https://p."}, {"regex": "https://[0-9]+\\.r"}],
        "allowMethods": ["GET", "PUT"], "allowHeaders": ["x-one", "x-two"], "exposeHeaders": ["x-three"],
        "maxAge": "24h", "allowCredentials": true,
    });
    json!([
        {"match": [{"uri": {"exact": "/all"}}], "route": v1, "corsPolicy": all},
        {"match": [{"uri": {"exact": "/any"}}], "route": v1,
         "corsPolicy": {"allowOrigins": [{"exact": "*"}], "allowMethods": ["*"], "allowHeaders": ["*"]}},
        {"match": [{"uri": {"exact": "/strict"}}], "route": v1, "corsPolicy": {
            "allowOrigins": [{"exact": "https://a.example"}], "allowMethods": ["GET"],
            "unmatchedPreflights": "IGNORE", "allowCredentials": false}},
        {"match": [{"uri": {"exact": "/direct"}}], "directResponse": {"status": 200}, "corsPolicy": all},
        {"match": [{"uri": {"exact": "/fault"}}], "route": v1, "corsPolicy": all,
         "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}},
        {"route": v1},
    ])
}

#[test]
fn pages_of_other_origins_are_answered_as_envoy_answers_them() -> Result<()> {
    let ways = Ways::open(origins)?;
    let simple = |path: &str, origin: &str| {
        let mut call = Call { path: path.to_owned(), ..ways.request() };
        call.headers.insert("origin".to_owned(), origin.to_owned());
        call
    };
    let preflight = |path: &str, origin: &str| {
        let mut call = Call { method: "OPTIONS".to_owned(), ..simple(path, origin) };
        let asked =
            [("access-control-request-method", "DELETE"), ("access-control-request-headers", "x-asked")];
        call.headers.extend(asked.map(|(name, value)| (name.to_owned(), value.to_owned())));
        call
    };
    let mut requests = Vec::new();
    for path in ["/all", "/any", "/strict", "/direct", "/fault", "/"] {
        for origin in
            ["https://a.example", "https://A.example", "https://p.q", "https://42.r", "https://42.rr", ""]
        {
            requests.push((format!("{path} from {origin}"), simple(path, origin)));
            requests.push((format!("preflight of {path} from {origin}"), preflight(path, origin)));
        }
    }
    let mut options = simple("/all", "https://a.example");
    options.method = "OPTIONS".to_owned();
    requests.push(("options that are no preflight".to_owned(), options));
    let requests: Vec<_> = requests.iter().map(|(name, call)| (name.as_str(), call.clone())).collect();
    ways.compare(&requests)?;
    let [by_orlop, by_envoy] = ways.counted("cors")?;
    assert_eq!(by_orlop, by_envoy);
    Ok(())
}
