//! Mutual TLS with a real Envoy, both ways: each as the client of a server behind the other.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use orlop_integration::istio::document;
use orlop_integration::{Agent, Authority, Bed, ControlPlane, Envoy, Istiod, Mesh, Pod, Service, until};
use serde_json::json;

const OTHER: &str = "10.96.0.21";

/// A pod that is client and server, and says that it takes mutual TLS.
fn pod(bed: &Bed, name: &str) -> Result<Pod> {
    let pod = bed.pod(name).label("app", name).label("security.istio.io/tlsMode", "istio");
    let pod = pod.account(name).start()?;
    pod.serve_http(8080)?;
    pod.serve_tcp(9000)?;
    Ok(pod)
}

fn strict() -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }))
}

/// Requests and connections from one to the other: the server is told who the client is.
fn speaks(client: &Pod, server: &Pod, service: &Service, ip: &str) -> Result<()> {
    let at = |port| -> Result<SocketAddr> { Ok(format!("{ip}:{port}").parse()?) };
    let shown = until("an answer", std::time::Duration::from_secs(10), || {
        let reply = client.http(at(8080)?).host(&service.host()).send()?;
        let echo = reply.echo().with_context(|| format!("{reply:?}"))?;
        Ok(Some(echo.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default()))
    })?;
    let identity = |pod: &Pod| format!("spiffe://cluster.local/ns/default/sa/{}", pod.account());
    assert!(shown.starts_with(&format!("By={};Hash=", identity(server))), "{shown}");
    let subject = "CN=rcgen self signed cert";
    assert!(shown.ends_with(&format!(";Subject=\"{subject}\";URI={}", identity(client))), "{shown}");
    assert_eq!(client.tcp(at(9000)?).connect()?.greeting()?.server, server.name());
    Ok(())
}

#[test]
fn orlop_and_envoy_speak_mutual_tls_with_each_other_under_strict() -> Result<()> {
    let (bed, authority) = (Bed::new()?, Authority::new()?);
    let (orlop, envoy) = (pod(&bed, "orlop")?, pod(&bed, "envoy")?);
    let behind_orlop = Mesh::describe_web().endpoint(&orlop);
    let behind_envoy = Service::new("other", OTHER).http(8080, 8080).tcp(9000, 9000).endpoint(&envoy);
    let config = behind_orlop.yaml() + &behind_envoy.yaml() + &strict();
    let istiod = Istiod::start_secure_for_stock_envoy(&bed, &authority, &[("mesh.yaml", &config)])?;
    let _sidecar = Envoy::start_with_identity(&bed, &envoy, &istiod, &authority)?;
    let file = |name: &str, text: &str| -> Result<_> {
        let path = bed.dir().join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    let (issued, root) = (authority.issue("orlop")?, file("root.pem", authority.certificate())?);
    let address = istiod.secure_address().to_string();
    let mut agent = Agent::described(&bed, ControlPlane::Secure { address, root_certificate: root }, &[])?;
    agent.set_identity(json!({}));
    let certificate = file("orlop.pem", &issued.certificate)?;
    agent
        .set_credentials(&orlop, json!({"certificate": certificate, "key": file("orlop.key", &issued.key)?}));
    agent.set_workloads(&[&orlop])?;
    agent.restart()?;

    speaks(&orlop, &envoy, &behind_envoy, OTHER)?;
    speaks(&envoy, &orlop, &behind_orlop, &Mesh::WEB.ip().to_string())
}
