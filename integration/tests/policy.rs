//! `AuthorizationPolicy` for who may connect, from a real istiod: what addresses decide is decided in the kernel, before the
//! application sees a byte, and again for what is open when the policy changes; what is asked of identities goes to the proxy.

use anyhow::{Context, Result};
use orlop_integration::agent::SourceRule;
use orlop_integration::istio::document;
use orlop_integration::{Mesh, Pod};
use serde_json::{Value, json};

/// A mesh of which the agent carries the server `v1` alone.
fn server_with(policy: impl FnOnce(&Mesh) -> Value) -> Result<Mesh> {
    let mesh = Mesh::plain()?;
    mesh.agent.set_workloads(&[&mesh.v1])?;
    mesh.agent.wait_for_status("the server to be enrolled", |status| {
        Ok(status.workload(mesh.v1.name()).is_ok_and(|server| server.ready) && status.workloads.len() == 1)
    })?;
    let policy = policy(&mesh);
    apply(&mesh, &policy)?;
    Ok(mesh)
}

fn apply(mesh: &Mesh, spec: &Value) -> Result<()> {
    mesh.istiod.apply("policy.yaml", &policy(spec))
}

fn policy(spec: &Value) -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "who", "namespace": "default"},
        "spec": spec,
    }))
}

fn deny_from(pod: &Pod) -> Value {
    json!({"action": "DENY", "rules": [{"from": [{"source": {"ipBlocks": [pod.ip()]}}]}]})
}

/// What is said of connections from one range to a port of the server, once something is.
fn said(mesh: &Mesh, port: u16, range: &str) -> Result<SourceRule> {
    let mut said = None;
    mesh.agent.wait_for_status("the policy to be in force", |_| {
        let explanation = mesh.agent.explain(&mesh.v1, &mesh.v1.at(port).to_string())?;
        said = explanation.sources.into_iter().find(|rule| rule.sources == range);
        Ok(said.is_some())
    })?;
    said.context("waited for")
}

fn one(pod: &Pod) -> String {
    format!("{}/32", pod.ip())
}

fn refusal(client: &Pod, server: &Pod) -> Result<String> {
    Ok(client.tcp(server.at(9000)).connect()?.error.unwrap_or_default())
}

#[test]
fn a_denied_address_is_refused_by_the_kernel_at_a_tcp_port_and_in_words_at_an_http_port() -> Result<()> {
    let mesh = server_with(|mesh| deny_from(&mesh.client))?;
    let because = "denied by `ns[default]-policy[who]-rule[0]`".to_owned();
    let rule = said(&mesh, 9000, &one(&mesh.client))?;
    assert_eq!((rule.action.as_str(), rule.because), ("drop", because.clone()));
    let rule = said(&mesh, 8080, &one(&mesh.client))?;
    assert_eq!((rule.action.as_str(), rule.because), ("proxy-refuses", because));
    let before = mesh.agent.counters(&mesh.v1)?;

    assert!(refusal(&mesh.client, &mesh.v1)?.contains("refused"));
    let reply = mesh.client.http(mesh.v1.at(8080)).send()?;
    assert_eq!((reply.status, reply.body.as_str()), (403, "RBAC: access denied"));
    let (kernel, proxy) = mesh.agent.counters(&mesh.v1)?;
    assert_eq!(kernel.inbound_denied, before.0.inbound_denied + 1, "{kernel:?}");
    assert_eq!(proxy.accepted_inbound, before.1.accepted_inbound + 1, "{proxy:?}");

    let (kernel, _) = mesh.agent.counters(&mesh.v1)?;
    assert_eq!(mesh.v2.tcp(mesh.v1.at(9000)).connect()?.greeting()?.peer.ip(), mesh.v2.ip());
    assert_eq!(mesh.v2.http(mesh.v1.at(8080)).send()?.echo()?.peer.ip(), mesh.v2.ip());
    let after = mesh.agent.counters(&mesh.v1)?.0;
    assert_eq!(after.inbound_direct, kernel.inbound_direct + 2, "others do not see a proxy: {after:?}");
    Ok(())
}

#[test]
fn whom_a_policy_for_a_port_allows_goes_directly_and_nobody_else_gets_in() -> Result<()> {
    let mesh = server_with(|mesh| {
        json!({
            "selector": {"matchLabels": {"app": "web"}},
            "rules": [{
                "from": [{"source": {"ipBlocks": [mesh.client.ip()]}}],
                "to": [{"operation": {"ports": ["9000"]}}],
            }],
        })
    })?;
    assert_eq!(said(&mesh, 9000, &one(&mesh.client))?.action, "direct");
    assert_eq!(said(&mesh, 9000, "0.0.0.0/0")?.because, "no policy allows it");

    assert_eq!(mesh.client.tcp(mesh.v1.at(9000)).connect()?.greeting()?.peer.ip(), mesh.client.ip());
    assert!(refusal(&mesh.v2, &mesh.v1)?.contains("refused"));
    assert_eq!(mesh.client.http(mesh.v1.at(8080)).send()?.status, 403, "another port");
    Ok(())
}

#[test]
fn a_changed_policy_closes_the_connections_that_it_denies() -> Result<()> {
    let mesh = server_with(|mesh| deny_from(&mesh.v2))?;
    said(&mesh, 9000, &one(&mesh.v2))?;
    let of_all = deny_from(&mesh.client);
    let mut of_one = of_all.clone();
    of_one["selector"] = json!({"matchLabels": {"version": "v1"}});
    for spec in [of_all, of_one] {
        mesh.agent.wait_for_status("the client to be let in", |_| {
            Ok(mesh.client.tcp(mesh.v1.at(9000)).connect()?.error.is_none())
        })?;
        let before = mesh.agent.counters(&mesh.v1)?.0;
        let load = mesh.client.load_tcp(mesh.client.tcp(mesh.v1.at(9000)).one_connection())?;
        mesh.agent.wait_for_status("both connections of the client", |status| {
            let kernel = status.workload(mesh.v1.name())?.kernel.unwrap_or_default();
            Ok(kernel.inbound_direct == before.inbound_direct + 2)
        })?;

        apply(&mesh, &spec)?;
        mesh.agent.wait_for_status("the connections to be closed", |status| {
            let kernel = status.workload(mesh.v1.name())?.kernel.unwrap_or_default();
            Ok(kernel.denied_closed == before.denied_closed + 2)
        })?;
        let report = load.stop()?;
        assert!(report.ok > 0 && report.failures() > 0, "{report:?}");
        apply(&mesh, &deny_from(&mesh.v2))?;
    }
    Ok(())
}

#[test]
fn what_asks_for_an_identity_goes_to_the_proxy_which_knows_none_of_plaintext() -> Result<()> {
    let mesh = server_with(
        |_| json!({"rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/client"]}}]}]}),
    )?;
    let rule = said(&mesh, 9000, "0.0.0.0/0")?;
    assert_eq!(rule.action, "proxy-refuses");
    assert_eq!(rule.because, "`ns[default]-policy[who]-rule[0]` asks for more than addresses");

    assert!(!refusal(&mesh.client, &mesh.v1)?.is_empty());
    assert_eq!(mesh.client.http(mesh.v1.at(8080)).send()?.status, 403);
    assert_eq!(mesh.agent.counters(&mesh.v1)?.0.inbound_direct, 0);
    Ok(())
}
