//! Traces: the same spans of the same requests, the same marks in request ids, and the same words to the next hop.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::istio::document;
use orlop_integration::{Call, Mesh, Pod, Reply, Service, until};
use serde_json::{Map, Value, json};

use crate::doors::Doors;
use crate::ways::{Ways, assert_none, counted};

const COLLECTOR: &str = "collector.default.svc.cluster.local";

/// The ways in which spans are collected.
fn providers() -> String {
    let http =
        json!({"path": "/v1/traces", "timeout": "2s", "headers": [{"name": "x-told", "value": "http"}]});
    let grpc = json!({"timeout": "2s", "initialMetadata": [{"name": "x-told", "value": "grpc"}]});
    let providers = json!([
        {"name": "otlp-grpc", "opentelemetry": {"service": COLLECTOR, "port": 4317, "grpc": grpc, "maxTagLength": 16}},
        {"name": "otlp-http", "opentelemetry": {"service": COLLECTOR, "port": 4318, "http": http}},
        {"name": "zipkin", "zipkin": {"service": COLLECTOR, "port": 9411}},
        {"name": "zipkin-w3c", "zipkin": {"service": COLLECTOR, "port": 9411, "enable64bitTraceId": true,
            "traceContextOption": "USE_B3_WITH_W3C_PROPAGATION"}},
    ]);
    format!("extensionProviders: {providers}\n")
}

fn telemetry(provider: &str, percent: f64) -> String {
    document(&json!({
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "traces", "namespace": "istio-system"},
        "spec": {"tracing": [{
            "providers": [{"name": provider}],
            "randomSamplingPercentage": percent,
            "customTags": {
                "literal": {"literal": {"value": "always"}},
                "header": {"header": {"name": "X-Any"}},
                "name": {"header": {"name": "X-Name"}},
                "header-or": {"header": {"name": "x-other", "defaultValue": "none"}},
                "environment": {"environment": {"name": "ORLOP_TEST_NOTHING", "defaultValue": "default"}},
                "formatted": {"formatter": {"value": "%REQ(:METHOD)% of %UPSTREAM_CLUSTER%"}},
            },
        }]},
    }))
}

/// It has no endpoints.
fn collector_service() -> Service {
    Service::new("collector", "10.96.0.50").port(4317, 8080, "GRPC").http(4318, 8080).http(9411, 8080)
}

/// The collector is the first server, by another name.
fn collector(pod: &Pod) -> String {
    collector_service().endpoint(pod).yaml()
}

fn routes(web: &Service) -> String {
    let v1 = json!([web.subset("v1")]);
    let gone = json!([{"destination": {"host": "gone.default.svc.cluster.local"}}]);
    let routes = json!([
        {"match": [{"uri": {"exact": "/direct"}}], "directResponse": {"status": 418, "body": {"string": "teapot"}}},
        {"match": [{"uri": {"exact": "/broken"}}], "directResponse": {"status": 503}},
        {"match": [{"uri": {"prefix": "/rewrite"}}], "rewrite": {"uri": "/rewritten"}, "route": v1},
        {"match": [{"uri": {"exact": "/slow"}}], "timeout": "0.2s", "route": v1},
        {"match": [{"uri": {"exact": "/retry"}}], "retries": {"attempts": 1, "retryOn": "5xx"}, "route": v1},
        {"match": [{"uri": {"exact": "/gone"}}], "route": gone},
        {"route": v1},
    ]);
    web.subsets_by_version(&["v1", "v2"]) + &web.http_routes(&routes)
}

fn traced(provider: &str, percent: f64) -> Result<Ways> {
    Ways::with_mesh(&providers(), |web, [collects, _]| {
        routes(web) + &collector(collects) + &telemetry(provider, percent)
    })
}

fn with(base: &Call, path: &str, headers: &[(&str, &str)]) -> Call {
    let mut call = Call { path: path.to_owned(), ..base.clone() };
    call.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    call
}

