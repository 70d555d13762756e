//! The agent is killed: who waits for the proxy is refused or let past it, as the operator wants, and nobody else notices.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use orlop_integration::{Mesh, Service};
use serde_json::json;

/// HTTP goes through the proxy.
fn routed(web: &Service) -> String {
    web.http_routes(&json!([
        {"match": [{"uri": {"exact": "/tea"}}], "directResponse": {"status": 418}},
        {"route": [{"destination": {"host": web.host()}}]},
    ]))
}

#[test]
fn a_workload_that_fails_open_goes_past_a_proxy_that_is_away() -> Result<()> {
    let mut mesh = Mesh::start(routed)?;
    let (closed, open) = (&mesh.client, mesh.bed.pod("open").label("app", "client").start()?);
    mesh.agent.set_workloads(&[closed, &open])?;
    let yaml = std::fs::read_to_string(mesh.agent.config_file())?;
    let with = yaml.replace("  name: open\n", "  name: open\n  failOpen: true\n");
    assert_ne!(with, yaml);
    mesh.agent.write_config(&with)?;
    // Both files may be read, or the second alone.
    sleep(Duration::from_millis(500));
    for pod in [closed, &open] {
        assert_eq!(mesh.agent.wait_enrolled(pod.name(), 20)?, Ok(()));
        mesh.agent.wait_for_path(pod, Mesh::WEB, "l7")?;
    }

    mesh.agent.kill();
    let refused = closed.http(Mesh::WEB).send()?.error.unwrap_or_default();
    assert!(refused.contains("refused"), "{refused}");
    // Nothing stands at the service's address here: past the proxy there is nobody. The endpoint is not reached by it.
    let past = open.http(Mesh::WEB).send()?.error.unwrap_or_default();
    assert!(!past.contains("refused"), "{past}");
    mesh.agent.restart()?;
    assert_eq!(open.http(Mesh::WEB).host(&mesh.web.host()).path("/tea").send()?.status, 418);
    Ok(())
}

#[test]
fn a_changed_layout_of_what_is_beside_the_attachments_migrates() -> Result<()> {
    let mut mesh = Mesh::plain()?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    mesh.agent.kill();
    // As an agent of another layout would have left it: its map is pinned under another name.
    let pins = std::path::Path::new("/sys/fs/bpf/orlop").join(mesh.bed.node_name());
    std::fs::rename(pins.join("PODS-1"), pins.join("PODS-0"))?;

    mesh.agent.restart()?;
    let load = mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP))?;
    mesh.agent.kill();
    mesh.agent.restart()?;
    sleep(Duration::from_millis(200));
    let report = load.stop()?;
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(mesh.agent.counters(&mesh.client)?.0.kernel_balanced > 0);
    Ok(())
}
