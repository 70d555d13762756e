//! `AuthorizationPolicy` of the action `CUSTOM`: an authorizer is asked, by HTTP and by gRPC.

use anyhow::Result;
use orlop_integration::fixture::server;
use orlop_integration::istio::document;
use orlop_integration::{Bed, Call, Pod, Service};
use serde_json::{Value, json};

use crate::doors::Doors;
use crate::ways::{Answer, assert_none};

const AUTHORIZER: &str = "authorizer.default.svc.cluster.local";

/// The authorizer: a server of the bed, which answers as requests themselves say.
fn authorizer(bed: &Bed) -> Result<(Pod, String)> {
    let pod = server(bed, "authorizer")?;
    let service =
        Service::new("authorizer", "10.96.0.40").http(8080, 8080).port(8081, 8080, "GRPC").endpoint(&pod);
    let yaml = service.yaml();
    Ok((pod, yaml))
}

fn custom(provider: &str, rule: &Value) -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": format!("ask-{provider}"), "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "action": "CUSTOM", "provider": {"name": provider}, "rules": [rule],
        },
    }))
}

fn compare(doors: &Doors, requests: &[(&str, Call)]) -> Result<()> {
    let mut differences = Vec::new();
    for (name, call) in requests {
        let [by_orlop, by_envoy] = doors.ask(call)?.map(|reply| {
            // Both doors have names of their own.
            let mut reply = reply.clone();
            reply.server = None;
            for value in reply.headers.values_mut() {
                *value = value.replace("orlop", "door").replace("envoy", "door");
            }
            Answer::of(&reply)
        });
        if by_orlop != by_envoy {
            differences.push(format!("{name}\n  Orlop: {by_orlop:?}\n  Envoy: {by_envoy:?}"));
        }
    }
    assert_none(&differences);
    Ok(())
}

fn with(base: &Call, path: &str, headers: &[(&str, &str)]) -> Call {
    let mut call = Call { path: path.to_owned(), ..base.clone() };
    call.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    call
}

#[test]
fn an_authorizer_is_asked_by_http_as_envoy_asks_it() -> Result<()> {
    let provider = json!([{"name": "by-http", "envoyExtAuthzHttp": {
        "service": AUTHORIZER, "port": 8080, "timeout": "0.5s", "pathPrefix": "/check", "statusOnError": "503",
        "includeRequestHeadersInCheck": ["x-echo-status", "x-echo-delay", "x-echo-bytes", "x-a*"],
        "includeAdditionalHeadersInCheck": {"x-more": "1"},
        "includeRequestBodyInCheck": {"maxRequestBytes": 8, "allowPartialMessage": true},
        "headersToUpstreamOnAllow": ["x-echo-server"], "headersToDownstreamOnDeny": ["x-echo-*", "content-type"],
        "headersToDownstreamOnAllow": ["x-echo-server"],
    }}]);
    let doors = Doors::with_mesh(&format!("extensionProviders: {provider}\n"), |bed, _| {
        let (pod, service) = authorizer(bed)?;
        Ok((
            vec![pod],
            service + &custom("by-http", &json!({"to": [{"operation": {"notPaths": ["/free"]}}]})),
        ))
    })?;
    let base = doors.request();
    let deny = ("x-echo-status", "403");
    let post = |body: &str, headers: &[(&str, &str)]| Call {
        method: "POST".to_owned(),
        body: body.to_owned(),
        ..with(&base, "/body", headers)
    };
    // The authorizer sees these headers, and so does the application behind it.
    let short = ("x-echo-bytes", "10");
    compare(
        &doors,
        &[
            ("allowed", with(&base, "/a?b=c", &[short])),
            ("not asked about", with(&base, "/free", &[deny])),
            ("denied", with(&base, "/a", &[deny, short])),
            ("denied with 401", with(&base, "/a", &[("x-echo-status", "401"), short])),
            ("redirected", with(&base, "/a", &[("x-echo-status", "302"), short])),
            ("an error of the authorizer", with(&base, "/a", &[("x-echo-status", "500"), short])),
            ("too slow", with(&base, "/a", &[("x-echo-delay", "2000"), short])),
            ("with a body", post("1234", &[short])),
            ("with a body of which it sees a part", post("0123456789", &[short])),
            ("with a body, denied", post("0123456789", &[deny, short])),
        ],
    )?;
    let [by_orlop, by_envoy] = doors.counted("http.*ext_authz.(ok|denied|error)")?;
    assert_eq!(by_orlop, by_envoy);
    Ok(())
}

