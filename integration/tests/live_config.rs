//! Configuration is live: an edit changes the path of traffic without a restart and without a failed request.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use orlop_integration::{Mesh, tally};
use serde_json::json;

#[test]
fn an_edit_moves_traffic_from_the_kernel_to_the_proxy_and_back_without_a_failed_request() -> Result<()> {
    let mesh = Mesh::plain()?;
    let request = || mesh.client.http(Mesh::WEB).host(&mesh.web.host());
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "kernel")?;
    let load = mesh.client.load_http(request())?;
    sleep(Duration::from_millis(300));

    mesh.istiod.apply("routing.yaml", &mesh.web.canary_routing())?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "l7")?;
    assert_eq!(tally(&request().header("x-canary", "true").times(20)?), [("v2".to_owned(), 20)].into());
    assert_eq!(tally(&request().times(20)?), [("v1".to_owned(), 20)].into());
    sleep(Duration::from_millis(300));

    mesh.istiod.apply("routing.yaml", "")?;
    mesh.agent.wait_for_path(&mesh.client, Mesh::WEB, "kernel")?;
    let (before, _) = mesh.agent.counters(&mesh.client)?;
    assert_eq!(tally(&request().header("x-canary", "true").fresh_connections().times(40)?).len(), 2);
    let (after, _) = mesh.agent.counters(&mesh.client)?;
    assert!(after.kernel_balanced >= before.kernel_balanced + 40, "{before:?} {after:?}");
    sleep(Duration::from_millis(300));

    let report = load.stop()?;
    let (_, proxy) = mesh.agent.counters(&mesh.client)?;
    assert_eq!(report.failures(), 0, "{report:?} {:?}", proxy.response_flags);
    assert!(report.ok > 200, "{report:?}");
    Ok(())
}

#[test]
fn routes_change_many_times_under_load_without_a_failed_request() -> Result<()> {
    let mesh = Mesh::plain()?;
    let load = mesh.client.load_http(mesh.client.http(Mesh::WEB).host(&mesh.web.host()))?;
    for version in ["v1", "v2", "v1", "v2", "v1"] {
        let routes = mesh.web.http_routes(&json!([
            {"match": [{"uri": {"prefix": "/never"}}], "directResponse": {"status": 404}},
            {"route": [mesh.web.subset(version)]},
        ]));
        mesh.istiod.apply("routing.yaml", &(mesh.web.subsets_by_version(&["v1", "v2"]) + &routes))?;
        orlop_integration::until("the route to change", Duration::from_secs(10), || {
            let counts = tally(&mesh.client.http(Mesh::WEB).host(&mesh.web.host()).times(20)?);
            Ok((counts == [(version.to_owned(), 20)].into()).then_some(()))
        })?;
    }
    let report = load.stop()?;
    assert_eq!(report.failures(), 0, "{report:?}");
    Ok(())
}
