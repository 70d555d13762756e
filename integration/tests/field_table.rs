//! No field that istiod sends is unknown: with every kind of Istio's configuration, all that it sends to several workloads is
//! held against the table that `docs/xds.md` prints.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use orlop_integration::fidelity::{Seen, Table, capture};
use orlop_integration::{Bed, Istiod};
use orlop_proto::{Descriptors, ResourceType};
use orlop_xds_client::WorkloadNode;

const MESH: &str = include_str!("istio/mesh-config");

macro_rules! files {
    ($($name:literal),+ $(,)?) => { &[$(($name, include_str!(concat!("istio/", $name)))),+] };
}

/// One file for each kind, and the services that they are about.
const EVERYTHING: &[(&str, &str)] = files![
    "services.yaml",
    "authz-l4.yaml",
    "authz-l7.yaml",
    "destinationrule.yaml",
    "envoyfilter.yaml",
    "gateway.yaml",
    "peerauthentication-strict.yaml",
    "peerauthentication.yaml",
    "proxyconfig.yaml",
    "requestauthentication.yaml",
    "sidecar.yaml",
    "telemetry.yaml",
    "virtualservice.yaml",
    "wasmplugin.yaml",
];

/// What istiod says of endpoints where it knows their nodes.
const KUBERNETES_ONLY: &[&str] = &["envoy.config.endpoint.v3.LocalityLbEndpoints.locality"];

fn workload(name: &str, last: u8) -> WorkloadNode {
    WorkloadNode {
        name: format!("{name}-1"),
        namespace: "default".to_owned(),
        service_account: name.to_owned(),
        node_name: "node-1".to_owned(),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))],
        labels: BTreeMap::from([
            ("app".to_owned(), name.to_owned()),
            ("version".to_owned(), "v1".to_owned()),
        ]),
        trust_domain: "cluster.local".to_owned(),
        domain: "cluster.local".to_owned(),
        ..WorkloadNode::default()
    }
}

/// What several workloads are sent, held against the table.
fn look_up(istiod: &Istiod, workloads: impl IntoIterator<Item = WorkloadNode>) -> Result<Seen> {
    let descriptors = Descriptors::load()?;
    let table = Table::probe(&descriptors)?;
    let mut seen = Seen::default();
    let address = istiod.address().to_string();
    for node in workloads {
        let name = node.name.clone();
        let captured = capture(&descriptors, &address, node)?;
        for resource_type in
            [ResourceType::Cluster, ResourceType::Listener, ResourceType::ClusterLoadAssignment]
        {
            ensure!(captured.keys().any(|(kind, _)| *kind == resource_type), "{name} got no {resource_type}");
        }
        for ((resource_type, resource), sent) in &captured {
            let at = format!("{name}: {resource_type} {resource}");
            table.look_up(&descriptors, &sent.body, &at, &mut seen)?;
        }
    }
    println!("{} fields seen", seen.fields.len());
    for (what, places) in [("refused", &seen.refused), ("not yet", &seen.not_yet)] {
        for (field, place) in places {
            println!("{what}: {field}   ({place})");
        }
    }
    ensure!(seen.unknown.is_empty(), "the table does not know:\n{:#?}", seen.unknown);
    Ok(seen)
}

#[test]
fn the_table_knows_every_field_that_istiod_sends() -> Result<()> {
    let bed = Bed::new()?;
    let istiod = Istiod::start_with_mesh(&bed, MESH, EVERYTHING)?;
    // One invalid document keeps the whole directory from being read, without a word.
    let read = istiod.debug("/debug/configz")?.to_string();
    for kind in ["VirtualService", "DestinationRule", "WasmPlugin", "Sidecar", "EnvoyFilter", "Telemetry"] {
        ensure!(read.contains(kind), "istiod has read no {kind}");
    }
    // The server that everything selects, a client, and a service that others call.
    look_up(&istiod, [workload("app", 1), workload("client", 99), workload("backend", 21)])?;
    Ok(())
}

#[test]
fn the_table_knows_every_field_that_istiod_sends_for_the_services_of_a_cluster() -> Result<()> {
    let bed = Bed::new()?;
    let istiod = Istiod::start_with_services(&bed, include_str!("istio/kubernetes.yaml"), &[])?;
    let seen = look_up(&istiod, [workload("app", 1), workload("client", 99)])?;
    for field in KUBERNETES_ONLY {
        ensure!(seen.fields.contains_key(*field), "{field} is not among {:#?}", seen.fields.keys());
    }
    Ok(())
}
