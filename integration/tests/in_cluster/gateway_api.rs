//! Where the Gateway API's routes of the mesh send requests (GAMMA: `parentRefs` to a `Service`).
//!
//! By the cases of its conformance profile MESH-HTTP that are about matches, weights, and which requests a route is asked for.

use anyhow::{Result, ensure};
use orlop_integration::traffic::tally;
use orlop_integration::{Call, Cluster};
use serde_json::{Value, json};

use crate::scene::{Scene, client, is_from, server, service, with_header, with_path};

pub(crate) fn requests_go_where_routes_say(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "gateway")?;
    let consumer = Scene::enrolled(cluster, "gateway-consumer")?;
    let version = |version: &str| json!({"app": "web", "version": version});
    scene.add(&[
        client("client", 1),
        server("v1", "web", "v1", 2),
        server("v2", "web", "v2", 2),
        service("web", &json!({"app": "web"})),
        service("v1", &version("v1")),
        service("v2", &version("v2")),
    ])?;
    consumer.add(&[client("client", 1)])?;
    scene.ready()?;
    consumer.ready()?;
    matches(&scene)?;
    weights(&scene)?;
    the_service_is_asked_for_by_its_address(&scene)?;
    a_parents_port_and_a_methods_route(&scene)?;
    nowhere(&scene)?;
    consumers_have_routes_of_their_own(&scene, &consumer)
}

/// A route of the service `web` with these rules.
fn route(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": rules},
    })
}

fn backend(name: &str) -> Value {
    json!([{"name": name, "port": 80}])
}

fn matches(scene: &Scene<'_>) -> Result<()> {
    scene.add(&[route("matches", &json!([
        {"matches": [{"path": {"type": "Exact", "value": "/exact"}}], "backendRefs": backend("v2")},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/prefix"}}], "backendRefs": backend("v2")},
        {"matches": [{"headers": [{"name": "crew", "type": "RegularExpression", "value": "[0-9]+"}]}], "backendRefs": backend("v2")},
        {"matches": [{"headers": [{"name": "Version", "value": "two"}]}], "backendRefs": backend("v2")},
        {"matches": [{"queryParams": [{"name": "animal", "value": "whale"}]}], "backendRefs": backend("v2")},
        {"matches": [{"method": "PUT"}], "backendRefs": backend("v2")},
        {"backendRefs": backend("v1")},
    ]))])?;
    let web = scene.to("web")?;
    let path = |path: &str| with_path(web.clone(), path);
    let put = Call { method: "PUT".to_owned(), ..web.clone() };
    let (second, first): ([Call; 7], [Call; 6]) = (
        [
            path("/exact"),
            path("/prefix"),
            path("/prefix/below"),
            with_header(web.clone(), "crew", "12"),
            with_header(web.clone(), "version", "two"),
            path("/?animal=whale"),
            put,
        ],
        [
            web.clone(),
            path("/exact/not"),
            path("/prefixed"),
            with_header(web.clone(), "crew", "none"),
            with_header(web.clone(), "version", "one"),
            path("/?animal=hydra"),
        ],
    );
    let calls = [&second[..], &first[..]].concat();
    scene.eventually_all("each request to go where its match says", "client", &calls, |replies| {
        let (second, first) = replies.split_at(second.len());
        ensure!(second.iter().all(|reply| is_from(reply, "v2")), "what matches");
        ensure!(first.iter().all(|reply| is_from(reply, "v1")), "what does not");
        Ok(())
    })?;
    scene.clear("httproute")
}

fn weights(scene: &Scene<'_>) -> Result<()> {
    scene.add(&[route(
        "weights",
        &json!([{"backendRefs": [
            {"name": "v1", "port": 80, "weight": 70}, {"name": "v2", "port": 80, "weight": 30},
        ]}]),
    )])?;
    let call = Call { times: 500, ..scene.to("web")? };
    scene.eventually_all("requests to be split by weight", "client", &[call], |replies| {
        let answers = tally(replies);
        let first = answers.get("v1").copied().unwrap_or_default();
        // Four standard deviations.
        ensure!(answers.len() == 2 && (308..392).contains(&first), "{answers:?}");
        Ok(())
    })?;
    scene.clear("httproute")
}

