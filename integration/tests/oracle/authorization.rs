//! `AuthorizationPolicy` on requests: every operator with a request that it lets in and one that it does not.

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Call, Pod};
use serde_json::{Value, json};

use crate::doors::{Doors, Knock};

/// Method, path, a header, and whether it is let in.
type Request = (&'static str, &'static str, Option<(&'static str, &'static str)>, bool);

/// A rule that allows, and requests to it.
struct Case {
    name: &'static str,
    rule: Value,
    requests: Vec<Request>,
}

fn gets(paths: &[(&'static str, bool)]) -> Vec<Request> {
    paths.iter().map(|(path, passes)| ("GET", *path, None, *passes)).collect()
}

fn with(header: &'static str, values: &[(&'static str, bool)]) -> Vec<Request> {
    values.iter().map(|(value, passes)| ("GET", "/", Some((header, *value)), *passes)).collect()
}

fn case(name: &'static str, rule: Value, requests: Vec<Request>) -> Case {
    Case { name, rule, requests }
}

fn to(operation: &Value) -> Value {
    json!({"to": [{"operation": operation}]})
}

fn from(source: &Value) -> Value {
    json!({"from": [{"source": source}]})
}

fn when(key: &str, values: &[&str]) -> Value {
    json!({"when": [{"key": key, "values": values}]})
}

fn when_not(key: &str, values: &[&str]) -> Value {
    json!({"when": [{"key": key, "notValues": values}]})
}

fn operations() -> Vec<Case> {
    vec![
        case(
            "path",
            to(&json!({"paths": ["/a"]})),
            gets(&[("/a", true), ("/a?b=c", true), ("/a/", false), ("/A", false)]),
        ),
        case(
            "path prefix",
            to(&json!({"paths": ["/p/*"]})),
            gets(&[("/p/", true), ("/p/q", true), ("/p", false), ("/x/p/", false)]),
        ),
        case(
            "path suffix",
            to(&json!({"paths": ["*.html"]})),
            gets(&[("/i.html", true), ("/i.html?x", true), ("/i.htm", false)]),
        ),
        case("any path", to(&json!({"paths": ["*"]})), gets(&[("/anything", true)])),
        case(
            "path template",
            to(&json!({"paths": ["/t/{*}/x"]})),
            gets(&[
                ("/t/1/x", true),
                ("/t/1/x?q", true),
                ("/t/1/2/x", false),
                ("/t//x", false),
                ("/t/%2F/x", true),
                ("/t/a=b/x", true),
            ]),
        ),
        case(
            "path template of several segments",
            to(&json!({"paths": ["/u/{**}/y"]})),
            gets(&[
                ("/u/1/y", true),
                ("/u/1/2/y", true),
                ("/u/y", false),
                ("/u//y", true),
                ("/u/1/yy", false),
            ]),
        ),
        case(
            "not path",
            to(&json!({"paths": ["/n/*"], "notPaths": ["/n/secret*"]})),
            gets(&[("/n/a", true), ("/n/secret", false), ("/n/secrets?x", false)]),
        ),
        case(
            "normalized path",
            to(&json!({"paths": ["/z"]})),
            gets(&[("/y/../z", true), ("/%7A", true), ("/y/%2e%2e/z", true)]),
        ),
        case(
            "method",
            to(&json!({"methods": ["PUT", "POST"]})),
            vec![("PUT", "/", None, true), ("GET", "/", None, false)],
        ),
        case(
            "not method",
            to(&json!({"notMethods": ["GET"]})),
            vec![("PUT", "/", None, true), ("GET", "/", None, false)],
        ),
        case(
            "host",
            to(&json!({"hosts": ["a.example"]})),
            with(
                "host",
                &[("a.example", true), ("A.Example", true), ("b.example", false), ("a.example:8080", false)],
            ),
        ),
        case("host prefix", to(&json!({"hosts": ["a.*"]})), with("host", &[("a.b", true), ("b.a", false)])),
        case(
            "host suffix",
            to(&json!({"hosts": ["*.example"]})),
            with("host", &[("b.EXAMPLE", true), ("b.example.org", false)]),
        ),
        case(
            "not host",
            to(&json!({"notHosts": ["a.example"]})),
            with("host", &[("b.example", true), ("a.example", false)]),
        ),
        case("port", to(&json!({"ports": ["8080"]})), gets(&[("/", true)])),
        case("other port", to(&json!({"ports": ["9999"]})), gets(&[("/", false)])),
        case("not port", to(&json!({"notPorts": ["8080"]})), gets(&[("/", false)])),
        case(
            "all of an operation",
            to(&json!({"paths": ["/both"], "methods": ["PUT"]})),
            vec![("PUT", "/both", None, true), ("PUT", "/one", None, false), ("GET", "/both", None, false)],
        ),
        case(
            "any of several operations",
            json!({"to": [{"operation": {"paths": ["/one"]}}, {"operation": {"paths": ["/two"]}}]}),
            gets(&[("/one", true), ("/two", true), ("/three", false)]),
        ),
    ]
}

