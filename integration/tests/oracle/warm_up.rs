//! Endpoints that are new get less at first.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use orlop_integration::istio::document;
use orlop_integration::{Mesh, tally, until};
use serde_json::json;

/// How long an endpoint is new.
const WINDOW: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_new_endpoint_gets_a_tenth_of_its_share_at_first() -> Result<()> {
    let mut mesh = Mesh::start(|web| {
        document(&json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "host": web.host(),
                "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN", "warmup": {"duration": "10s"}}},
            },
        }))
    })?;
    let alone = Mesh::describe_web().endpoint(&mesh.v1);
    mesh.istiod.apply("services.yaml", &alone.yaml())?;
    // One worker, so that whoever serves the requests below has known the first endpoint.
    mesh.agent.set_proxy_workers(1);
    mesh.agent.restart()?;
    let ask =
        || Ok::<_, anyhow::Error>(tally(&mesh.client.http(Mesh::WEB).host(&mesh.web.host()).times(100)?));
    until("v1 serves alone", PATIENCE, || Ok((ask()?.get("v1") == Some(&100)).then_some(())))?;
    sleep(WINDOW);
    mesh.istiod.apply("services.yaml", &mesh.web.yaml())?;
    let share = || Ok::<_, anyhow::Error>(ask()?.get("v2").copied().unwrap_or_default());
    until("v2 serves", PATIENCE, || Ok((share()? > 0).then_some(())))?;
    let at_first = share()?;
    assert!((5..=30).contains(&at_first), "{at_first} of 100");
    until("v2 serves its half", PATIENCE, || Ok((share()? == 50).then_some(())))
}
