//! Balancing by a hash of the request: the same client comes to the same server by both ways.

use anyhow::{Context, Result};
use orlop_integration::{Call, Reply, Service};
use serde_json::{Value, json};

use crate::ways::{Ways, assert_none};

/// Every way to hash, each for the paths that begin with its name.
fn hashes() -> [(&'static str, Value); 6] {
    [
        ("ring-header", json!({"httpHeaderName": "x-user", "ringHash": {"minimumRingSize": 1024}})),
        ("maglev-header", json!({"httpHeaderName": "x-user", "maglev": {"tableSize": 65537}})),
        ("small-table", json!({"httpHeaderName": "x-user", "maglev": {"tableSize": 11}})),
        ("query", json!({"httpQueryParameterName": "user", "maglev": {"tableSize": 65537}})),
        ("source", json!({"useSourceIp": true})),
        ("cookie", json!({"httpCookie": {"name": "user", "path": "/p", "ttl": "60s"}})),
    ]
}

/// All servers are in each subset.
fn config(web: &Service) -> String {
    let subsets: Vec<_> = hashes()
        .into_iter()
        .map(|(name, hash)| {
            json!({
                "name": name,
                "labels": {"app": "web"},
                "trafficPolicy": {"loadBalancer": {"consistentHash": hash}},
            })
        })
        .collect();
    let routes: Vec<_> = hashes()
        .into_iter()
        .map(|(name, _)| {
            json!({"match": [{"uri": {"prefix": format!("/{name}")}}], "route": [web.subset(name)]})
        })
        .collect();
    web.subsets(&json!(subsets)) + &web.http_routes(&json!(routes))
}

#[test]
fn a_client_comes_to_the_server_that_envoy_sends_it_to() -> Result<()> {
    const CLIENTS: u32 = 24;
    let ways = Ways::with(config)?;
    let mut requests = Vec::new();
    for (name, _) in hashes() {
        for number in 0..CLIENTS {
            let mut call = Call { path: format!("/{name}/{number}?user=u{number}&q"), ..ways.request() };
            let headers = [
                ("x-user", format!("user-{number}")),
                ("cookie", format!("other=1; user=\"c{number}\"; more=2")),
                ("x-forwarded-for", format!("192.0.2.1, 198.51.100.{number}")),
            ];
            call.headers.extend(headers.map(|(name, value)| (name.to_owned(), value)));
            requests.push((format!("{name} {number}"), call));
        }
    }
    let requests: Vec<_> = requests.iter().map(|(name, call)| (name.as_str(), call.clone())).collect();
    ways.compare(&requests)
}

#[test]
fn a_client_without_the_cookie_is_given_one_that_leads_back_to_the_same_server() -> Result<()> {
    let ways = Ways::with(config)?;
    let mut differences = Vec::new();
    for pod in [&ways.orlop, &ways.envoy] {
        let call = Call { path: "/cookie".to_owned(), ..ways.request() };
        let first = pod.http(call.to).call(call.clone()).send()?;
        let set = first.header("set-cookie").context("no cookie")?.to_owned();
        let (pair, attributes) = set.split_once("; ").context("no attributes")?;
        let value = pair.strip_prefix("user=\"").and_then(|value| value.strip_suffix('"'));
        let is_hash = |value: &str| value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !value.is_some_and(is_hash) || attributes != "Max-Age=60; Path=/p; HttpOnly" {
            differences.push(format!("{}: {set}", pod.name()));
        }
        for way in [&ways.orlop, &ways.envoy] {
            let again = way.http(call.to).call(call.clone()).header("cookie", pair).send()?;
            if server(&again) != server(&first) || again.header("set-cookie").is_some() {
                differences.push(format!("{} with the cookie of {}: {again:?}", way.name(), pod.name()));
            }
        }
    }
    assert_none(&differences);
    Ok(())
}

fn server(reply: &Reply) -> Option<&str> {
    reply.server.as_deref()
}