/// Whatever the host says; a pod's own address is not the service's.
fn the_service_is_asked_for_by_its_address(scene: &Scene<'_>) -> Result<()> {
    scene.add(&[route("address", &json!([{
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "routed", "value": "yes"}]}}],
        "backendRefs": backend("v1"),
    }]))])?;
    let web = scene.to("web")?;
    let short = with_header(web.clone(), "host", "web");
    let foreign = with_header(web.clone(), "host", "web.gateway");
    scene.eventually_all("the route to be taken", "client", &[web, short, foreign], |replies| {
        ensure!(replies.iter().all(|reply| reply.header("routed") == Some("yes")), "not taken");
        Ok(())
    })?;
    let pod = scene.host("web", Call::new(scene.pod("v2", 8080)?));
    scene.eventually("the pod to be reached by its own address", "client", &pod, |reply| {
        is_from(reply, "v2") && reply.header("routed").is_none()
    })?;
    scene.clear("httproute")
}

fn a_parents_port_and_a_methods_route(scene: &Scene<'_>) -> Result<()> {
    let mut other_port = route("port", &json!([{"backendRefs": backend("v2")}]));
    other_port["spec"]["parentRefs"][0]["port"] = json!(81);
    let mut grpc = route(
        "grpc",
        &json!([
            {"matches": [{"method": {"service": "ahoy.Ship", "method": "Sail"}}], "backendRefs": backend("v2")},
            {"backendRefs": backend("v1")},
        ]),
    );
    grpc["kind"] = json!("GRPCRoute");
    scene.add(&[other_port, grpc])?;
    let base = scene.to("web")?;
    let call = |path: &str| {
        let call = Call { h2: true, method: "POST".to_owned(), ..with_path(base.clone(), path) };
        with_header(call, "content-type", "application/grpc")
    };
    let calls = [call("/ahoy.Ship/Sail"), call("/ahoy.Ship/Sink")];
    scene.eventually_all("the method's own route to be taken", "client", &calls, |replies| {
        let servers: Vec<_> = replies.iter().map(|reply| reply.server.as_deref()).collect();
        ensure!(servers == [Some("v2"), Some("v1")], "{servers:?}");
        Ok(())
    })?;
    scene.clear("httproute,grpcroute")
}

/// A route to what is not there, and one that matches nothing.
fn nowhere(scene: &Scene<'_>) -> Result<()> {
    scene.add(&[route("nowhere", &json!([
        {"matches": [{"path": {"type": "PathPrefix", "value": "/lost"}}], "backendRefs": backend("nobody")},
        {"matches": [{"path": {"type": "PathPrefix", "value": "/here"}}], "backendRefs": backend("v1")},
    ]))])?;
    let web = scene.to("web")?;
    let calls = ["/lost", "/here", "/elsewhere"].map(|path| with_path(web.clone(), path));
    scene.eventually_all("requests that no route is for to be refused", "client", &calls, |replies| {
        let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
        ensure!(statuses == [500, 200, 404], "{statuses:?}");
        Ok(())
    })?;
    scene.clear("httproute")
}

/// A route in another namespace is for the requests of that namespace alone.
fn consumers_have_routes_of_their_own(scene: &Scene<'_>, consumer: &Scene<'_>) -> Result<()> {
    let mut route = route(
        "consumer",
        &json!([{
            "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "consumer", "value": "yes"}]}}],
            "backendRefs": [{"name": "web", "namespace": "gateway", "port": 80}],
        }]),
    );
    route["spec"]["parentRefs"][0]["namespace"] = json!("gateway");
    consumer.add(&[route])?;
    let web = scene.to("web")?;
    consumer.eventually("the consumer's requests to take its route", "client", &web, |reply| {
        reply.status == 200 && reply.header("consumer") == Some("yes")
    })?;
    scene.eventually("others' requests not to", "client", &web, |reply| {
        reply.status == 200 && reply.header("consumer").is_none()
    })
}
