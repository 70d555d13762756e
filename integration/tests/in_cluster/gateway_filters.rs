//! What the Gateway API's routes of the mesh do to requests and answers on their way: headers, rewrites, redirects, mirrors,
//! timeouts.
//!
//! By the cases of its conformance profile MESH-HTTP, core and extended.

use anyhow::{Result, ensure};
use orlop_integration::{Cluster, until};
use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene, client, is_from, server, service, with_header, with_path};

const FAIL_FIRST: &str = "x-echo-fail-first";

pub(crate) fn requests_and_answers_are_changed_as_routes_say(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "filters")?;
    scene.add(&[
        client("client", 1),
        server("web", "web", "v1", 2),
        server("copy", "copy", "v1", 2),
        service("web", &json!({"app": "web"})),
        service("copy", &json!({"app": "copy"})),
    ])?;
    scene.ready()?;
    scene.add(&[route()])?;
    headers(&scene)?;
    rewrites(&scene)?;
    redirects(&scene)?;
    timeouts(&scene)?;
    mirrors(&scene)
}

fn route() -> Value {
    let to_web = json!([{"name": "web", "port": 80}]);
    let changes = json!({
        "set": [{"name": "x-set", "value": "set"}], "add": [{"name": "x-add", "value": "added"}], "remove": ["x-remove"],
    });
    let request_headers = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": changes});
    let response_headers = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": changes});
    let rewrite = |rewrite: Value| json!([{"type": "URLRewrite", "urlRewrite": rewrite}]);
    let redirect = |redirect: Value| json!([{"type": "RequestRedirect", "requestRedirect": redirect}]);
    let prefix = |value: &str| json!([{"path": {"type": "PathPrefix", "value": value}}]);
    let full = |value: &str| json!({"type": "ReplaceFullPath", "replaceFullPath": value});
    let start = |value: &str| json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": value});
    let mirror =
        json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}}}]);
    let by_backend = json!([{"name": "web", "port": 80, "filters": [request_headers]}]);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "filters"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [
            {"matches": prefix("/headers"), "filters": [request_headers, response_headers], "backendRefs": to_web},
            {"matches": prefix("/backend"), "backendRefs": by_backend},
            {"matches": prefix("/full"), "filters": rewrite(json!({"path": full("/one")})), "backendRefs": to_web},
            {"matches": prefix("/start"), "filters": rewrite(json!({"path": start("/")})), "backendRefs": to_web},
            {"matches": prefix("/host"), "filters": rewrite(json!({"hostname": "other.example"})), "backendRefs": to_web},
            {"matches": prefix("/to-host"), "filters": redirect(json!({"hostname": "example.org"}))},
            {"matches": prefix("/to-scheme"), "filters": redirect(json!({"scheme": "https", "statusCode": 301}))},
            {"matches": prefix("/to-port"), "filters": redirect(json!({"hostname": "example.org", "port": 8443}))},
            {"matches": prefix("/to-path"), "filters": redirect(json!({"path": start("/new")}))},
            {"matches": prefix("/hurry"), "timeouts": {"request": "200ms"}, "backendRefs": to_web},
            {"matches": prefix("/backend-hurry"), "timeouts": {"backendRequest": "200ms"}, "backendRefs": to_web},
            {"matches": prefix("/mirror"), "filters": mirror, "backendRefs": to_web},
            {"backendRefs": to_web},
        ]},
    })
}

fn headers(scene: &Scene<'_>) -> Result<()> {
    let web = with_header(with_header(scene.to("web")?, "x-remove", "yes"), "x-add", "sent");
    for path in ["/headers", "/backend"] {
        let call = with_path(web.clone(), path);
        scene.eventually("the request's headers to be changed", "client", &call, |reply| {
            reply.echo().is_ok_and(|echo| {
                let header = |name: &str| echo.headers.get(name).map(String::as_str);
                header("x-set") == Some("set")
                    && header("x-add") == Some("sent,added")
                    && header("x-remove").is_none()
            })
        })?;
    }
    scene.eventually("the answer's headers to be changed", "client", &with_path(web, "/headers"), |reply| {
        reply.header("x-set") == Some("set") && reply.header("x-add") == Some("added")
    })
}

fn rewrites(scene: &Scene<'_>) -> Result<()> {
    let web = scene.to("web")?;
    for (path, expected) in [("/full/two", "/one"), ("/start/three", "/three"), ("/start", "/")] {
        scene.eventually("the path to be rewritten", "client", &with_path(web.clone(), path), |reply| {
            reply.echo().is_ok_and(|echo| echo.path == expected)
        })?;
    }
    scene.eventually("the host to be rewritten", "client", &with_path(web, "/host"), |reply| {
        reply.echo().is_ok_and(|echo| echo.authority == "other.example")
    })
}

fn redirects(scene: &Scene<'_>) -> Result<()> {
    let web = scene.to("web")?;
    let own = "web.filters.svc.cluster.local";
    let expected = [
        ("/to-host/1", 302, "http://example.org/to-host/1".to_owned()),
        ("/to-scheme/1", 301, format!("https://{own}/to-scheme/1")),
        ("/to-port/1", 302, "http://example.org:8443/to-port/1".to_owned()),
        ("/to-path/1", 302, format!("http://{own}/new/1")),
    ];
    let calls = expected.clone().map(|(path, ..)| with_path(web.clone(), path));
    scene.eventually_all("requests to be redirected", "client", &calls, |replies| {
        let answers =
            replies.iter().map(|reply| (reply.status, reply.header("location").unwrap_or_default()));
        let expected = expected.iter().map(|(_, status, location)| (*status, location.as_str()));
        let (answers, expected) = (answers.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        ensure!(answers == expected, "{answers:?}");
        Ok(())
    })
}

fn timeouts(scene: &Scene<'_>) -> Result<()> {
    let web = scene.to("web")?;
    let slow = with_header(web.clone(), "x-echo-delay", "2000");
    for path in ["/hurry", "/backend-hurry"] {
        let call = with_path(slow.clone(), path);
        scene.eventually("the slow answer not to be waited for", "client", &call, |reply| {
            reply.status == 504
        })?;
    }
    scene.eventually("a fast answer to come in time", "client", &with_path(web, "/hurry"), |reply| {
        is_from(reply, "web")
    })
}

/// The one who gets the copy tells by how it answers whether it has had a request with the same key before.
fn mirrors(scene: &Scene<'_>) -> Result<()> {
    let (mirrored, copy) = (with_path(scene.to("web")?, "/mirror"), scene.to("copy")?);
    let mut attempts = 0;
    until("the request's copy to arrive", PATIENCE, || {
        attempts += 1;
        let replies =
            scene.http("client", &with_header(mirrored.clone(), FAIL_FIRST, &format!("0/{attempts}")))?;
        ensure!(replies.iter().all(|reply| is_from(reply, "web")), "{replies:?}");
        let replies =
            scene.http("client", &with_header(copy.clone(), FAIL_FIRST, &format!("1/{attempts}")))?;
        Ok(replies.iter().all(|reply| is_from(reply, "copy")).then_some(()))
    })
}