/// A tag's value; empty where it is not there.
fn tag<'s>(span: &'s Value, name: &str) -> &'s str {
    span.get("tags").and_then(|tags| tags.get(name)?.as_str()).unwrap_or_default()
}

/// The spans that a proxy has sent, by the name of their request, once there are so many of each.
fn collected(at: &Pod, ours: &Pod, theirs: &Pod, count: usize) -> Result<[Vec<Value>; 2]> {
    until("the spans of both proxies", Duration::from_secs(20), || {
        let all = at.http("127.0.0.1:8080".parse()?).path("/collected").send()?.body;
        let all: Vec<Value> = serde_json::from_str(&all)?;
        let of = |pod: &Pod| -> Vec<Value> {
            let id = format!("~{}.default~", pod.name());
            let is_of = |span: &&Value| tag(span, "node_id").contains(&id);
            all.iter().filter(is_of).cloned().collect()
        };
        let spans = [of(ours), of(theirs)];
        let counts = spans.each_ref().map(Vec::len);
        ensure!(counts == [count; 2], "{counts:?} of {count} spans: {all:#?}");
        Ok(Some(spans))
    })
}

/// Without ids, times, and what is each proxy's own. Parents are told from none.
fn comparable(span: &Value, own: &Pod) -> Result<Value> {
    let mut span = span.clone();
    let fields = span.as_object_mut().context("a span is an object")?;
    for time in ["timestamp", "duration", "flags", "scope"] {
        fields.remove(time);
    }
    for annotation in fields.get_mut("annotations").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(timestamp) = annotation.get_mut("timestamp") {
            *timestamp = json!(timestamp.is_u64());
        }
    }
    for id in ["traceId", "id", "parentId"] {
        let digits = fields.get(id).and_then(Value::as_str).unwrap_or_default();
        let known = digits.ends_with("0000000000000001");
        let shape = if known { digits.to_owned() } else { format!("{} digits", digits.len()) };
        fields.insert(id.to_owned(), json!(shape));
    }
    if let Some(resource) = fields.get_mut("resource").and_then(Value::as_object_mut) {
        // Each says truly what it is.
        resource.retain(|name, _| !name.starts_with("telemetry.sdk."));
    }
    let tags = fields.get_mut("tags").and_then(Value::as_object_mut).context("tags")?;
    tags.entry("guid:x-request-id")
        .and_modify(|id| *id = json!(shape_of_id(id.as_str().unwrap_or_default())));
    let text = serde_json::to_string(&span)?;
    // The name that Istio gives a cluster in statistics.
    let text = text.replace(";\"", "\"");
    let text = text.replace(&own.ip().to_string(), "own").replace(&format!("~{}.", own.name()), "~name.");
    Ok(serde_json::from_str(&text)?)
}

/// A request id by the digit that tells of sampling.
fn shape_of_id(id: &str) -> String {
    format!("{} bytes, {}", id.len(), id.get(14..15).unwrap_or_default())
}

fn compare_spans(names: &[String], pods: [&Pod; 2], spans: &[Vec<Value>; 2]) -> Result<()> {
    let by_name = |spans: &[Value], pod: &Pod| -> Result<BTreeMap<String, Value>> {
        let keyed = spans.iter().map(|span| Ok((tag(span, "name").to_owned(), comparable(span, pod)?)));
        keyed.collect()
    };
    let [by_orlop, by_envoy] = [by_name(&spans[0], pods[0])?, by_name(&spans[1], pods[1])?];
    let mut differences = Vec::new();
    for name in names {
        let (orlop, envoy) = (by_orlop.get(name), by_envoy.get(name));
        if orlop != envoy || orlop.is_none() {
            differences.push(format!("{name}\n{}", differing(orlop, envoy)));
        }
    }
    assert_none(&differences);
    Ok(())
}

