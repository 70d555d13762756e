//! The last good configuration survives the agent: one that starts while the control plane is away serves what was served
//! before.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use orlop_integration::{Mesh, Service, tally, until};

const EXTRA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 30)), 9000);

/// A mesh with an L7 route, whose configuration is on disk.
fn saved_mesh() -> Result<Mesh> {
    let mesh = Mesh::start(Service::canary_routing)?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    saved_after_change(&mesh)?;
    Ok(mesh)
}

/// Waits until what is in force now is on disk.
fn saved_after_change(mesh: &Mesh) -> Result<()> {
    until("the configuration to be saved", Duration::from_secs(20), || {
        let status = mesh.agent.status()?.last_good;
        ensure!(status.saved.is_some() && !status.pending, "{status:?}");
        Ok(Some(()))
    })
}

fn file(mesh: &Mesh) -> PathBuf {
    mesh.bed.dir().join("state").join(mesh.bed.node_name()).join("last-good")
}

#[test]
fn an_agent_that_starts_while_istiod_is_away_serves_what_was_served_before() -> Result<()> {
    let mut mesh = saved_mesh()?;
    let extra = Service::new("extra", "10.96.0.30").tcp(EXTRA.port(), 9000).endpoint(&mesh.v1);
    mesh.istiod.apply("extra.yaml", &extra.yaml())?;
    mesh.agent.wait_for_path(&mesh.client, EXTRA, "kernel")?;
    saved_after_change(&mesh)?;

    mesh.agent.kill();
    mesh.istiod.kill();
    mesh.agent.restart()?;

    let status = mesh.agent.status()?;
    assert!(status.ready, "{status:?}");
    assert_eq!((status.last_good.restored, &status.last_good.problem), (1, &None));
    assert_eq!(tally(&mesh.client.tcp(EXTRA).times(10)?), [("v1".to_owned(), 10)].into());
    let request = || mesh.client.http(Mesh::WEB).host(&mesh.web.host());
    assert_eq!(tally(&request().times(10)?), [("v1".to_owned(), 10)].into());
    assert_eq!(tally(&request().header("x-canary", "true").times(10)?), [("v2".to_owned(), 10)].into());

    // What istiod does not have any more when it is back is gone here too; the rest was never touched.
    mesh.istiod.delete_while_away("extra.yaml")?;
    let load = mesh.client.load_http(request())?;
    mesh.istiod.restart()?;
    mesh.agent.wait_for_path(&mesh.client, EXTRA, "passthrough")?;
    let report = load.stop()?;
    assert_eq!(report.failures(), 0, "{report:?}");
    Ok(())
}

#[test]
fn a_damaged_file_is_set_aside_with_a_message_and_the_agent_starts_without_it() -> Result<()> {
    let mut mesh = saved_mesh()?;
    mesh.agent.kill();
    let path = file(&mesh);
    let mut bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes)?;

    mesh.agent.restart()?;

    let status = mesh.agent.status()?.last_good;
    let problem = status.problem.context("status says nothing of the file")?;
    let aside = path.with_extension("damaged");
    assert!(problem.contains("its checksum is wrong"), "{problem}");
    assert!(problem.contains(&aside.display().to_string()), "{problem}");
    assert_eq!(fs::read(&aside)?, bytes);
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    Ok(())
}

#[test]
fn what_another_control_plane_sent_is_not_used() -> Result<()> {
    let mut mesh = saved_mesh()?;
    mesh.agent.kill();
    mesh.istiod.kill();
    let config = fs::read_to_string(mesh.agent.config_file())?;
    let elsewhere = config.replace(&mesh.istiod.address().to_string(), "127.0.0.1:9");
    assert_ne!(config, elsewhere);
    mesh.agent.write_config(&elsewhere)?;

    mesh.agent.start_without_waiting()?;

    let status = mesh.agent.wait_for_status("the agent to answer", |_| Ok(true))?;
    assert_eq!((status.ready, status.last_good.restored), (false, 0), "{status:?}");
    Ok(())
}
