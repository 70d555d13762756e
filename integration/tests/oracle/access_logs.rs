//! Access logs: the same lines of the same requests and connections, apart from times, ids, and the ends of connections.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use orlop_integration::{Call, Mesh, Pod, Service, until};
use serde_json::{Value, json};

use crate::doors::Doors;
use crate::ways::{Ways, assert_none};

/// Everybody logs, in Istio's own format.
fn logging(provider: &str) -> String {
    let telemetry = json!({
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "logs", "namespace": "istio-system"},
        "spec": {"accessLogging": [{"providers": [{"name": provider}]}]},
    });
    format!("---\n{telemetry}\n")
}

/// Routes of every kind of outcome.
fn outcomes(web: &Service) -> String {
    let v1 = json!([web.subset("v1")]);
    let always = json!({"value": 100});
    let gone = json!([{"destination": {"host": "gone.default.svc.cluster.local"}}]);
    let closed =
        json!([{"destination": {"host": "closed.default.svc.cluster.local", "port": {"number": 8080}}}]);
    let routes = json!([
        {"name": "direct", "match": [{"uri": {"exact": "/direct"}}],
         "directResponse": {"status": 418, "body": {"string": "teapot"}}},
        {"match": [{"uri": {"exact": "/redirect"}}], "redirect": {"uri": "/elsewhere"}},
        {"name": "rewrite", "match": [{"uri": {"prefix": "/rewrite"}}], "rewrite": {"uri": "/rewritten"}, "route": v1},
        {"match": [{"uri": {"exact": "/abort"}}], "route": v1,
         "fault": {"abort": {"httpStatus": 503, "percentage": always},
                   "delay": {"fixedDelay": "0.05s", "percentage": always}}},
        {"match": [{"uri": {"exact": "/slow"}}], "timeout": "0.2s", "route": v1},
        {"match": [{"uri": {"exact": "/try"}}],
         "retries": {"attempts": 1, "perTryTimeout": "0.2s", "retryOn": "reset"}, "route": v1},
        {"match": [{"uri": {"exact": "/retry"}}], "retries": {"attempts": 1, "retryOn": "5xx"}, "route": v1},
        {"match": [{"uri": {"exact": "/gone"}}], "route": gone},
        {"match": [{"uri": {"exact": "/closed"}}], "route": closed, "retries": {"attempts": 0}},
        {"match": [{"uri": {"exact": "/closed-again"}}], "route": closed,
         "retries": {"attempts": 1, "retryOn": "connect-failure"}},
        {"name": "only-a-header", "match": [{"headers": {"x-any": {"exact": "1"}}}], "route": v1},
    ]);
    web.subsets_by_version(&["v1", "v2"]) + &web.http_routes(&routes)
}

/// A service at whose endpoint nobody listens.
fn closed(servers: &[Pod; 2]) -> String {
    Service::new("closed", "10.96.0.30").http(8080, 1).tcp(9000, 1).endpoint(&servers[0]).yaml()
}

/// A request whose answer has the same length whoever carried it.
fn get(path: &str, base: &Call) -> Call {
    let mut call = Call { path: path.to_owned(), ..base.clone() };
    call.headers.insert("x-echo-bytes".to_owned(), "1000".to_owned());
    call
}

/// The lines of one proxy, comparable.
fn lines(log: &str, prefix: &str, own: IpAddr) -> Vec<String> {
    let lines = log.lines().filter_map(|line| line.strip_prefix(prefix));
    let lines = lines.filter(|line| line.starts_with("[2") && line.contains('"'));
    lines.map(|line| comparable(line, own)).collect()
}

