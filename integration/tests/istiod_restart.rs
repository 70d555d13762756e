//! The control plane may go away: traffic goes on with the last accepted configuration, and when istiod is back the
//! agent follows it again.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use orlop_integration::{Mesh, Service, tally, until};
use serde_json::json;

#[test]
fn istiod_is_killed_and_restarted_under_load_without_a_failed_request() -> Result<()> {
    let mut mesh = Mesh::start(Service::canary_routing)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    let by_proxy = mesh.client.load_http(mesh.client.http(Mesh::WEB).host(&mesh.web.host()))?;
    let by_kernel = mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP))?;

    sleep(Duration::from_millis(300));
    mesh.istiod.kill();
    sleep(Duration::from_secs(1));
    assert_eq!(
        tally(&mesh.client.http(Mesh::WEB).host(&mesh.web.host()).times(20)?),
        [("v1".to_owned(), 20)].into()
    );
    mesh.istiod.restart()?;

    // The agent has come back when an edit takes effect.
    let teapot = mesh.web.http_routes(&json!([{"directResponse": {"status": 418}}]));
    mesh.istiod.apply("routing.yaml", &(mesh.web.subsets_by_version(&["v1", "v2"]) + &teapot))?;
    until("the agent to follow the new istiod", Duration::from_secs(30), || {
        let reply = mesh.client.http(Mesh::WEB).host(&mesh.web.host()).send()?;
        Ok((reply.status == 418).then_some(()))
    })?;

    for report in [by_proxy.stop()?, by_kernel.stop()?] {
        assert_eq!(report.failures(), 0, "{report:?}");
        assert!(report.ok > 300, "{report:?}");
    }
    Ok(())
}
