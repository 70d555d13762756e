//! Services without anything to do for a proxy go by the kernel: an endpoint is chosen at connect, then nothing more.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Mesh, tally, until};
use serde_json::json;

#[test]
fn an_l4_service_goes_by_the_kernel_and_the_proxy_accepts_no_connection() -> Result<()> {
    let mesh = Mesh::plain()?;
    assert_eq!(mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?.path, "kernel");

    let replies = mesh.client.tcp(Mesh::TCP).times(100)?;
    let counts = tally(&replies);
    assert!(counts.len() == 2 && counts.values().all(|n| *n >= 25), "both endpoints, equally: {counts:?}");
    for reply in &replies {
        assert_eq!(reply.greeting()?.peer.ip(), mesh.client.ip(), "the server sees the pod itself");
    }

    let (kernel, proxy) = mesh.agent.counters(&mesh.client)?;
    assert_eq!((kernel.kernel_balanced, kernel.proxied), (100, 0));
    assert_eq!(proxy.accepted_outbound, 0);
    Ok(())
}

#[test]
fn endpoints_are_chosen_by_weight() -> Result<()> {
    let mesh = Mesh::plain()?;
    let web = Mesh::describe_web().weighted(&mesh.v1, 3).weighted(&mesh.v2, 1);
    mesh.istiod.apply("services.yaml", &web.yaml())?;
    until("the weights to take effect", Duration::from_secs(10), || {
        let counts = tally(&mesh.client.tcp(Mesh::TCP).times(100)?);
        Ok((counts.get("v1") > Some(&62)).then_some(()))
    })?;

    let counts = tally(&mesh.client.tcp(Mesh::TCP).times(2000)?);
    let share = f64::from(*counts.get("v1").unwrap_or(&0)) / 2000.0;
    assert!((share - 0.75).abs() < 0.05, "v1 got {share} of 2000, due are 0.75: {counts:?}");
    Ok(())
}

#[test]
fn endpoints_change_without_a_gap() -> Result<()> {
    let mesh = Mesh::plain()?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::TCP, "kernel")?;
    let load = mesh.client.load_tcp(mesh.client.tcp(Mesh::TCP))?;

    for alone in [&mesh.v1, &mesh.v2, &mesh.v1] {
        mesh.istiod.apply("services.yaml", &Mesh::describe_web().endpoint(alone).yaml())?;
        until("only one endpoint to be used", Duration::from_secs(10), || {
            let counts = tally(&mesh.client.tcp(Mesh::TCP).times(30)?);
            Ok((counts.len() == 1 && counts.contains_key(alone.name())).then_some(()))
        })?;
    }
    // Nobody is sent to an endpoint that has been removed.
    mesh.v2.stop_serving(9000);
    sleep(Duration::from_millis(200));

    let report = load.stop()?;
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(report.ok > 100 && report.servers.len() == 2, "{report:?}");
    let (kernel, proxy) = mesh.agent.counters(&mesh.client)?;
    assert!(kernel.kernel_balanced >= report.ok && proxy.accepted_outbound == 0, "{kernel:?} {proxy:?}");
    Ok(())
}

#[test]
fn what_the_mesh_does_not_know_goes_past_it() -> Result<()> {
    let mesh = Mesh::plain()?;
    let stranger = mesh.bed.plain_pod("stranger")?;
    stranger.serve_tcp(7000)?;

    let explanation = mesh.agent.explain(&mesh.client, &stranger.at(7000).to_string())?;
    assert_eq!(explanation.path, "passthrough", "{explanation:?}");
    assert_eq!(mesh.client.tcp(stranger.at(7000)).connect()?.greeting()?.server, "stranger");
    let (kernel, proxy) = mesh.agent.counters(&mesh.client)?;
    assert_eq!((kernel.passthrough, proxy.accepted_outbound), (1, 0));
    Ok(())
}

#[test]
fn what_the_mesh_forbids_is_refused_at_once() -> Result<()> {
    let registry_only = document(&json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Sidecar",
        "metadata": {"name": "default", "namespace": "default"},
        "spec": {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}},
    }));
    let mesh = Mesh::start(|_| registry_only)?;
    let stranger = mesh.bed.plain_pod("stranger")?;
    stranger.serve_tcp(7000)?;

    let explanation = mesh.agent.explain(&mesh.client, &stranger.at(7000).to_string())?;
    assert_eq!(explanation.path, "blocked", "{explanation:?}");
    let start = Instant::now();
    let error = mesh.client.tcp(stranger.at(7000)).connect()?.error.unwrap_or_default();
    assert!(error.contains("refused") && start.elapsed() < Duration::from_secs(1), "{error}");
    let (kernel, proxy) = mesh.agent.counters(&mesh.client)?;
    assert_eq!((kernel.blocked, proxy.accepted_outbound), (1, 0));
    Ok(())
}
