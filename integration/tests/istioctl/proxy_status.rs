//! `istioctl proxy-status`: istiod knows that each workload has what it was sent.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use orlop_integration::until;
use serde_json::Value;

use crate::sidecars::Sidecars;

/// The types that istiod reports of every sidecar that asks for them.
const TYPES: [&str; 4] = ["cluster", "listener", "route", "endpoint"];

#[test]
fn istiod_says_synced_of_every_type_of_every_workload() -> Result<()> {
    let sidecars = Sidecars::start()?;
    // The last acknowledgement may still be under way.
    until("istiod to say that all is synced", Duration::from_secs(10), || {
        let syncz = sidecars.istiod.debug("/debug/syncz")?;
        for pod in [&sidecars.orlop, &sidecars.envoy] {
            let proxy = format!("{}.default", pod.name());
            let found = syncz.as_array().into_iter().flatten().find(|entry| entry["proxy"] == proxy.as_str());
            let Some(found) = found else { return Ok(None) };
            for kind in TYPES {
                let (sent, acked) = (&found[format!("{kind}_sent")], &found[format!("{kind}_acked")]);
                ensure!(sent == acked && *sent != Value::Null, "{proxy}: {kind}: {found}");
            }
        }
        Ok(Some(()))
    })
}

#[test]
fn proxy_status_lists_orlops_workload_as_it_lists_envoys() -> Result<()> {
    let sidecars = Sidecars::start()?;
    let table = sidecars.proxy_status()?;
    let [orlop, envoy] = ["orlop.default", "envoy.default"].map(|name| Row::of(&table, name));
    let (orlop, envoy) = (orlop?, envoy?);

    assert_eq!((&orlop.cluster, &orlop.version), (&envoy.cluster, &envoy.version), "{table}");
    // Orlop takes the name table and the proxy configuration as well, as a sidecar's agent does beside its Envoy.
    assert!(envoy.types.iter().all(|kind| orlop.types.contains(kind)), "{table}");
    assert_eq!(envoy.types.len(), TYPES.len(), "{table}");
    Ok(())
}

/// What `istioctl proxy-status` says of a workload.
struct Row {
    cluster: String,
    version: String,
    types: Vec<String>,
}

impl Row {
    fn of(table: &str, workload: &str) -> Result<Self> {
        let row = table.lines().find(|line| line.starts_with(workload));
        let row = row.with_context(|| format!("no {workload} in\n{table}"))?;
        // NAME CLUSTER ISTIOD VERSION SUBSCRIBED TYPES, the last as `4 (CDS,LDS,EDS,RDS)`. This istiod has no name.
        let [_, cluster, version, _, types] = row.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("not a row: {row}");
        };
        let types = types.trim_matches(['(', ')']).split(',').map(ToOwned::to_owned).collect();
        Ok(Self { cluster: cluster.to_owned(), version: version.to_owned(), types })
    }
}
