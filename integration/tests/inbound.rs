//! Connections that arrive at an enrolled pod are captured when the proxy has something to do for them, and the
//! application still sees who really called.

use anyhow::Result;
use orlop_integration::{Mesh, tally};

#[test]
fn a_captured_arrival_keeps_the_clients_address() -> Result<()> {
    let mut mesh = Mesh::plain()?;
    // The agent carries the server now, and the client is nobody to it.
    mesh.agent.set_workloads(&[&mesh.v1])?;
    mesh.agent.wait_for_status("the server to be enrolled", |status| {
        Ok(status.workload("v1").is_ok_and(|v1| v1.ready) && status.workload("client").is_err())
    })?;

    let replies = mesh.client.http(mesh.v1.at(8080)).fresh_connections().times(20)?;
    assert_eq!(tally(&replies), [("v1".to_owned(), 20)].into());
    for reply in &replies {
        assert_eq!(reply.peer, Some(mesh.v1.at(8080)), "the client is connected to the pod");
        assert_eq!(reply.echo()?.peer.ip(), mesh.client.ip(), "the application sees the client");
        assert_eq!(reply.echo()?.local, mesh.v1.at(8080), "at the address that was called");
    }
    let greeting = mesh.client.tcp(mesh.v1.at(9000)).connect()?.greeting()?;
    assert_eq!(greeting.peer.ip(), mesh.client.ip());

    // A stock mesh accepts TLS and plain text on the same port, so somebody has to look.
    let (kernel, proxy) = mesh.agent.counters(&mesh.v1)?;
    assert_eq!((kernel.inbound_proxied, proxy.accepted_inbound), (21, 21), "{kernel:?}");

    // With the proxy gone the application is reachable as before only after the pod was given back.
    mesh.agent.stop()?;
    assert_eq!(mesh.client.http(mesh.v1.at(8080)).send()?.status, 200);
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
    mesh.agent.set_workloads(&[&mesh.v1])?;
    mesh.agent.wait_for_status("the server to be enrolled", |status| {
        Ok(status.workload("v1").is_ok_and(|v1| v1.ready))
    })?;
    assert_eq!(mesh.client.tcp(mesh.v1.at(7000)).connect()?.greeting()?.peer.ip(), mesh.client.ip());
    assert!(mesh.client.tcp(mesh.v1.at(7001)).connect()?.error.is_some(), "nobody listens there");
    Ok(())
}
