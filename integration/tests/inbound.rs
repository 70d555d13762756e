//! Connections that arrive at an enrolled pod are captured when the proxy has something to do for them, and the
//! application still sees who really called.

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Mesh, Pod, tally};
use serde_json::json;

/// Asks for something on arriving requests: a header more.
fn header_on_arrival(name: &str) -> String {
    document(&json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "arrival", "namespace": "default"},
        "spec": {"configPatches": [{
            "applyTo": "VIRTUAL_HOST",
            "match": {"context": "SIDECAR_INBOUND"},
            "patch": {"operation": "MERGE", "value": {
                "request_headers_to_add": [{"header": {"key": name, "value": "1"}}],
            }},
        }]},
    }))
}

/// From now on the agent carries the server alone, and the client is nobody to it.
fn carry_only(mesh: &Mesh, server: &Pod) -> Result<()> {
    mesh.agent.set_workloads(&[server])?;
    mesh.agent.wait_for_status("the server to be enrolled", |status| {
        Ok(status.workload(server.name()).is_ok_and(|server| server.ready) && status.workloads.len() == 1)
    })?;
    Ok(())
}

#[test]
fn a_captured_arrival_is_treated_as_configured_and_keeps_the_clients_address() -> Result<()> {
    let mesh = Mesh::start(|_| header_on_arrival("x-arrived"))?;
    carry_only(&mesh, &mesh.v1)?;

    let replies = mesh.client.http(mesh.v1.at(8080)).fresh_connections().times(20)?;
    assert_eq!(tally(&replies), [("v1".to_owned(), 20)].into());
    for reply in &replies {
        let seen = reply.echo()?;
        assert_eq!(seen.headers.get("x-arrived").map(String::as_str), Some("1"), "{seen:?}");
        assert_eq!(reply.peer, Some(mesh.v1.at(8080)), "the client is connected to the pod");
        assert_eq!(seen.peer.ip(), mesh.client.ip(), "the application sees the client");
        assert_eq!(seen.local, mesh.v1.at(8080), "at the address that was called");
    }
    let (kernel, proxy) = mesh.agent.counters(&mesh.v1)?;
    assert_eq!((kernel.inbound_proxied, proxy.accepted_inbound), (20, 20), "{kernel:?}");
    Ok(())
}

#[test]
fn an_arrival_that_nothing_is_asked_of_goes_straight_to_the_application() -> Result<()> {
    let mut mesh = Mesh::plain()?;
    carry_only(&mesh, &mesh.v1)?;

    assert_eq!(mesh.client.http(mesh.v1.at(8080)).send()?.echo()?.peer.ip(), mesh.client.ip());
    assert_eq!(mesh.client.tcp(mesh.v1.at(9000)).connect()?.greeting()?.peer.ip(), mesh.client.ip());
    let (kernel, proxy) = mesh.agent.counters(&mesh.v1)?;
    assert_eq!((kernel.inbound_direct, proxy.accepted_inbound), (2, 0), "{kernel:?}");

    mesh.agent.stop()?;
    assert_eq!(mesh.client.http(mesh.v1.at(8080)).send()?.status, 200, "the pod was given back");
    Ok(())
}

#[test]
fn client_and_server_on_one_node_are_both_carried() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.set_workloads(&[&mesh.client, &mesh.v1, &mesh.v2])?;
    mesh.agent
        .wait_for_status("all to be enrolled", |status| Ok(status.ready && status.workloads.len() == 3))?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "kernel")?;

    let replies = mesh.client.http(Mesh::WEB).host(&mesh.web.host()).fresh_connections().times(40)?;
    assert_eq!(tally(&replies).len(), 2, "{:?}", tally(&replies));
    for reply in &replies {
        assert_eq!(reply.echo()?.peer.ip(), mesh.client.ip());
    }
    Ok(())
}

#[test]
fn a_port_outside_the_mesh_is_reached_as_before() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.v1.serve_tcp(7000)?;
    carry_only(&mesh, &mesh.v1)?;
    assert_eq!(mesh.client.tcp(mesh.v1.at(7000)).connect()?.greeting()?.peer.ip(), mesh.client.ip());
    assert!(mesh.client.tcp(mesh.v1.at(7001)).connect()?.error.is_some(), "nobody listens there");
    Ok(())
}
