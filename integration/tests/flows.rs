//! `orlop flows` with a real istiod and kernel: who connected to what, which way it went and why, and what went over it.

use anyhow::Result;
use orlop_integration::{FlowWatch, Mesh, Service};
use serde_json::json;

#[test]
fn a_connection_by_the_kernel_is_told_with_service_endpoint_and_bytes() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    let flows = watch(&mesh)?;

    let reply = mesh.client.tcp(Mesh::TCP).payload("twelve bytes").connect()?;
    let greeting = reply.greeting()?;
    let flow = flows.next()?;
    assert_eq!(flow["workload"], "default/client", "{flow}");
    assert_eq!(
        (&flow["direction"], &flow["path"], &flow["verdict"]),
        (&json!("outbound"), &json!("kernel"), &json!("closed"))
    );
    assert_eq!(
        (&flow["service"], &flow["destination"]),
        (&json!(mesh.web.host()), &json!(Mesh::TCP.to_string()))
    );
    let endpoint = if greeting.server == mesh.v1.name() { &mesh.v1 } else { &mesh.v2 };
    assert_eq!(flow["endpoint"], json!(endpoint.at(9000).to_string()));
    assert_eq!(flow["bytesSent"], 12);
    assert!(flow["bytesReceived"].as_u64() > Some(12), "the greeting and what was sent: {flow}");
    assert!(flow["rttSeconds"].as_f64() > Some(0.0) && flow["retransmitted"] == 0, "{flow}");
    Ok(())
}

#[test]
fn what_goes_by_the_proxy_is_told_with_the_field_that_asked_for_it() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    let flows = watch(&mesh)?;

    mesh.client.http(Mesh::WEB).send()?;
    let flow = flows.next()?;
    assert_eq!((&flow["path"], &flow["verdict"]), (&json!("proxy"), &json!("proxied")), "{flow}");
    assert!(flow["reason"].as_str().is_some_and(|reason| reason.contains("virtual_hosts")), "{flow}");
    Ok(())
}

#[test]
fn a_workload_that_is_not_there_is_named() -> Result<()> {
    let mesh = Mesh::plain()?;
    let refused = FlowWatch::command(&mesh.agent, "nobody")?.output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("no workload nobody on this node"), "{said}");
    Ok(())
}

fn watch(mesh: &Mesh) -> Result<FlowWatch> {
    FlowWatch::start(&mesh.agent, &mesh.client, || mesh.client.tcp(mesh.v1.at(9000)).connect().map(drop))
}
