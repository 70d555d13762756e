//! Istio's metrics of TCP for connections that never saw a proxy, from the kernel's own counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use orlop_integration::{Mesh, until};

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);

/// The samples of one metric: their labels, and their values.
fn samples(mesh: &Mesh, metric: &str) -> Result<Vec<(BTreeMap<String, String>, u64)>> {
    let metrics = mesh.client.http(ADMIN).path("/stats/prometheus").send()?.body;
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once("} ").context("labels and a value")?;
            let label = |label: &str| {
                let (name, value) = label.split_once('=').context("a label has a value")?;
                Ok((name.to_owned(), value.trim_matches('"').to_owned()))
            };
            Ok((labels.split(',').map(label).collect::<Result<_>>()?, value.parse()?))
        })
        .collect()
}

fn sum(mesh: &Mesh, metric: &str) -> Result<u64> {
    Ok(samples(mesh, metric)?.iter().map(|(_, value)| value).sum())
}

#[test]
fn connections_by_the_kernel_are_in_istios_metrics_with_both_ends() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    let replies = mesh.client.tcp(Mesh::TCP).payload("twelve bytes").times(20)?;
    assert!(replies.iter().all(|reply| reply.error.is_none()), "{replies:?}");
    until("the last connection to be over", Duration::from_secs(5), || {
        Ok((sum(&mesh, "istio_tcp_connections_closed_total")? == 20).then_some(()))
    })?;

    assert_eq!(sum(&mesh, "istio_tcp_connections_opened_total")?, 20);
    assert_eq!(sum(&mesh, "istio_tcp_received_bytes_total")?, 20 * 12, "as the server counts");
    assert!(sum(&mesh, "istio_tcp_sent_bytes_total")? > 20 * 12, "the greeting and the echo");
    for (labels, _) in samples(&mesh, "istio_tcp_connections_opened_total")? {
        let expected = [
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
        ];
        for (label, value) in expected {
            assert_eq!(labels.get(label).map(String::as_str), Some(value), "{label} of {labels:?}");
        }
    }
    assert_eq!(mesh.agent.counters(&mesh.client)?.1.accepted_outbound, 0, "no proxy saw them");
    Ok(())
}

#[test]
fn a_sum_never_shrinks_when_an_endpoint_goes() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    mesh.client.tcp(Mesh::TCP).times(20)?;
    let before = sum(&mesh, "istio_tcp_connections_opened_total")?;
    mesh.istiod.apply("services.yaml", &Mesh::describe_web().endpoint(&mesh.v1).yaml())?;
    until("only one endpoint to be used", Duration::from_secs(10), || {
        let servers = mesh.client.tcp(Mesh::TCP).times(10)?;
        Ok(servers.iter().all(|reply| reply.greeting().is_ok_and(|by| by.server == "v1")).then_some(()))
    })?;

    let after = sum(&mesh, "istio_tcp_connections_opened_total")?;
    assert_eq!(before, 20);
    assert!(after >= before + 10, "{before}, then {after}");
    Ok(())
}