fn sources(client: &Pod) -> Vec<Case> {
    let own = client.ip().to_string();
    let forwarded = |values: &[(&'static str, bool)]| with("x-forwarded-for", values);
    let always = |passes| gets(&[("/", passes)]);
    vec![
        case("address", from(&json!({"ipBlocks": [own]})), always(true)),
        case("other address", from(&json!({"ipBlocks": ["192.0.2.0/24"]})), always(false)),
        case("not address", from(&json!({"notIpBlocks": [own]})), always(false)),
        case(
            "remote address",
            from(&json!({"remoteIpBlocks": ["192.0.2.0/24"]})),
            forwarded(&[
                ("192.0.2.7", true),
                ("192.0.3.7", false),
                ("192.0.2.7, 192.0.3.7", false),
                ("192.0.3.7,192.0.2.7 ", true),
                ("nonsense", false),
            ]),
        ),
        case(
            "remote address without a word of proxies",
            from(&json!({"remoteIpBlocks": [own]})),
            always(true),
        ),
        case(
            "not remote address",
            from(&json!({"notRemoteIpBlocks": ["192.0.2.0/24"]})),
            forwarded(&[("192.0.2.7", false), ("192.0.3.7", true)]),
        ),
        case("principal", from(&json!({"principals": ["*"]})), always(false)),
        case(
            "not principal",
            from(&json!({"notPrincipals": ["cluster.local/ns/default/sa/a"]})),
            always(true),
        ),
        case("namespace", from(&json!({"namespaces": ["default"]})), always(false)),
        case("not namespace", from(&json!({"notNamespaces": ["other"]})), always(true)),
        case("account", from(&json!({"serviceAccounts": ["default/a"]})), always(false)),
        case("request principal", from(&json!({"requestPrincipals": ["*"]})), always(false)),
        case("not request principal", from(&json!({"notRequestPrincipals": ["*"]})), always(true)),
    ]
}

fn conditions(client: &Pod) -> Vec<Case> {
    let own = client.ip().to_string();
    let always = |passes| gets(&[("/", passes)]);
    vec![
        case(
            "header",
            when("request.headers[x-a]", &["one"]),
            with("x-a", &[("one", true), ("ONE", false), ("one,two", false)]),
        ),
        case(
            "header prefix",
            when("request.headers[x-a]", &["on*"]),
            with("x-a", &[("one", true), ("no", false)]),
        ),
        case(
            "header suffix",
            when("request.headers[x-a]", &["*ne"]),
            with("x-a", &[("one", true), ("no", false)]),
        ),
        case("header present", when("request.headers[x-a]", &["*"]), {
            let mut requests = with("x-a", &[("anything", true)]);
            requests.extend(always(false));
            requests
        }),
        case("header not", when_not("request.headers[x-a]", &["one"]), {
            let mut requests = with("x-a", &[("one", false), ("two", true)]);
            requests.extend(always(true));
            requests
        }),
        case("source.ip", when("source.ip", &[&own]), always(true)),
        case("source.ip not", when_not("source.ip", &[&own]), always(false)),
        case(
            "remote.ip",
            when("remote.ip", &["192.0.2.7"]),
            with("x-forwarded-for", &[("192.0.2.7", true), ("192.0.2.8", false)]),
        ),
        case("source.namespace", when("source.namespace", &["default"]), always(false)),
        case("source.principal", when_not("source.principal", &["a"]), always(true)),
        case("destination.ip", when("destination.ip", &["192.0.2.1"]), always(false)),
        case("destination.ip not", when_not("destination.ip", &["192.0.2.1"]), always(true)),
        case("destination.port", when("destination.port", &["8080"]), always(true)),
        case("destination.port not", when_not("destination.port", &["8080"]), always(false)),
        case("connection.sni", when("connection.sni", &["a.example"]), always(false)),
        case("connection.sni not", when_not("connection.sni", &["a.example"]), always(true)),
        case("request.auth.claims", when("request.auth.claims[group]", &["admin"]), always(false)),
        case("request.auth.claims not", when_not("request.auth.claims[group]", &["admin"]), always(true)),
        case("request.auth.audiences", when("request.auth.audiences", &["a"]), always(false)),
        case("request.auth.presenter not", when_not("request.auth.presenter", &["a"]), always(true)),
    ]
}

fn policy(name: &str, annotations: &Value, spec: &Value) -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": spec,
    }))
}

