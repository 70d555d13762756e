//! A new agent takes the place of a running one: no request fails, and the old one ends with its last connection.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use orlop_integration::{Mesh, Service, istio};
use serde_json::json;

/// HTTP goes through the L7 proxy, TCP through the TCP proxy.
fn proxied(web: &Service) -> String {
    let outlier = istio::document(&json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "web-outlier", "namespace": "default"},
        "spec": {
            "host": web.host(),
            "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 1000}},
        },
    }));
    let routes = web.http_routes(&json!([
        {"match": [{"uri": {"exact": "/tea"}}], "directResponse": {"status": 418}},
        {"route": [{"destination": {"host": web.host()}}]},
    ]));
    outlier + &routes
}

#[test]
fn no_request_fails_when_another_agent_takes_over() -> Result<()> {
    let mut mesh = Mesh::start(proxied)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "tcp")?;
    let http = || mesh.client.http(Mesh::WEB).host("web.default.svc.cluster.local");
    let loads = [
        ("HTTP/1.1", mesh.client.load_http(http())?),
        ("HTTP/2", mesh.client.load_http(http().h2c())?),
        ("TCP", mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP))?),
    ];
    sleep(Duration::from_millis(300));

    for _ in 0..3 {
        let mut old = mesh.agent.take_over()?;
        sleep(Duration::from_millis(300));
        assert!(old.wait_for_end(Duration::from_secs(20))?.success(), "{}", old.log_tail());
    }

    for (kind, load) in loads {
        let report = load.stop()?;
        assert_eq!(report.failures(), 0, "{kind}: {report:?}");
        assert!(report.ok > 100, "{kind}: {report:?}");
    }
    assert_eq!(http().path("/tea").send()?.status, 418);
    Ok(())
}

#[test]
fn a_connection_goes_on_with_the_old_agent_until_it_ends() -> Result<()> {
    let mut mesh = Mesh::start(proxied)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "tcp")?;
    let long = mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP).one_connection())?;
    sleep(Duration::from_millis(300));

    let mut old = mesh.agent.take_over()?;
    // As Kubernetes does at once when it replaces an agent.
    old.terminate()?;
    sleep(Duration::from_millis(500));
    let report = long.stop()?;
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(old.wait_for_end(Duration::from_secs(20))?.success(), "{}", old.log_tail());
    let (_, proxy) = mesh.agent.counters(&mesh.client)?;
    assert_eq!(proxy.accepted_outbound, 0, "the new one had no part in it");
    Ok(())
}

#[test]
fn without_an_agent_to_take_over_from_it_starts_as_usual() -> Result<()> {
    let mut mesh = Mesh::plain()?;
    mesh.agent.stop()?;
    let mut command = mesh.agent.command()?;
    command.arg("--takeover");
    let process = orlop_integration::process::Process::spawn("agent", &mesh.bed.dir(), &mut command)?;
    let _process = process.ready_when(|_| Ok(mesh.agent.status()?.ready))?;
    assert_eq!(mesh.client.tcp(Mesh::TCP).connect()?.error, None);
    Ok(())
}
