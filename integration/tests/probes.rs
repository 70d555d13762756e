//! Probes under a real istiod's policies: what probes a workload reaches it in plaintext at the port that the workload declares,
//! under STRICT and past whoever denies everybody, and nobody else does. What tells it from others on its address is shown
//! where the kernel decides, in `datapath/tests/probes.rs`.

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Mesh, SecureMesh};
use serde_json::json;

const PROBED: u16 = 8080;

/// A mesh under STRICT whose `outsider`, carried by nobody, probes the workloads.
fn probed_by_the_outsider() -> Result<SecureMesh> {
    let mut scene = SecureMesh::new("STRICT")?;
    assert!(scene.outsider.http(scene.server.at(PROBED)).send()?.error.is_some(), "not without being named");
    scene.agent.stop()?;
    scene.agent.set_probes(&scene.outsider, PROBED)?;
    scene.agent.set_workloads(&[&scene.client, &scene.server])?;
    scene.agent.restart()?;
    Ok(scene)
}

#[test]
fn under_strict_and_under_a_policy_that_denies_all_probes_succeed_and_nothing_else_in_plaintext() -> Result<()>
{
    let scene = probed_by_the_outsider()?;
    let SecureMesh { agent, client, server, outsider, .. } = &scene;
    let probe = || Ok::<_, anyhow::Error>(outsider.http(server.at(PROBED)).send()?.echo()?.peer.ip());
    assert_eq!(probe()?, outsider.ip());
    assert_eq!(agent.counters(server)?.0.inbound_probes, 1);
    assert!(outsider.tcp(server.at(9000)).connect()?.greeting().is_err(), "no port but that one");

    scene.istiod.apply("policy.yaml", &deny_all())?;
    agent.wait_for_status("the client to be refused", |_| {
        Ok(client.http(Mesh::WEB).host(&scene.web.host()).send()?.status == 403)
    })?;
    assert_eq!(probe()?, outsider.ip());
    let rules = agent.explain(server, &server.at(PROBED).to_string())?;
    assert!(rules.probed, "{rules:?}");
    Ok(())
}

#[test]
fn probes_go_on_while_the_agent_is_dead() -> Result<()> {
    let mut scene = probed_by_the_outsider()?;
    scene.agent.kill();
    let SecureMesh { client, server, outsider, .. } = &scene;
    assert!(client.tcp(server.at(9000)).connect()?.greeting().is_err(), "what needs the proxy is refused");
    assert_eq!(outsider.http(server.at(PROBED)).send()?.echo()?.peer.ip(), outsider.ip());
    Ok(())
}

#[test]
fn a_cgroup_of_the_prober_that_is_not_there_is_told_and_holds_up_nothing() -> Result<()> {
    let mut scene = SecureMesh::new("STRICT")?;
    scene.agent.stop()?;
    scene.agent.set_probes_of("/sys/fs/cgroup/nobody.service".into(), PROBED);
    scene.agent.set_workloads(&[&scene.client, &scene.server])?;
    scene.agent.restart()?;
    let problem = scene.agent.status()?.probe_problem.unwrap_or_default();
    assert!(problem.contains("cannot open cgroup /sys/fs/cgroup/nobody.service"), "{problem}");
    assert!(scene.shown()?.is_some(), "the mesh is as it was");
    Ok(())
}

fn deny_all() -> String {
    document(&json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody", "namespace": "default"},
        "spec": {"action": "DENY", "rules": [{}]},
    }))
}