/// Without its times, its id, and this side's ports.
fn comparable(line: &str, own: IpAddr) -> String {
    const TIME: usize = 0;
    const DURATION: usize = 11;
    const SERVICE_TIME: usize = 12;
    const ID: usize = 15;
    const UPSTREAM_LOCAL: usize = 19;
    const DOWNSTREAM_REMOTE: usize = 21;
    let own = own.to_string();
    let fields = line.split(' ').enumerate().map(|(position, field)| match position {
        TIME => "[time]".to_owned(),
        DURATION | SERVICE_TIME if field.parse::<u64>().is_ok() => "ms".to_owned(),
        ID if field != "\"-\"" => "\"id\"".to_owned(),
        UPSTREAM_LOCAL | DOWNSTREAM_REMOTE if field.starts_with(&own) => "own:port".to_owned(),
        _ => field.replace(&own, "own"),
    });
    fields.collect::<Vec<_>>().join(" ")
}

/// Both proxies' lines, once there are so many of each.
fn both(count: usize, read: impl Fn() -> [Vec<String>; 2]) -> Result<[Vec<String>; 2]> {
    until("the lines of both logs", Duration::from_secs(10), || {
        let lines = read();
        let counts = lines.each_ref().map(Vec::len);
        ensure!(counts == [count; 2], "{counts:?} of {count} lines: {lines:#?}");
        Ok(Some(lines))
    })
}

fn compare<'a>(names: impl IntoIterator<Item = &'a str>, [by_orlop, by_envoy]: &[Vec<String>; 2]) {
    let pairs = names.into_iter().zip(by_orlop.iter().zip(by_envoy));
    let differ = pairs.filter(|(_, (orlop, envoy))| orlop != envoy);
    let differences: Vec<_> =
        differ.map(|(name, (orlop, envoy))| format!("{name}\n  Orlop: {orlop}\n  Envoy: {envoy}")).collect();
    assert_none(&differences);
}

fn of_ways(ways: &Ways) -> [Vec<String>; 2] {
    [
        lines(&ways.agent.log(), "default/orlop ", ways.orlop.ip()),
        lines(&ways.sidecar.log(), "", ways.envoy.ip()),
    ]
}

#[test]
fn requests_are_logged_as_envoy_logs_them() -> Result<()> {
    let ways = Ways::with_mesh("", |web, servers| outcomes(web) + &closed(servers) + &logging("envoy"))?;
    let base = ways.request();
    let with = |path: &str, header: &str, value: &str| {
        let mut call = get(path, &base);
        call.headers.insert(header.to_owned(), value.to_owned());
        call
    };
    let get = |path: &str| get(path, &base);
    let post = Call { method: "POST".to_owned(), body: "0123456789".to_owned(), ..with("/", "x-any", "1") };
    let requests = [
        ("answered", with("/found?with=query", "x-any", "1")),
        ("with a body", post.clone()),
        ("over HTTP/2", Call { h2: true, ..post }),
        ("HEAD", Call { method: "HEAD".to_owned(), ..with("/", "x-any", "1") }),
        ("with an agent", with("/direct", "user-agent", "test/1")),
        ("answered by the proxy", get("/direct")),
        ("redirected", get("/redirect")),
        ("rewritten", get("/rewrite/a")),
        ("aborted after a delay", get("/abort")),
        ("too slow", with("/slow", "x-echo-delay", "1000")),
        ("too slow for one try", with("/try", "x-echo-delay", "1000")),
        ("a status that is tried again", with("/retry", "x-echo-status", "503")),
        ("without a cluster", get("/gone")),
        ("nobody listens", get("/closed")),
        ("nobody listens, twice", get("/closed-again")),
        ("without a route", get("/nowhere")),
    ];
    for (_, call) in &requests {
        for pod in [&ways.orlop, &ways.envoy] {
            pod.http(call.to).call(call.clone()).send()?;
        }
    }
    let logged = both(requests.len(), || of_ways(&ways))?;
    compare(requests.iter().map(|(name, _)| *name), &logged);
    Ok(())
}