/// The fields and tags that differ.
fn differing(orlop: Option<&Value>, envoy: Option<&Value>) -> String {
    let flat = |span: Option<&Value>| -> Map<String, Value> {
        let mut flat = Map::new();
        for (field, value) in span.and_then(Value::as_object).into_iter().flatten() {
            match value.as_object() {
                Some(object) => {
                    flat.extend(
                        object.iter().map(|(name, value)| (format!("{field}.{name}"), value.clone())),
                    );
                }
                None => drop(flat.insert(field.clone(), value.clone())),
            }
        }
        flat
    };
    let (orlop, envoy) = (flat(orlop), flat(envoy));
    let names: std::collections::BTreeSet<_> = orlop.keys().chain(envoy.keys()).collect();
    let differ = names.into_iter().filter(|name| orlop.get(*name) != envoy.get(*name));
    let lines =
        differ.map(|name| format!("  {name}: Orlop {:?}, Envoy {:?}", orlop.get(name), envoy.get(name)));
    lines.collect::<Vec<_>>().join("\n")
}

/// What the next hop was told, by shape: how long values are, and flags in full.
fn told(reply: &Reply) -> BTreeMap<String, String> {
    let Ok(echo) = reply.echo() else { return BTreeMap::new() };
    let about = |name: &str| name.starts_with("x-b3") || ["traceparent", "tracestate", "b3"].contains(&name);
    let traced =
        echo.headers.iter().filter(|(name, _)| about(name) || *name == "x-envoy-decorator-operation");
    let mut told: BTreeMap<_, _> = traced
        .map(|(name, value)| {
            let shape = |part: &str| match part.len() {
                0..=2 => part.to_owned(),
                _ if part.ends_with("0000000000000001") => part.to_owned(),
                length => format!("{length} digits"),
            };
            let shown = match name.as_str() {
                "tracestate" | "x-envoy-decorator-operation" => value.clone(),
                _ => value.split('-').map(shape).collect::<Vec<_>>().join("-"),
            };
            (name.clone(), shown)
        })
        .collect();
    if let Some(id) = echo.headers.get("x-request-id") {
        told.insert("x-request-id".to_owned(), shape_of_id(id));
    }
    told
}

/// Sends all both ways, and compares what the next hop and the collector are told.
fn compare(ways: &Ways, requests: &[(&str, Call)], reported: usize) -> Result<Vec<Value>> {
    let mut differences = Vec::new();
    let mut names = Vec::new();
    for (i, (name, call)) in requests.iter().enumerate() {
        let mut call = call.clone();
        call.headers.insert("x-name".to_owned(), i.to_string());
        let [by_orlop, by_envoy] =
            [&ways.orlop, &ways.envoy].map(|pod| pod.http(call.to).call(call.clone()).send());
        let (by_orlop, by_envoy) = (by_orlop?, by_envoy?);
        let seen = |reply: &Reply| (reply.status, told(reply));
        if seen(&by_orlop) != seen(&by_envoy) {
            differences.push(format!(
                "{name}\n  Orlop: {:?}\n  Envoy: {:?}",
                seen(&by_orlop),
                seen(&by_envoy)
            ));
        }
        names.push(i.to_string());
    }
    let spans = collected(&ways.servers[0], &ways.orlop, &ways.envoy, reported);
    assert_none(&differences);
    let spans = spans?;
    if reported == requests.len() {
        compare_spans(&names, [&ways.orlop, &ways.envoy], &spans)?;
    }
    let [by_orlop, _] = spans;
    Ok(by_orlop)
}

