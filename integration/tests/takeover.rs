//! A new agent takes the place of a running one: no request fails, and the old one ends with its last connection.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use orlop_integration::process::Process;
use orlop_integration::{Mesh, Service, istio, until};
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
    let process = Process::spawn("agent", &mesh.bed.dir(), &mut command)?;
    let _process = process.ready_when(|_| Ok(mesh.agent.status()?.ready))?;
    assert_eq!(mesh.client.tcp(Mesh::TCP).connect()?.error, None);
    Ok(())
}

/// As in a cluster where a second rollout begins before the first is through.
#[test]
fn an_agent_that_is_replaced_while_it_takes_over_lets_the_first_one_go_as_well() -> Result<()> {
    let mut mesh = Mesh::start(proxied)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    // Of this one there is no configuration, so whoever takes over waits a while for it.
    mesh.istiod.kill();
    let late = mesh.bed.pod("late").start()?;
    mesh.agent.set_workloads(&[&mesh.client, &late])?;

    let successor = || -> Result<Process> {
        let mut command = mesh.agent.command()?;
        let process = Process::spawn("successor", &mesh.bed.dir(), command.arg("--takeover"))?;
        process.ready_when(|it| Ok(it.log().contains("the node is as it is to be")))
    };
    let mut second = successor()?;
    // As Kubernetes does when it has another one in mind.
    second.terminate()?;
    let _third = successor()?;

    let over = "another agent has taken over";
    until("the first to be let go", Duration::from_mins(1), || {
        Ok(mesh.agent.log().contains(over).then_some(()))
    })?;
    assert!(second.wait_for_end(Duration::from_secs(20))?.success(), "{}", second.log_tail());
    let reply = mesh.client.http(Mesh::WEB).host("web.default.svc.cluster.local").path("/tea").send()?;
    assert_eq!(reply.status, 418, "{reply:?}");
    Ok(())
}