#[test]
fn an_authorizer_is_asked_by_grpc_as_envoy_asks_it() -> Result<()> {
    let provider = json!([{"name": "by-grpc", "envoyExtAuthzGrpc": {
        "service": AUTHORIZER, "port": 8081, "timeout": "0.5s",
        "includeRequestBodyInCheck": {"maxRequestBytes": 8, "allowPartialMessage": false},
    }}]);
    let doors = Doors::with_mesh(&format!("extensionProviders: {provider}\n"), |bed, _| {
        let (pod, service) = authorizer(bed)?;
        Ok((
            vec![pod],
            service + &custom("by-grpc", &json!({"to": [{"operation": {"notPaths": ["/free"]}}]})),
        ))
    })?;
    let base = doors.request();
    let allow = ("x-authz", "allow");
    let deny = ("x-authz", "deny");
    let post = |body: &str, headers: &[(&str, &str)]| Call {
        method: "POST".to_owned(),
        body: body.to_owned(),
        ..with(&base, "/body", headers)
    };
    compare(
        &doors,
        &[
            (
                "allowed",
                with(&base, "/a?b=c", &[allow, ("x-rm", "1"), ("x-set", "by-client"), ("x-add", "0")]),
            ),
            ("denied", with(&base, "/a", &[deny])),
            ("not asked about", with(&base, "/free", &[deny])),
            ("an error of the authorizer", with(&base, "/a", &[])),
            ("headers that are there", with(&base, "/a", &[allow, ("x-kept", "0"), ("x-absent", "0")])),
            ("an error that it explains", with(&base, "/a", &[("x-authz", "explain")])),
            ("a denial that allows", with(&base, "/a", &[("x-authz", "both")])),
            ("with a body", post("1234", &[allow])),
            ("with a body that is too long", post("0123456789", &[allow])),
        ],
    )?;
    let [by_orlop, by_envoy] = doors.counted("http.*ext_authz.(ok|denied|error|disabled)")?;
    assert_eq!(by_orlop, by_envoy);
    // Where Envoy sends what is no header to the application, or closes the connection.
    for nonsense in ["invalid", "deny-invalid"] {
        let [by_orlop, _] = doors.ask(&with(&base, "/a", &[("x-authz", nonsense)]))?;
        assert_eq!(by_orlop.status, 500, "{nonsense}");
    }
    assert!(doors.counted("ext_authz.invalid")?[0].ends_with(": 2"));
    Ok(())
}

#[test]
fn routes_tell_an_authorizer_more_or_have_nobody_asked() -> Result<()> {
    let provider = json!([{"name": "by-grpc", "envoyExtAuthzGrpc": {"service": AUTHORIZER, "port": 8081}}]);
    let of_route = |name: &str, settings: &Value| {
        let mut settings = settings.clone();
        settings["@type"] =
            json!("type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute");
        document(&json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"configPatches": [{
                "applyTo": "HTTP_ROUTE",
                "match": {"context": "SIDECAR_INBOUND"},
                "patch": {"operation": "MERGE", "value": {
                    "typed_per_filter_config": {"envoy.filters.http.ext_authz": settings}}},
            }]},
        }))
    };
    let extensions = json!({"check_settings": {"context_extensions": {"place": "inbound"}}});
    for (settings, status) in [(extensions, 401), (json!({"disabled": true}), 200)] {
        let doors = Doors::with_mesh(&format!("extensionProviders: {provider}\n"), |bed, _| {
            let (pod, service) = authorizer(bed)?;
            let policy = custom("by-grpc", &json!({}));
            Ok((vec![pod], service + &policy + &of_route("of-route", &settings)))
        })?;
        let call = with(&doors.request(), "/", &[("x-authz", "deny")]);
        compare(&doors, &[("asked", call.clone())])?;
        let [by_orlop, _] = doors.ask(&call)?;
        assert_eq!(by_orlop.status, status);
        assert_eq!(by_orlop.body.contains("inbound"), status == 401, "{}", by_orlop.body);
    }
    Ok(())
}

#[test]
fn an_authorizer_that_is_away_stops_requests_unless_it_may_fail_open() -> Result<()> {
    for fail_open in [false, true] {
        let provider = json!([{"name": "away", "envoyExtAuthzHttp": {
            "service": AUTHORIZER, "port": 8080, "timeout": "0.5s", "failOpen": fail_open,
        }}]);
        let doors = Doors::with_mesh(&format!("extensionProviders: {provider}\n"), |bed, _| {
            let (pod, service) = authorizer(bed)?;
            pod.stop_serving(8080);
            Ok((vec![pod], service + &custom("away", &json!({}))))
        })?;
        compare(&doors, &[("asked", with(&doors.request(), "/", &[]))])?;
        let [by_orlop, _] = doors.ask(&doors.request())?;
        assert_eq!(by_orlop.status, if fail_open { 200 } else { 403 });
    }
    Ok(())
}
