//! Outlier detection: a server that fails is ejected by both ways, and comes back.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use orlop_integration::istio::document;
use orlop_integration::{Mesh, Pod, Service, until};
use serde_json::json;

use crate::ways::Ways;

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Three failures in a row eject for some seconds.
fn config(web: &Service) -> String {
    let rule = document(&json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"host": web.host(), "trafficPolicy": {
            "loadBalancer": {"simple": "ROUND_ROBIN"},
            "outlierDetection": {
                "consecutive5xxErrors": 3,
                "interval": "0.5s",
                "baseEjectionTime": "5s",
                "maxEjectionPercent": 50,
            },
        }},
    }));
    let no_retries = json!([{"route": [{"destination": {"host": web.host()}}], "retries": {"attempts": 0}}]);
    rule + &web.http_routes(&no_retries)
}

/// The servers that `/clusters` shows as ejected.
fn ejected(pod: &Pod) -> Result<Vec<String>> {
    let page = pod.http(ADMIN).path("/clusters?filter=^outbound.*8080.*web").send()?.body;
    Ok(page
        .lines()
        .filter(|line| line.ends_with("health_flags::/failed_outlier_check"))
        .map(str::to_owned)
        .collect())
}

/// Those that answer ten requests.
fn servers(pod: &Pod, web: &Service) -> Result<BTreeSet<String>> {
    let replies = pod.http(Mesh::WEB).host(&web.host()).times(10)?;
    Ok(replies.into_iter().filter_map(|reply| reply.server).collect())
}

#[test]
fn a_server_that_fails_again_and_again_is_ejected_and_comes_back() -> Result<()> {
    let ways = Ways::with(config)?;
    for pod in [&ways.orlop, &ways.envoy] {
        let name = pod.name();
        ensure!(servers(pod, &ways.web)?.len() == 2, "{name}: both serve");

        // Both are asked to fail; no more than half of them may be ejected.
        pod.http(Mesh::WEB).host(&ways.web.host()).header("x-echo-status", "500").times(8)?;
        let shown = ejected(pod)?;
        ensure!(shown.len() == 1, "{name}: one is ejected: {shown:?}");
        ensure!(servers(pod, &ways.web)?.len() == 1, "{name}: the other one serves");

        until("the ejected server to come back", Duration::from_secs(20), || {
            Ok((servers(pod, &ways.web)?.len() == 2).then_some(()))
        })?;
        ensure!(ejected(pod)?.is_empty(), "{name}: nobody is ejected any more");
    }
    Ok(())
}
