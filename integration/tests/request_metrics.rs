//! Istio's metrics of requests that the proxy carries, of both ends, and how the ends learn about each other.

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::metrics::{Sample, samples, sum};
use orlop_integration::{Mesh, Pod, SecureMesh, Service};
use serde_json::json;

/// The one series of a metric.
fn only(pod: &Pod, metric: &str) -> Result<Sample> {
    let samples = samples(pod, metric)?;
    let [sample] = &samples[..] else { anyhow::bail!("{metric} has not one series: {samples:#?}") };
    Ok(sample.clone())
}

#[test]
fn requests_are_counted_by_destination_and_code_with_their_time_and_bytes() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    let body = "twelve bytes";
    let request = mesh.client.http(Mesh::WEB).host(&mesh.web.host()).method("POST").body(body);
    assert!(request.times(7)?.iter().all(|reply| reply.status == 200));

    let requests = only(&mesh.client, "istio_requests_total")?;
    assert_eq!(requests.value, 7);
    requests.expect(&[
        ("reporter", "source"),
        ("source_workload", "client"),
        ("source_workload_namespace", "default"),
        ("source_principal", "unknown"),
        ("destination_service", "web.default.svc.cluster.local"),
        ("destination_service_namespace", "default"),
        ("destination_canonical_service", "web"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
        ("connection_security_policy", "unknown"),
    ])?;
    for histogram in ["request_duration_milliseconds", "request_bytes", "response_bytes"] {
        assert_eq!(sum(&mesh.client, &format!("istio_{histogram}_count"))?, 7, "{histogram}");
        let all = samples(&mesh.client, &format!("istio_{histogram}_bucket"))?;
        let infinite = all.iter().find(|sample| sample.labels.get("le").is_some_and(|le| le == "+Inf"));
        assert_eq!(infinite.map(|sample| sample.value), Some(7), "{histogram}");
    }
    let bytes = sum(&mesh.client, "istio_request_bytes_sum")?;
    assert!(bytes > 7 * 12 + 7 * 40 && bytes < 7 * 1000, "heads and bodies: {bytes}");
    Ok(())
}

#[test]
fn under_mutual_tls_both_ends_tell_who_the_other_is() -> Result<()> {
    let mesh = SecureMesh::new("STRICT")?;
    let reply = mesh.client.http(Mesh::WEB).host(&mesh.web.host()).send()?;
    let seen = reply.echo()?.headers;
    for header in ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"] {
        assert_eq!((seen.get(header), reply.header(header)), (None, None), "{header} is the proxies' own");
    }

    let (client, server) =
        ("spiffe://cluster.local/ns/default/sa/client", "spiffe://cluster.local/ns/default/sa/server");
    let both = [
        ("source_workload", "client"),
        ("source_app", "client"),
        ("source_principal", client),
        ("source_workload_namespace", "default"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", "server"),
        ("destination_app", "web"),
        ("destination_principal", server),
        ("destination_workload_namespace", "default"),
        ("destination_cluster", "Kubernetes"),
        ("destination_canonical_service", "web"),
        ("response_code", "200"),
    ];
    let at_client = only(&mesh.client, "istio_requests_total")?;
    at_client.expect(
        &[&both[..], &[("reporter", "source"), ("connection_security_policy", "unknown")]].concat(),
    )?;
    let at_server = only(&mesh.server, "istio_requests_total")?;
    at_server.expect(
        &[&both[..], &[("reporter", "destination"), ("connection_security_policy", "mutual_tls")]].concat(),
    )?;

    mesh.client.tcp(Mesh::TCP).connect()?.greeting()?;
    for (pod, reporter) in [(&mesh.client, "source"), (&mesh.server, "destination")] {
        let opened = only(pod, "istio_tcp_connections_opened_total")?;
        opened.expect(&[
            ("reporter", reporter),
            ("source_principal", client),
            ("destination_principal", server),
            ("request_protocol", "tcp"),
        ])?;
        assert!(sum(pod, "istio_tcp_sent_bytes_total")? > 0);
    }
    Ok(())
}

#[test]
fn what_a_telemetry_resource_takes_away_is_not_there() -> Result<()> {
    let telemetry = document(&json!({
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "metrics", "namespace": "default"},
        "spec": {"metrics": [{
            "providers": [{"name": "prometheus"}],
            "overrides": [
                {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {"response_code": {"operation": "REMOVE"}}},
                {"match": {"metric": "REQUEST_SIZE"}, "disabled": true},
            ],
        }]},
    }));
    let mesh = Mesh::start(|web| web.canary_routing() + &telemetry)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    let status = |wish: &str| {
        let request = mesh.client.http(Mesh::WEB).host(&mesh.web.host());
        Ok::<_, anyhow::Error>(request.header("x-echo-status", wish).send()?.status)
    };
    assert_eq!((status("200")?, status("404")?), (200, 404));

    let requests = only(&mesh.client, "istio_requests_total")?;
    assert_eq!((requests.value, requests.labels.get("response_code")), (2, None));
    assert!(samples(&mesh.client, "istio_request_bytes_count")?.is_empty());
    assert_eq!(samples(&mesh.client, "istio_response_bytes_count")?.len(), 2, "by code");
    Ok(())
}
