//! Workloads of one node under a real istiod's STRICT, where the kernel attests who connects in the place of mutual TLS. What
//! tells them from others on their addresses is shown where the kernel decides, in `datapath/tests/attested.rs`.

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Mesh, SecureMesh};
use serde_json::{Value, json};

/// Once connections to the service's TCP port go straight.
fn attested(mode: &str) -> Result<SecureMesh> {
    let scene = SecureMesh::attested(mode)?;
    let because = scene.agent.wait_for_path(&scene.client, Mesh::TCP, "kernel")?.reason;
    assert!(because.contains("to whom the kernel attests who connects"), "{because}");
    Ok(scene)
}

fn policy(rules: &Value) -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "who", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "rules": rules},
    }))
}

fn from_account(account: &str) -> Value {
    json!([{"from": [{"source": {"principals": [format!("cluster.local/ns/default/sa/{account}")]}}]}])
}

#[test]
fn under_strict_neighbours_reach_each_other_without_a_proxy_and_nobody_else_does() -> Result<()> {
    for mode in ["STRICT", "PERMISSIVE"] {
        let scene = attested(mode)?;
        let SecureMesh { agent, client, server, outsider, .. } = &scene;
        scene.agent.wait_for_path(client, Mesh::WEB, "kernel")?;

        assert_eq!(client.tcp(Mesh::TCP).connect()?.greeting()?.peer.ip(), client.ip());
        assert_eq!(client.tcp(server.at(9000)).connect()?.greeting()?.peer.ip(), client.ip());
        assert_eq!(scene.shown()?, None);
        let (kernel, proxy) = agent.counters(server)?;
        assert_eq!((kernel.inbound_attested, kernel.inbound_proxied, proxy.accepted_inbound), (3, 0, 0));

        if mode == "STRICT" {
            assert!(outsider.http(server.at(8080)).send()?.error.is_some());
            assert!(outsider.tcp(server.at(9000)).connect()?.greeting().is_err());
        } else {
            assert_eq!(outsider.http(server.at(8080)).send()?.echo()?.peer.ip(), outsider.ip());
        }
        assert_eq!(agent.counters(server)?.0.inbound_direct, 0, "nobody else goes past the proxy");
    }
    Ok(())
}

#[test]
fn a_policy_that_names_accounts_is_held_by_the_kernel() -> Result<()> {
    let scene = attested("STRICT")?;
    let SecureMesh { agent, client, server, istiod, .. } = &scene;
    let greeting = || Ok::<_, anyhow::Error>(client.tcp(Mesh::TCP).connect()?.greeting().is_ok());
    let of_client = |action: Option<&str>| {
        agent.wait_for_status("the policy to be in force", |_| {
            let rules = agent.explain(server, &server.at(9000).to_string())?.sources;
            let rule = rules.into_iter().find(|rule| rule.sources == format!("{}/32", client.ip()));
            Ok(rule.and_then(|rule| rule.attested).as_deref() == action)
        })
    };

    istiod.apply("policy.yaml", &policy(&from_account("client")))?;
    of_client(Some("direct"))?;
    agent.wait_for_path(client, Mesh::TCP, "kernel")?;
    let before = agent.counters(server)?.0.inbound_attested;
    assert!(greeting()?);
    assert_eq!(agent.counters(server)?.0.inbound_attested, before + 1);

    istiod.apply("policy.yaml", &policy(&from_account("another")))?;
    of_client(Some("drop"))?;
    agent.wait_for_path(client, Mesh::TCP, "tcp")?;
    assert!(!greeting()?);
    assert!(client.tcp(server.at(9000)).connect()?.error.is_some(), "before the application sees a byte");
    agent.wait_for_path(client, Mesh::WEB, "l7")?;
    let reply = client.http(Mesh::WEB).host(&scene.web.host()).send()?;
    assert_eq!((reply.status, reply.body.as_str()), (403, "RBAC: access denied"));
    Ok(())
}

#[test]
fn a_policy_of_requests_takes_requests_through_mutual_tls_and_leaves_connections_alone() -> Result<()> {
    let scene = attested("STRICT")?;
    let SecureMesh { agent, client, istiod, .. } = &scene;
    agent.wait_for_path(client, Mesh::WEB, "kernel")?;

    let rules = json!([{"to": [{"operation": {"paths": ["/"], "ports": ["8080"]}}]}, {"to": [{"operation": {"ports": ["9000"]}}]}]);
    istiod.apply("policy.yaml", &policy(&rules))?;
    agent.wait_for_path(client, Mesh::WEB, "l7")?;
    assert!(scene.shown()?.is_some(), "by mutual TLS");
    let refused = client.http(Mesh::WEB).path("/other").host(&scene.web.host()).send()?;
    assert_eq!(refused.status, 403);
    agent.wait_for_path(client, Mesh::TCP, "kernel")?;
    assert_eq!(client.tcp(Mesh::TCP).connect()?.greeting()?.peer.ip(), client.ip());
    Ok(())
}

#[test]
fn neighbours_reach_each_other_while_the_agent_is_dead_and_are_anybody_once_it_has_let_them_go() -> Result<()>
{
    let mut scene = attested("STRICT")?;
    scene.agent.kill();
    let SecureMesh { client, server, .. } = &scene;
    assert_eq!(client.tcp(Mesh::TCP).connect()?.greeting()?.peer.ip(), client.ip());
    assert!(scene.outsider.tcp(server.at(9000)).connect()?.greeting().is_err());

    scene.agent.restart()?;
    scene.agent.wait_for_path(&scene.client, Mesh::TCP, "kernel")?;
    let SecureMesh { agent, client, server, .. } = &scene;
    assert_eq!(client.tcp(Mesh::TCP).connect()?.greeting()?.peer.ip(), client.ip());
    agent.set_workloads(&[server])?;
    agent.wait_for_status("the client to be let go", |status| Ok(status.workloads.len() == 1))?;
    assert!(client.tcp(server.at(9000)).connect()?.greeting().is_err());
    Ok(())
}
