//! `istioctl proxy-config` prints of Orlop's dump what it prints of Envoy's.

use anyhow::{Context, Result};

use crate::difference::{OnPurpose, assert_only_on_purpose, of_json, of_tables};
use crate::sidecars::Sidecars;

const STATIC_CLUSTERS: [OnPurpose; 4] = [
    OnPurpose { difference: "xds-grpc", reason: "Envoy's own connection to istiod is a cluster of its file" },
    OnPurpose {
        difference: "sds-grpc",
        reason: "Envoy's own connection to its secrets is a cluster of its file",
    },
    OnPurpose { difference: "prometheus_stats", reason: "a sidecar's file has a cluster for its statistics" },
    OnPurpose { difference: "agent", reason: "a sidecar's file has a cluster for its agent" },
];

#[test]
fn listeners_routes_clusters_and_endpoints_are_printed_as_those_of_a_real_envoy() -> Result<()> {
    let sidecars = Sidecars::start()?;
    let dumps = [
        sidecars.dump(&sidecars.envoy, "/config_dump?include_eds", "config_dump.json")?,
        sidecars.dump(&sidecars.orlop, "/config_dump?include_eds", "config_dump.json")?,
    ];
    // Where the dump of the configuration and that of the clusters are read, `eds` is the first and `endpoint` the second.
    for (what, reasons) in
        [("listener", &[][..]), ("route", &[]), ("cluster", &STATIC_CLUSTERS), ("eds", &STATIC_CLUSTERS)]
    {
        let [envoy, orlop] = dumps.each_ref().map(|dump| sidecars.proxy_config(what, dump));
        assert_only_on_purpose(what, &of_tables(&envoy?, &orlop?), reasons);
        let what = format!("{what} -o json");
        let [envoy, orlop] = dumps.each_ref().map(|dump| sidecars.proxy_config(&what, dump));
        let differences = of_json(&serde_json::from_str(&envoy?)?, &serde_json::from_str(&orlop?)?);
        assert_only_on_purpose(&what, &differences, reasons);
    }
    Ok(())
}

#[test]
fn the_state_of_endpoints_is_printed_as_that_of_a_real_envoys() -> Result<()> {
    let sidecars = Sidecars::start()?;
    let dumps = [
        sidecars.dump(&sidecars.envoy, "/clusters?format=json", "clusters.json")?,
        sidecars.dump(&sidecars.orlop, "/clusters?format=json", "clusters.json")?,
    ];
    let [envoy, orlop] = dumps.each_ref().map(|dump| sidecars.proxy_config("endpoint", dump));
    assert_only_on_purpose("endpoint", &of_tables(&envoy?, &orlop?), &STATIC_CLUSTERS);

    let what = "endpoint -o json";
    let [envoy, orlop] = dumps.each_ref().map(|dump| sidecars.proxy_config(what, dump));
    let differences = of_json(&serde_json::from_str(&envoy?)?, &serde_json::from_str(&orlop?)?);
    let mut reasons = Vec::from(STATIC_CLUSTERS);
    reasons.push(OnPurpose { difference: "/stats", reason: "nothing is counted for a single endpoint" });
    reasons.push(OnPurpose {
        difference: "/circuitBreakers/thresholds",
        reason: "nothing is routed with high priority",
    });
    assert_only_on_purpose(what, &differences, &reasons);
    Ok(())
}

/// The certificate and the root that a sidecar has from its own agent.
const IDENTITY: [OnPurpose; 4] = [
    OnPurpose { difference: "RESOURCE NAME", reason: "a table of nothing has no head" },
    OnPurpose { difference: "only Envoy: default ", reason: "this node keeps no certificates" },
    OnPurpose { difference: "only Envoy: ROOTCA ", reason: "this node keeps no certificates" },
    OnPurpose { difference: "No active or warming secrets", reason: "this node keeps no certificates" },
];

#[test]
fn secrets_are_printed_as_those_of_a_real_envoy() -> Result<()> {
    let sidecars = Sidecars::start()?;
    let dumps = [
        sidecars.dump(&sidecars.envoy, "/config_dump", "config_dump.json")?,
        sidecars.dump(&sidecars.orlop, "/config_dump", "config_dump.json")?,
    ];
    let [envoy, orlop] = dumps.each_ref().map(|dump| sidecars.proxy_config("secret", dump));
    assert_only_on_purpose("secret", &of_tables(&envoy?, &orlop?), &IDENTITY);
    Ok(())
}

#[test]
fn the_other_subcommands_read_the_dump() -> Result<()> {
    let sidecars = Sidecars::start()?;
    let dump = sidecars.dump(&sidecars.orlop, "/config_dump", "config_dump.json")?;

    let bootstrap = sidecars.proxy_config("bootstrap -o json", &dump)?;
    let bootstrap: serde_json::Value = serde_json::from_str(&bootstrap)?;
    let id = bootstrap.pointer("/bootstrap/node/id").and_then(|id| id.as_str()).context("no node id")?;
    assert_eq!(id, format!("sidecar~{}~orlop.default~default.svc.cluster.local", sidecars.orlop.ip()));
    let all = sidecars.proxy_config("all", &dump)?;
    assert!(all.contains("cluster/outbound|8080||web.default.svc.cluster.local "), "{all}");
    Ok(())
}
