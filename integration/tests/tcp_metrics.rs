//! Istio's metrics of TCP for connections that never saw a proxy, from the kernel's own counts.

use std::time::Duration;

use anyhow::Result;
use orlop_integration::metrics::{samples, sum};
use orlop_integration::{Mesh, until};

#[test]
fn connections_by_the_kernel_are_in_istios_metrics_with_both_ends() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    let replies = mesh.client.tcp(Mesh::TCP).payload("twelve bytes").times(20)?;
    assert!(replies.iter().all(|reply| reply.error.is_none()), "{replies:?}");
    until("the last connection to be over", Duration::from_secs(5), || {
        Ok((sum(&mesh.client, "istio_tcp_connections_closed_total")? == 20).then_some(()))
    })?;

    assert_eq!(sum(&mesh.client, "istio_tcp_connections_opened_total")?, 20);
    assert_eq!(sum(&mesh.client, "istio_tcp_received_bytes_total")?, 20 * 12, "as the server counts");
    assert!(sum(&mesh.client, "istio_tcp_sent_bytes_total")? > 20 * 12, "the greeting and the echo");
    for sample in samples(&mesh.client, "istio_tcp_connections_opened_total")? {
        sample.expect(&[
            ("reporter", "source"),
            ("source_workload", "client"),
            ("source_workload_namespace", "default"),
            ("source_canonical_service", "client"),
            ("source_app", "client"),
            ("destination_service", "web.default.svc.cluster.local"),
            ("destination_service_name", "web.default.svc.cluster.local"),
            ("destination_service_namespace", "default"),
            ("destination_workload_namespace", "default"),
            ("destination_canonical_service", "web"),
            ("request_protocol", "tcp"),
        ])?;
    }
    assert_eq!(mesh.agent.counters(&mesh.client)?.1.accepted_outbound, 0, "no proxy saw them");
    Ok(())
}

#[test]
fn a_sum_never_shrinks_when_an_endpoint_goes() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    mesh.client.tcp(Mesh::TCP).times(20)?;
    let before = sum(&mesh.client, "istio_tcp_connections_opened_total")?;
    mesh.istiod.apply("services.yaml", &Mesh::describe_web().endpoint(&mesh.v1).yaml())?;
    until("only one endpoint to be used", Duration::from_secs(10), || {
        let servers = mesh.client.tcp(Mesh::TCP).times(10)?;
        Ok(servers.iter().all(|reply| reply.greeting().is_ok_and(|by| by.server == "v1")).then_some(()))
    })?;

    let after = sum(&mesh.client, "istio_tcp_connections_opened_total")?;
    assert_eq!(before, 20);
    assert!(after >= before + 10, "{before}, then {after}");
    Ok(())
}
