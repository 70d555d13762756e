//! Istio's resources of routing and telemetry: each edit is seen in the traffic.

use anyhow::{Result, ensure};
use orlop_integration::traffic::tally;
use orlop_integration::{Call, Cluster};
use serde_json::json;

use crate::scene::{Scene, client, is_from, server, service, with_header, with_path};

const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
";

const VIRTUAL_SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
    - match: [{headers: {x-tester: {exact: 'yes'}}}]
      route: [{destination: {host: web, subset: v2}}]
    - match: [{uri: {prefix: /slow}}]
      timeout: 0.2s
      route: [{destination: {host: web, subset: v1}}]
    - match: [{uri: {exact: /teapot}}]
      fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
      route: [{destination: {host: web, subset: v1}}]
    - match: [{uri: {prefix: /old/}}]
      rewrite: {uri: /new/}
      route: [{destination: {host: web, subset: v1}}]
    - match: [{uri: {prefix: /flaky}}]
      retries: {attempts: 3, retryOn: 5xx}
      route: [{destination: {host: web, subset: v1}}]
    - route: [{destination: {host: web, subset: v1}}]
";

const BY_SOURCE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}
";

/// The namespace's clients know of its own services alone, and nobody else is let out to.
const SIDECAR: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec:
  egress: [{hosts: [./*]}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
";

const SERVICE_ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: elsewhere}
spec:
  hosts: [elsewhere.example]
  addresses: [198.51.100.7]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  resolution: STATIC
  endpoints: [{address: @ADDRESS@}]
";

const TELEMETRY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: default}
spec:
  metrics:
    - providers: [{name: prometheus}]
      overrides:
        - match: {metric: REQUEST_COUNT, mode: CLIENT}
          tagOverrides: {response_code: {operation: REMOVE}}
";

pub(crate) fn edits_take_effect(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "istio")?;
    let elsewhere = Scene::plain(cluster, "elsewhere")?;
    scene.add(&[
        client("client", 1),
        server("web-v1", "web", "v1", 2),
        server("web-v2", "web", "v2", 2),
        service("web", &json!({"app": "web"})),
    ])?;
    elsewhere.add(&[
        server("elsewhere", "elsewhere", "v1", 2),
        service("elsewhere", &json!({"app": "elsewhere"})),
    ])?;
    scene.ready()?;
    elsewhere.ready()?;
    virtual_service(&scene)?;
    destination_rule(&scene)?;
    service_entry(&scene, &elsewhere)?;
    telemetry(&scene)?;
    sidecar(&scene, &elsewhere)
}

fn virtual_service(scene: &Scene<'_>) -> Result<()> {
    scene.apply(SUBSETS)?;
    scene.apply(VIRTUAL_SERVICE)?;
    let web = Call { times: 5, ..scene.to("web")? };
    let tester = with_header(web.clone(), "x-tester", "yes");
    scene.eventually("the tester to get version 2", "client", &tester, |reply| is_from(reply, "web-v2"))?;
    scene.eventually("others to get version 1", "client", &web, |reply| is_from(reply, "web-v1"))?;
    let slow = with_header(with_path(web.clone(), "/slow"), "x-echo-delay", "2000");
    scene.eventually("a timeout", "client", &slow, |reply| reply.status == 504)?;
    scene.eventually("a fault", "client", &with_path(web.clone(), "/teapot"), |reply| reply.status == 418)?;
    scene.eventually("a rewrite", "client", &with_path(web.clone(), "/old/1"), |reply| {
        reply.echo().is_ok_and(|echo| echo.path == "/new/1")
    })?;
    let flaky = with_header(with_path(web, "/flaky"), "x-echo-fail-first", "2/istio");
    scene.eventually("retries", "client", &flaky, |reply| reply.status == 200)?;
    scene.clear("virtualservice,destinationrule")
}

fn destination_rule(scene: &Scene<'_>) -> Result<()> {
    let web = Call { times: 20, fresh: true, ..scene.to("web")? };
    scene.eventually_all("both versions to answer", "client", std::slice::from_ref(&web), |replies| {
        ensure!(tally(replies).len() == 2, "one answers alone");
        Ok(())
    })?;
    scene.apply(BY_SOURCE)?;
    scene.eventually_all("one endpoint to be this client's own", "client", &[web], |replies| {
        let answers = tally(replies);
        ensure!(answers.len() == 1 && answers.keys().all(|name| name.starts_with("web-")), "{answers:?}");
        Ok(())
    })?;
    scene.clear("destinationrule")
}

fn service_entry(scene: &Scene<'_>, elsewhere: &Scene<'_>) -> Result<()> {
    let endpoint = elsewhere.pod("elsewhere", 8080)?;
    scene.apply(&SERVICE_ENTRY.replace("@ADDRESS@", &endpoint.ip().to_string()))?;
    let call = with_header(Call::new("198.51.100.7:80".parse()?), "host", "elsewhere.example");
    scene.eventually("its endpoint to answer", "client", &call, |reply| is_from(reply, "elsewhere"))?;
    scene.clear("serviceentry")
}

fn telemetry(scene: &Scene<'_>) -> Result<()> {
    scene.apply(TELEMETRY)?;
    let web = scene.to("web")?;
    let stats = with_path(Call::new("127.0.0.1:15000".parse()?), "/stats/prometheus");
    let calls = [web, stats];
    scene.eventually_all("requests to be counted without their status", "client", &calls, |replies| {
        let stats = replies.last().map(|reply| reply.body.as_str()).unwrap_or_default();
        let lines: Vec<_> = stats.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
        ensure!(lines.iter().any(|line| !line.contains("response_code=")), "{lines:#?}");
        Ok(())
    })?;
    scene.clear("telemetry")
}

fn sidecar(scene: &Scene<'_>, elsewhere: &Scene<'_>) -> Result<()> {
    let (own, foreign) = (scene.to("web")?, elsewhere.to("elsewhere")?);
    scene.eventually("another namespace's service to answer", "client", &foreign, |reply| {
        is_from(reply, "elsewhere")
    })?;
    scene.apply(SIDECAR)?;
    scene.eventually("another namespace's service to be out of reach", "client", &foreign, |reply| {
        reply.error.is_some() || reply.status == 502
    })?;
    scene.eventually("the namespace's own to answer", "client", &own, |reply| reply.status == 200)?;
    scene.clear("sidecar.networking.istio.io")
}
