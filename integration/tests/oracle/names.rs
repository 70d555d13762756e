//! Services outside of the mesh that have names: the same server by both ways.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use orlop_integration::istio::document;
use orlop_integration::{Call, Pod};
use serde_json::json;

use crate::ways::Ways;

const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 30)), 8080);
const TCP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 30)), 9000);

/// A service whose endpoint has that name.
fn external(host: &str, resolution: &str, address: Option<SocketAddr>, endpoint: &str) -> String {
    document(&json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": host.replace('.', "-"), "namespace": "default"},
        "spec": {
            "hosts": [host],
            "addresses": address.map(|address| address.ip()).as_slice(),
            "location": "MESH_EXTERNAL",
            "resolution": resolution,
            "ports": [
                {"number": 8080, "name": "http", "protocol": "HTTP"},
                {"number": 9000, "name": "tcp", "protocol": "TCP"},
            ],
            "endpoints": [{"address": endpoint}],
        },
    }))
}

/// A name that the resolver knows the pod by.
fn name_of(pod: &Pod) -> String {
    format!("{}.ip.test", pod.ip().to_string().replace('.', "-"))
}

#[test]
fn a_name_leads_to_the_server_that_envoy_finds_by_it() -> Result<()> {
    let ways = Ways::with_resolver(|[v1, v2]| {
        external("strict.example", "DNS", Some(TCP), &name_of(v1))
            + &external("logical.example", "DNS_ROUND_ROBIN", None, &name_of(v2))
            + &external("gone.example", "DNS", None, "nowhere.invalid")
    })?;
    let request = |host: &str| {
        let headers = [("host".to_owned(), host.to_owned())].into();
        Call { to: HTTP, headers, ..ways.request() }
    };
    ways.compare(&[
        ("every address", request("strict.example")),
        ("with its port", request("strict.example:8080")),
        ("one address", request("logical.example")),
        ("a name that does not exist", request("gone.example")),
    ])?;
    for pod in [&ways.orlop, &ways.envoy] {
        let reply = pod.tcp(TCP).connect()?;
        ensure!(reply.server.as_deref() == Some("v1"), "{}: {reply:?}", pod.name());
    }
    Ok(())
}
