//! A TCP service whose configuration asks for more than the kernel does goes through the proxy, without HTTP.

use anyhow::Result;
use orlop_integration::{Mesh, tally};
use serde_json::json;

#[test]
fn tcp_weights_between_subsets_hold_and_nothing_fails() -> Result<()> {
    const CONNECTIONS: u32 = 2000;
    let mesh = Mesh::start(|web| {
        let share = |subset: &str, weight: u32| json!({"destination": {"host": web.host(), "subset": subset, "port": {"number": 9000}}, "weight": weight});
        let split = json!([{"match": [{"port": 9000}], "route": [share("v1", 90), share("v2", 10)]}]);
        web.subsets_by_version(&["v1", "v2"]) + &web.tcp_routes(&split)
    })?;
    let explanation = mesh.agent.explain(&mesh.client, &Mesh::TCP.to_string())?;
    assert!(["tcp", "kernel"].contains(&explanation.path.as_str()), "{explanation:?}");

    let replies = mesh.client.tcp(Mesh::TCP).times(CONNECTIONS)?;
    let counts = tally(&replies);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["v1", "v2"], "{counts:?}");
    let share = f64::from(*counts.get("v1").unwrap_or(&0)) / f64::from(CONNECTIONS);
    assert!((share - 0.90).abs() < 0.05, "{counts:?}");
    assert_eq!(replies[0].greeting()?.peer.ip(), mesh.client.ip());
    Ok(())
}
