//! Mutual TLS with a real istiod: its configuration, and the certificates of its authority, for the workloads of one agent.

use std::fs;

use anyhow::{Context, Result};
use orlop_integration::istio::document;
use orlop_integration::istiod::NODE_TOKEN;
use orlop_integration::{Agent, Authority, Bed, Istiod, Mesh, Pod, Service};
use serde_json::json;

/// A client and a server that says that it takes mutual TLS, both carried by the agent, and a pod that nobody carries.
struct Scene {
    agent: Agent,
    istiod: Istiod,
    client: Pod,
    server: Pod,
    outsider: Pod,
    web: Service,
    _bed: Bed,
}

impl Scene {
    fn new(mode: &str) -> Result<Self> {
        let (bed, authority) = (Bed::new()?, Authority::new()?);
        let client = bed.pod("client").label("app", "client").account("client").start()?;
        let outsider = bed.pod("outsider").start()?;
        let server = bed.pod("server").label("app", "web").label("security.istio.io/tlsMode", "istio");
        let server = server.account("server").start()?;
        server.serve_http(8080)?;
        server.serve_tcp(9000)?;
        let web = Mesh::describe_web().endpoint(&server);
        let istiod = Istiod::start_with_pods(&bed, &authority, &[&client, &server])?;
        istiod.apply("mesh.yaml", &(web.yaml() + &peer_authentication(mode)))?;
        let mut agent = Agent::described(&bed, &istiod, &[])?;
        let file = |name: &str, text: &str| -> Result<_> {
            let path = bed.dir().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        agent.set_identity(json!({
            "certificateAuthority": istiod.secure_address().to_string(),
            "rootCertificate": file("root.pem", authority.certificate())?,
            "token": file("node.token", NODE_TOKEN)?,
        }));
        agent.set_workloads(&[&client, &server])?;
        agent.restart()?;
        Ok(Self { agent, istiod, client, server, outsider, web, _bed: bed })
    }

    /// The `x-forwarded-client-cert` that a request of the client to the service arrives with.
    fn shown(&self) -> Result<Option<String>> {
        let echo = self.client.http(Mesh::WEB).host(&self.web.host()).send()?.echo()?;
        Ok(echo.headers.get("x-forwarded-client-cert").cloned())
    }
}

fn peer_authentication(mode: &str) -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {"mtls": {"mode": mode}},
    }))
}

fn identity_of(pod: &Pod) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{}", pod.account())
}

#[test]
fn under_strict_requests_and_connections_are_mutual_tls_and_plaintext_is_refused() -> Result<()> {
    let scene = Scene::new("STRICT")?;
    let Scene { client, server, outsider, .. } = &scene;

    let shown = scene.shown()?.context("the server's proxy says who the client is")?;
    assert!(shown.starts_with(&format!("By={};Hash=", identity_of(server))), "{shown}");
    assert!(shown.ends_with(&format!("URI={}", identity_of(client))), "{shown}");
    assert_eq!(client.tcp(Mesh::TCP).connect()?.greeting()?.peer.ip(), client.ip());

    assert!(outsider.http(server.at(8080)).send()?.error.is_some());
    assert!(outsider.tcp(server.at(9000)).connect()?.greeting().is_err());
    assert_eq!(scene.agent.counters(server)?.0.inbound_direct, 0, "nothing goes past the proxy");
    Ok(())
}

#[test]
fn under_permissive_peers_speak_mutual_tls_and_everybody_else_plaintext() -> Result<()> {
    let scene = Scene::new("PERMISSIVE")?;
    let Scene { client, server, outsider, .. } = &scene;

    let shown = scene.shown()?.context("the server's proxy says who the client is")?;
    assert!(shown.contains(&identity_of(client)), "{shown}");
    assert_eq!(client.tcp(Mesh::TCP).connect()?.greeting()?.peer.ip(), client.ip());

    let echo = outsider.http(server.at(8080)).send()?.echo()?;
    assert_eq!((echo.peer.ip(), echo.headers.get("x-forwarded-client-cert")), (outsider.ip(), None));
    // As behind a sidecar, a client in plaintext has to speak first.
    let reply = outsider.tcp(server.at(9000)).payload("hello\n").raw()?;
    assert!(reply.body.contains(&format!("\"peer\":\"{}:", outsider.ip())), "{reply:?}");
    assert!(reply.body.ends_with("hello\n"), "{reply:?}");
    Ok(())
}

#[test]
fn when_mutual_tls_is_disabled_the_kernel_carries_plaintext_again() -> Result<()> {
    let scene = Scene::new("STRICT")?;
    let before = scene.agent.explain(&scene.client, &Mesh::TCP.to_string())?;
    assert_eq!(before.path, "tcp", "{before:?}");

    scene.istiod.apply("mesh.yaml", &(scene.web.yaml() + &peer_authentication("DISABLE")))?;
    scene.agent.wait_for_path(&scene.client, Mesh::TCP, "kernel")?;
    scene.agent.wait_for_status("the server to take plaintext", |_| {
        Ok(scene.client.tcp(Mesh::TCP).connect()?.greeting().is_ok())
    })?;
    assert_eq!(scene.shown()?, None);
    Ok(())
}

#[test]
fn a_policy_lets_in_the_account_that_it_names_at_http_and_tcp_ports() -> Result<()> {
    let scene = Scene::new("STRICT")?;
    let allow = |account: &str| {
        let principal = format!("cluster.local/ns/default/sa/{account}");
        document(&json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "who", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "rules": [{"from": [{"source": {"principals": [principal]}}]}],
            },
        }))
    };
    let request = || scene.client.http(Mesh::WEB).host(&scene.web.host()).send();
    let greeting = || Ok::<_, anyhow::Error>(scene.client.tcp(Mesh::TCP).connect()?.greeting().is_ok());

    scene.istiod.apply("policy.yaml", &allow("another"))?;
    scene.agent.wait_for_status("the client to be refused", |_| Ok(request()?.status == 403))?;
    assert!(!greeting()?);

    scene.istiod.apply("policy.yaml", &allow("client"))?;
    scene.agent.wait_for_status("the client to be let in", |_| Ok(request()?.status == 200))?;
    assert!(greeting()?);
    Ok(())
}