#[test]
fn connections_are_logged_as_envoy_logs_them() -> Result<()> {
    let ways = Ways::with_mesh("", |_, servers| closed(servers) + &logging("envoy"))?;
    for pod in [&ways.orlop, &ways.envoy] {
        pod.tcp(Mesh::TCP).connect()?;
        pod.tcp("10.96.0.30:9000".parse()?).connect()?;
    }
    let logged = both(2, || of_ways(&ways))?;
    // The service has two endpoints, of which each proxy has chosen one.
    let chosen = |lines: &Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.replace("10.77.0.3:", "any:").replace("10.77.0.4:", "any:")).collect()
    };
    compare(["answered", "nobody listens"], &logged.each_ref().map(chosen));
    Ok(())
}

#[test]
fn what_comes_in_is_logged_as_envoy_logs_it() -> Result<()> {
    let doors = Doors::open(|_| {
        let policy = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "no admin", "namespace": "default"},
            "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}]},
        });
        format!("---\n{policy}\n").replace("no admin", "no-admin") + &logging("envoy")
    })?;
    let base = doors.request();
    let requests = [("let in", get("/", &base)), ("turned away", get("/admin", &base))];
    for (_, call) in &requests {
        doors.ask(call)?;
    }
    let logged = both(requests.len(), || {
        [
            lines(&doors.agent.log(), "default/orlop ", doors.orlop.ip()),
            lines(&doors.sidecar.log(), "", doors.envoy.ip()),
        ]
    })?;
    // Envoy comes to the application from an address of its own, Orlop from the client's.
    let common = |lines: &Vec<String>, pod: &Pod| -> Vec<String> {
        let client = doors.client.ip().to_string();
        let ends = |field: &str| field.starts_with("127.0.0.") || field.starts_with(&client);
        let fields = |line: &String| {
            let fields = line.split(' ').map(|field| if ends(field) { "end:port" } else { field });
            fields.collect::<Vec<_>>().join(" ").replace(&pod.ip().to_string(), "own")
        };
        lines.iter().map(fields).collect()
    };
    let [by_orlop, by_envoy] = &logged;
    let logged = [common(by_orlop, &doors.orlop), common(by_envoy, &doors.envoy)];
    compare(requests.iter().map(|(name, _)| *name), &logged);
    Ok(())
}

#[test]
fn json_is_logged_as_envoy_logs_it() -> Result<()> {
    let provider = json!([{"name": "json", "envoyFileAccessLog": {"path": "/dev/stdout", "logFormat": {"labels": {
        "path": "%REQ(:PATH)%", "code": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%", "flags": "%RESPONSE_FLAGS%",
        "both": "%REQ(:METHOD)% of %REQ(X-NONE)%", "none": "%REQ(X-NONE)%", "literal": "100%% \"sure\"",
        "nested": {"route": "%ROUTE_NAME%", "number": 7, "flag": true, "list": ["%PROTOCOL%", 1.5]},
    }}}}]);
    let mesh = format!("extensionProviders: {provider}\n");
    let ways = Ways::with_mesh(&mesh, |web, _| outcomes(web) + &logging("json"))?;
    for path in ["/direct", "/nowhere"] {
        for pod in [&ways.orlop, &ways.envoy] {
            pod.http(Mesh::WEB).call(get(path, &ways.request())).send()?;
        }
    }
    let of = |log: &str| -> Vec<String> {
        log.lines().filter(|line| line.starts_with('{')).map(ToOwned::to_owned).collect()
    };
    let [by_orlop, by_envoy] = both(2, || [of(&ways.agent.log()), of(&ways.sidecar.log())])?;
    let named = |line: &String| -> Result<String> {
        let mut value: Value = serde_json::from_str(line)?;
        let workload = value.as_object_mut().and_then(|line| line.remove("orlop_workload"));
        ensure!(workload == Some(json!("default/orlop")), "{workload:?}");
        Ok(line.replace("\"orlop_workload\":\"default/orlop\",", ""))
    };
    let by_orlop = by_orlop.iter().map(named).collect::<Result<Vec<_>>>()?;
    compare(["answered by the proxy", "without a route"], &[by_orlop, by_envoy]);
    Ok(())
}
