//! What needs HTTP goes through the proxy and is done as the routes say.

use anyhow::Result;
use orlop_integration::traffic::outcome;
use orlop_integration::{Http, Mesh, Service, tally};
use serde_json::json;

/// A request to the service by its name.
fn request(mesh: &Mesh) -> Http<'_> {
    mesh.client.http(Mesh::WEB).host(&mesh.web.host())
}

fn with_subsets(web: &Service, routes: &serde_json::Value) -> String {
    web.subsets_by_version(&["v1", "v2"]) + &web.http_routes(routes)
}

#[test]
fn a_header_selects_the_route_and_both_ends_see_true_addresses() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    let explanation = mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    assert!(explanation.field.contains("route"), "the field that decided: {explanation:?}");

    assert_eq!(tally(&request(&mesh).times(50)?), [("v1".to_owned(), 50)].into());
    assert_eq!(tally(&request(&mesh).header("x-canary", "true").times(50)?), [("v2".to_owned(), 50)].into());

    let reply = request(&mesh).send()?;
    assert_eq!(reply.peer, Some(Mesh::WEB), "the client is connected to the service");
    assert_eq!(reply.local.map(|local| local.ip()), Some(mesh.client.ip()), "from its own address");
    assert_eq!(reply.echo()?.peer.ip(), mesh.client.ip(), "and that is what the server sees");

    let (kernel, proxy) = mesh.agent.counters(&mesh.client)?;
    assert_eq!((kernel.kernel_balanced, kernel.proxied, proxy.accepted_outbound), (0, 3, 3));
    assert_eq!(proxy.requests.get("2xx"), Some(&101));
    Ok(())
}

#[test]
fn weights_hold_within_five_per_cent() -> Result<()> {
    // 500 draws stray by 5 points once in 70 runs, 2000 never.
    const REQUESTS: u32 = 2000;
    let mesh = Mesh::start(|web| {
        let split = json!([{"route": [web.weighted_subset("v1", 70), web.weighted_subset("v2", 30)]}]);
        with_subsets(web, &split)
    })?;
    let counts = tally(&request(&mesh).times(REQUESTS)?);
    assert_eq!(counts.values().sum::<u32>(), REQUESTS);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["v1", "v2"], "{counts:?}");
    let share = f64::from(*counts.get("v1").unwrap_or(&0)) / f64::from(REQUESTS);
    assert!((share - 0.70).abs() < 0.05, "{counts:?}");
    Ok(())
}

#[test]
fn path_method_and_query_select_the_route() -> Result<()> {
    let mesh = Mesh::start(|web| {
        let to_v2 = |condition: serde_json::Value| json!({"match": [condition], "route": [web.subset("v2")]});
        let routes = json!([
            to_v2(json!({"uri": {"exact": "/exact"}})),
            to_v2(json!({"uri": {"prefix": "/prefix/"}})),
            to_v2(json!({"uri": {"regex": "/item/[0-9]+"}})),
            to_v2(json!({"method": {"exact": "DELETE"}})),
            to_v2(json!({"queryParams": {"version": {"exact": "2"}}})),
            {"route": [web.subset("v1")]},
        ]);
        with_subsets(web, &routes)
    })?;
    for (method, path, version) in [
        ("GET", "/", "v1"),
        ("GET", "/exact", "v2"),
        ("GET", "/exact?query=is+no+part", "v2"),
        ("GET", "/exact/not", "v1"),
        ("GET", "/prefix/any", "v2"),
        ("GET", "/prefix", "v1"),
        ("GET", "/item/42", "v2"),
        ("GET", "/item/42/not", "v1"),
        ("DELETE", "/", "v2"),
        ("GET", "/?version=2", "v2"),
        ("GET", "/?version=22", "v1"),
    ] {
        let reply = request(&mesh).method(method).path(path).send()?;
        assert_eq!(outcome(&reply), version, "{method} {path}");
    }
    Ok(())
}

#[test]
fn redirects_and_direct_responses_come_from_the_proxy() -> Result<()> {
    let mesh = Mesh::start(|web| {
        web.http_routes(&json!([
            {"match": [{"uri": {"exact": "/old"}}],
             "redirect": {"uri": "/new", "authority": "new.example", "redirectCode": 302}},
            {"match": [{"uri": {"exact": "/tea"}}],
             "directResponse": {"status": 418, "body": {"string": "short and stout"}}},
            {"route": [{"destination": {"host": web.host()}}]},
        ]))
    })?;
    let redirect = request(&mesh).path("/old").send()?;
    assert_eq!((redirect.status, redirect.header("location")), (302, Some("http://new.example/new")));
    let direct = request(&mesh).path("/tea").send()?;
    assert_eq!((direct.status, direct.body.as_str()), (418, "short and stout"));
    assert_eq!(request(&mesh).path("/else").send()?.status, 200);
    Ok(())
}

