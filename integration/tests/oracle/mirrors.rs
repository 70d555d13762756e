//! Copies of requests: as many by both ways, and the same answers to the client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use orlop_integration::{Call, Pod, until};
use serde_json::json;

use crate::ways::Ways;

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Requests that went to the subset `v2`, which gets copies alone.
fn copies(pod: &Pod) -> Result<u64> {
    let page = pod.http(ADMIN).path("/stats?filter=v2.*upstream_rq_total").send()?.body;
    let number = page.lines().find_map(|line| line.split_once("upstream_rq_total: "));
    Ok(number.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0))
}

#[test]
fn requests_are_copied_and_the_client_sees_nothing_of_it() -> Result<()> {
    let ways = Ways::open(|web| {
        let to_v1 = json!([web.subset("v1")]);
        let v2 = web.subset("v2")["destination"].clone();
        json!([
            {"match": [{"uri": {"prefix": "/none"}}], "route": to_v1,
             "mirror": v2, "mirrorPercentage": {"value": 0.0}},
            {"route": to_v1, "mirror": v2},
        ])
    })?;
    let request = |path: &str| Call { path: path.to_owned(), ..ways.request() };
    ways.compare(&[
        ("copied", request("/")),
        ("with a body", Call { method: "POST".to_owned(), body: "b".repeat(10_000), ..request("/") }),
        ("with a status of its own", {
            let mut call = request("/");
            call.headers.insert("x-echo-status".to_owned(), "404".to_owned());
            call
        }),
        ("not copied", request("/none")),
    ])?;
    for pod in [&ways.orlop, &ways.envoy] {
        until("three copies", Duration::from_secs(5), || Ok((copies(pod)? >= 3).then_some(())))?;
        let copies = copies(pod)?;
        ensure!(copies == 3, "{}: {copies} copies", pod.name());
    }
    Ok(())
}