fn outcomes(base: &Call) -> Vec<(&'static str, Call)> {
    let short = ("x-echo-bytes", "10");
    let post = Call { method: "POST".to_owned(), body: "0123456789".to_owned(), ..with(base, "/", &[short]) };
    vec![
        ("answered", with(base, "/found", &[("x-any", "any")])),
        ("over HTTP/2", Call { h2: true, ..with(base, "/found", &[]) }),
        ("with a body", post),
        ("a long path", with(base, &format!("/{}", "long".repeat(100)), &[])),
        ("with an agent", with(base, "/direct", &[("user-agent", "test/1")])),
        ("answered by the proxy", with(base, "/direct", &[])),
        ("an error of the proxy", with(base, "/broken", &[])),
        ("an error of the endpoint", with(base, "/", &[("x-echo-status", "500"), short])),
        ("not found by the endpoint", with(base, "/", &[("x-echo-status", "404"), short])),
        ("rewritten", with(base, "/rewrite/a", &[])),
        ("too slow", with(base, "/slow", &[("x-echo-delay", "1000")])),
        ("tried again", with(base, "/retry", &[("x-echo-status", "503"), short])),
        ("without a cluster", with(base, "/gone", &[])),
        ("by a client that asks", with(base, "/", &[("x-client-trace-id", "7")])),
    ]
}

#[test]
fn requests_are_traced_by_open_telemetry_as_envoy_traces_them() -> Result<()> {
    let ways = traced("otlp-grpc", 100.0)?;
    let base = ways.request();
    let parent = |flags: &str| format!("00-00000000000000020000000000000001-0000000000000001-{flags}");
    let mut requests = outcomes(&base);
    requests.push((
        "with a parent",
        with(&base, "/", &[("traceparent", &parent("01")), ("tracestate", "a=1,b=2")]),
    ));
    requests.push((
        "gRPC",
        Call { h2: true, ..with(&base, "/", &[("content-type", "application/grpc"), ("x-echo-grpc", "5")]) },
    ));
    let count = requests.len();
    let spans = compare(&ways, &requests, count)?;
    assert!(spans.iter().all(|span| span["way"]["x-told"] == "grpc"));
    assert_eq!(counted(&ways.orlop, "orlop.proxy.spans_sent")?, format!("orlop.proxy.spans_sent: {count}"));
    // What is not sampled goes on as it is.
    let silent = [
        ("with a parent that is not traced", with(&base, "/", &[("traceparent", &parent("00"))])),
        ("with what is no parent", with(&base, "/", &[("traceparent", "nonsense")])),
    ];
    compare(&ways, &silent, count)?;
    Ok(())
}

#[test]
fn requests_are_traced_by_zipkin_as_envoy_traces_them() -> Result<()> {
    let ways = traced("zipkin", 100.0)?;
    let base = ways.request();
    let (trace, span) = ("00000000000000020000000000000001", "0000000000000001");
    let single = format!("{trace}-{span}-1");
    let mut requests = outcomes(&base);
    requests.push(("with a parent", with(&base, "/", &[("x-b3-traceid", trace), ("x-b3-spanid", span)])));
    requests.push(("with a parent in one header", with(&base, "/", &[("b3", &single)])));
    let count = requests.len();
    compare(&ways, &requests, count)?;
    let silent = [
        ("not to be traced", with(&base, "/", &[("x-b3-sampled", "0")])),
        ("not to be traced, in one header", with(&base, "/", &[("b3", "0")])),
        ("with what is no parent", with(&base, "/", &[("b3", "nonsense")])),
    ];
    compare(&ways, &silent, count)?;
    Ok(())
}

#[test]
fn other_ways_to_collect_are_as_envoys() -> Result<()> {
    let parent = "00-00000000000000020000000000000001-0000000000000001-01";
    for (provider, path) in [("otlp-http", "/v1/traces"), ("zipkin-w3c", "/api/v2/spans")] {
        let ways = traced(provider, 100.0)?;
        let base = ways.request();
        let requests = [
            ("answered", with(&base, "/", &[])),
            ("with a parent", with(&base, "/", &[("traceparent", parent)])),
        ];
        let spans = compare(&ways, &requests, requests.len())?;
        assert!(spans.iter().all(|span| span["way"]["path"] == path), "{spans:?}");
    }
    Ok(())
}