/// One policy of one rule for each case, which is for requests that name the case.
fn allow(cases: &[Case]) -> String {
    let rule = |case: &Case| {
        let Case { name, rule, .. } = case;
        let named = json!({"key": "request.headers[x-case]", "values": [name]});
        let conditions = rule.get("when").and_then(Value::as_array).into_iter().flatten().chain([&named]);
        let mut rule = rule.as_object().cloned().unwrap_or_default();
        rule.insert("when".to_owned(), conditions.cloned().collect());
        Value::from(rule)
    };
    let rules: Vec<_> = cases.iter().map(rule).collect();
    policy("allow", &json!({}), &json!({"rules": rules}))
}

fn knocks(doors: &Doors, cases: &[Case]) -> Vec<Knock> {
    let mut knocks = Vec::new();
    for case in cases {
        for (method, path, header, is_let_in) in &case.requests {
            let mut call = Call { method: (*method).to_owned(), path: (*path).to_owned(), ..doors.request() };
            call.headers.extend(header.map(|(name, value)| (name.to_owned(), value.to_owned())));
            call.headers.insert("x-case".to_owned(), case.name.to_owned());
            let name = format!("{}: {method} {path} {header:?}", case.name);
            knocks.push(Knock { name, call, is_let_in: *is_let_in });
        }
    }
    knocks
}

#[test]
fn every_operator_lets_in_and_turns_away_whom_envoy_does() -> Result<()> {
    let cases = |client: &Pod| -> Vec<Case> {
        [operations(), sources(client), conditions(client)].into_iter().flatten().collect()
    };
    let doors = Doors::open(|client| allow(&cases(client)))?;
    let cases = cases(&doors.client);
    doors.compare(&knocks(&doors, &cases))
}

#[test]
fn denials_come_first_and_what_is_tried_is_counted_alone() -> Result<()> {
    let dry_run = json!({"istio.io/dry-run": "true"});
    let doors = Doors::open(|_| {
        policy("deny", &json!({}), &json!({"action": "DENY", "rules": [to(&json!({"paths": ["/denied*"]}))]}))
            + &policy(
                "audit",
                &json!({}),
                &json!({"action": "AUDIT", "rules": [to(&json!({"paths": ["/audited"]}))]}),
            )
            + &policy("allow", &json!({}), &json!({"rules": [to(&json!({"methods": ["GET"]}))]}))
            + &policy(
                "try-deny",
                &dry_run,
                &json!({"action": "DENY", "rules": [to(&json!({"paths": ["/tried"]}))]}),
            )
            + &policy("try-allow", &dry_run, &json!({"rules": [to(&json!({"paths": ["/tried"]}))]}))
    })?;
    let knock = |name: &str, method: &str, path: &str, is_let_in| Knock {
        name: name.to_owned(),
        call: Call { method: method.to_owned(), path: path.to_owned(), ..doors.request() },
        is_let_in,
    };
    doors.compare(&[
        knock("allowed", "GET", "/", true),
        knock("not allowed", "PUT", "/", false),
        knock("denied", "GET", "/denied/a", false),
        knock("audited", "GET", "/audited", true),
        knock("would be denied", "GET", "/tried", true),
    ])?;
    let [by_orlop, by_envoy] = doors.counted("rbac")?;
    assert_eq!(by_orlop, by_envoy);
    assert!(by_orlop.contains("istio_dry_run_deny_.shadow_denied: 1"), "{by_orlop}");
    Ok(())
}

/// A repeated header is looked at value by value, so that none hides behind another.
#[test]
fn a_repeated_header_hides_nothing() -> Result<()> {
    let doors = Doors::open(|_| {
        let rules = [when("request.headers[x-a]", &["bad"]), when("request.headers[x-b]", &["bad*"])];
        policy("deny", &json!({}), &json!({"action": "DENY", "rules": rules}))
    })?;
    for (headers, expected) in [
        ("x-a: good\r\nx-a: bad", "403"),
        ("x-a: bad\r\nx-a: good", "403"),
        ("x-a: good\r\nx-a: better", "200"),
        ("x-b: good\r\nx-b: badly", "403"),
        ("x-a: \u{e9}bad", "200"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n{headers}\r\n\r\n");
        for pod in [&doors.orlop, &doors.envoy] {
            let reply = doors.client.tcp(pod.at(8080)).payload(&request).raw()?;
            assert_eq!(reply.body.split(' ').nth(1), Some(expected), "{} {headers:?}", pod.name());
        }
    }
    Ok(())
}