#[test]
fn rewrites_and_header_operations_reach_the_server_and_the_client() -> Result<()> {
    let mesh = Mesh::start(|web| {
        web.http_routes(&json!([{
            "match": [{"uri": {"prefix": "/api"}}],
            "rewrite": {"uri": "/v2", "authority": "rewritten.example"},
            "headers": {
                "request": {"set": {"x-set": "new"}, "add": {"x-added": "1"}, "remove": ["x-secret"]},
                "response": {"set": {"x-answered-by": "mesh"}, "remove": ["x-echo-server"]},
            },
            "route": [{"destination": {"host": web.host()}}],
        }]))
    })?;
    let reply =
        request(&mesh).path("/api/items?page=2").header("x-set", "old").header("x-secret", "s").send()?;
    let seen = reply.echo()?;
    assert_eq!((seen.path.as_str(), seen.authority.as_str()), ("/v2/items?page=2", "rewritten.example"));
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!((header("x-set"), header("x-added"), header("x-secret")), (Some("new"), Some("1"), None));
    assert_eq!((reply.header("x-answered-by"), reply.header("x-echo-server")), (Some("mesh"), None));
    Ok(())
}

#[test]
fn a_timeout_answers_504_and_retries_hide_a_failure() -> Result<()> {
    let mesh = Mesh::start(|web| {
        let to_web = json!([{"destination": {"host": web.host()}}]);
        web.http_routes(&json!([
            {"match": [{"uri": {"prefix": "/slow"}}], "timeout": "0.3s", "retries": {"attempts": 0}, "route": to_web},
            {"match": [{"uri": {"prefix": "/flaky"}}], "retries": {"attempts": 2, "retryOn": "5xx"}, "route": to_web},
            {"retries": {"attempts": 0}, "route": to_web},
        ]))
    })?;
    let slow = request(&mesh).path("/slow").header("x-echo-delay", "2000").send()?;
    assert_eq!(slow.status, 504, "{slow:?}");
    assert!((300_000..1_000_000).contains(&slow.us), "after the timeout: {} µs", slow.us);
    assert_eq!(request(&mesh).path("/slow").header("x-echo-delay", "50").send()?.status, 200);

    // Each server counts for itself: two versions, so at most two failures in three attempts.
    let flaky = request(&mesh).path("/flaky").header("x-echo-fail-first", "1/retried").send()?;
    assert_eq!(flaky.status, 200, "{flaky:?}");
    let failing = request(&mesh).path("/never").header("x-echo-fail-first", "1/not-retried").send()?;
    assert_eq!(failing.status, 503, "{failing:?}");
    Ok(())
}

#[test]
fn a_server_that_went_away_is_retried_elsewhere() -> Result<()> {
    let mesh = Mesh::start(|web| {
        web.http_routes(&json!([{
        "match": [{"headers": {"x-any": {"exact": "1"}}}], "route": [{"destination": {"host": web.host()}}],
    }, {"route": [{"destination": {"host": web.host()}}]}]))
    })?;
    mesh.v1.stop_serving(8080);
    // Istio's default policy retries what failed to connect.
    assert_eq!(tally(&request(&mesh).times(50)?), [("v2".to_owned(), 50)].into());
    Ok(())
}

#[test]
fn http2_with_prior_knowledge_takes_the_same_routes() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    for (canary, version) in [("true", "v2"), ("false", "v1")] {
        let replies = request(&mesh).h2c().header("x-canary", canary).times(20)?;
        assert_eq!(tally(&replies), [(version.to_owned(), 20)].into());
        assert_eq!(replies[0].echo()?.authority, mesh.web.host());
    }
    Ok(())
}

#[test]
fn bodies_pass_both_ways_whole() -> Result<()> {
    let mesh = Mesh::start(|web| {
        with_subsets(
            web,
            &json!([
                {"match": [{"method": {"exact": "PUT"}}], "route": [web.subset("v2")]}, {"route": [web.subset("v1")]},
            ]),
        )
    })?;
    let sent = "y".repeat(100_000);
    let reply = request(&mesh).method("PUT").body(&sent).send()?;
    assert_eq!((outcome(&reply).as_str(), reply.echo()?.body_bytes), ("v2", sent.len()));
    let large = request(&mesh).header("x-echo-bytes", "5000000").send()?;
    assert!(large.status == 200 && large.body.len() == 5_000_000 && large.body.bytes().all(|b| b == b'x'));
    Ok(())
}
