//! Mutual TLS with a real istiod: its configuration, and the certificates of its authority, for the workloads of one agent.

use anyhow::{Context, Result};
use orlop_integration::istio::document;
use orlop_integration::secure_mesh::peer_authentication;
use orlop_integration::{Mesh, Pod, SecureMesh};
use serde_json::json;

fn identity_of(pod: &Pod) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{}", pod.account())
}

#[test]
fn under_strict_requests_and_connections_are_mutual_tls_and_plaintext_is_refused() -> Result<()> {
    let scene = SecureMesh::new("STRICT")?;
    let SecureMesh { client, server, outsider, .. } = &scene;

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
    let scene = SecureMesh::new("PERMISSIVE")?;
    let SecureMesh { client, server, outsider, .. } = &scene;

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
    let scene = SecureMesh::new("STRICT")?;
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

/// Lets in this account alone.
fn allow(account: &str) -> String {
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
}

#[test]
fn a_policy_lets_in_the_account_that_it_names_at_http_and_tcp_ports() -> Result<()> {
    let scene = SecureMesh::new("STRICT")?;
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

#[test]
fn a_policy_that_changes_closes_the_connection_of_an_account_that_it_does_not_name() -> Result<()> {
    let scene = SecureMesh::new("STRICT")?;
    let SecureMesh { agent, client, server, istiod, .. } = &scene;
    istiod.apply("policy.yaml", &allow("client"))?;
    agent.wait_for_status("the policy to be in force", |_| {
        let rules = agent.explain(server, &server.at(9000).to_string())?.sources;
        Ok(rules.iter().any(|rule| rule.because.contains("policy[who]")))
    })?;
    let load = client.load_tcp(client.tcp(Mesh::TCP).one_connection())?;
    agent.wait_for_status("the connection through the proxies", |status| {
        Ok(status.workload(server.name())?.proxy.as_ref().is_some_and(|proxy| proxy.active > 0))
    })?;

    istiod.apply("policy.yaml", &allow("another"))?;
    agent.wait_for_status("the connection to be closed", |status| {
        let proxy = status.workload(server.name())?.proxy.clone().unwrap_or_default();
        Ok(proxy.active == 0 && proxy.refused.get("policy").is_some_and(|refused| *refused > 0))
    })?;
    let report = load.stop()?;
    assert!(report.ok > 0 && report.failures() > 0, "{report:?}");
    Ok(())
}