#[test]
fn a_request_id_decides_as_with_envoy() -> Result<()> {
    let ways = traced("otlp-grpc", 50.0)?;
    let base = ways.request();
    let id = |number: u32, digit: char| format!("{number:08x}-0000-{digit}000-8000-000000000000");
    let with_id = |number, digit| with(&base, "/", &[("x-request-id", &id(number, digit))]);
    let requests = [
        ("below", with_id(4_999, '4')),
        ("above", with_id(5_000, '4')),
        ("above, and marked", with_id(9_999, '9')),
        ("forced by a proxy before", with_id(9_999, 'a')),
        ("forced by the client", with_id(9_999, 'b')),
        ("no id", with(&base, "/", &[("x-request-id", "short")])),
        ("asked for", with(&base, "/", &[("x-request-id", &id(9_999, '4')), ("x-client-trace-id", "1")])),
    ];
    compare(&ways, &requests, 5)?;
    let [by_orlop, by_envoy] = ways.counted("http.*tracing")?;
    assert_eq!(by_orlop, by_envoy);
    Ok(())
}

#[test]
fn spans_that_nobody_takes_are_counted() -> Result<()> {
    let ways = Ways::with_mesh(&providers(), |web, _| {
        routes(web) + &collector_service().yaml() + &telemetry("otlp-grpc", 100.0)
    })?;
    let count = 3;
    for _ in 0..count {
        let reply = ways.orlop.http(Mesh::WEB).call(ways.request()).send()?;
        assert_eq!(reply.status, 200);
    }
    until("spans that are lost", Duration::from_secs(20), || {
        let counted = counted(&ways.orlop, "orlop.proxy.spans_dropped")?;
        Ok((counted == format!("orlop.proxy.spans_dropped: {count}")).then_some(()))
    })
}

#[test]
fn what_comes_in_is_traced_by_open_telemetry_as_envoy_traces_it() -> Result<()> {
    what_comes_in("otlp-grpc")
}

#[test]
fn what_comes_in_is_traced_by_zipkin_as_envoy_traces_it() -> Result<()> {
    what_comes_in("zipkin")
}

fn what_comes_in(provider: &str) -> Result<()> {
    let mut collects = None;
    let doors = Doors::with_mesh(&providers(), |bed, _| {
        let pod = bed.pod("collector").start()?;
        pod.serve_http(8080)?;
        let service = collector(&pod);
        collects = Some(pod);
        Ok((Vec::new(), service + &telemetry(provider, 100.0)))
    })?;
    let collects = collects.context("the collector")?;
    let base = doors.request();
    let parent = "00-00000000000000020000000000000001-0000000000000001-01";
    let b3 = "00000000000000020000000000000001-0000000000000001-1";
    let requests = [
        ("answered", with(&base, "/", &[])),
        (
            "named by the client",
            with(
                &base,
                "/",
                &[("x-envoy-decorator-operation", "named"), ("traceparent", parent), ("b3", b3)],
            ),
        ),
        ("an error", with(&base, "/", &[("x-echo-status", "503")])),
    ];
    let mut differences = Vec::new();
    let mut names = Vec::new();
    for (i, (name, call)) in requests.iter().enumerate() {
        let mut call = call.clone();
        call.headers.insert("x-name".to_owned(), i.to_string());
        let [by_orlop, by_envoy] = doors.ask(&call)?;
        let told =
            |reply: &Reply| (told(reply), reply.header("x-envoy-decorator-operation").map(ToOwned::to_owned));
        if told(&by_orlop) != told(&by_envoy) {
            differences.push(format!(
                "{name}\n  Orlop: {:?}\n  Envoy: {:?}",
                told(&by_orlop),
                told(&by_envoy)
            ));
        }
        names.push(i.to_string());
    }
    assert_none(&differences);
    let spans = collected(&collects, &doors.orlop, &doors.envoy, requests.len())?;
    compare_spans(&names, [&doors.orlop, &doors.envoy], &spans)
}
