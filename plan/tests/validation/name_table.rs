//! What becomes of a name table.

use std::net::IpAddr;
use std::sync::Arc;

use orlop_plan::resource::name_table::{KubernetesName, NameTable};
use orlop_plan::snapshot::{ResourceType, Snapshot};
use serde_json::{Value, json};

use crate::support::{any, deliver};

const KIND: ResourceType = ResourceType::NameTable;

fn accepted(table: &Value) -> (Arc<NameTable>, Snapshot) {
    let (snapshot, outcome) = deliver(KIND, [(String::new(), any(KIND, &json!({ "table": table })))]);
    assert_eq!(outcome.errors, [], "refused");
    (Arc::clone(snapshot.name_table().expect("accepted")), snapshot)
}

#[test]
fn hosts_have_their_addresses_in_order_and_services_their_short_names() {
    let (table, snapshot) = accepted(&json!({
        "web.shop.svc.cluster.local": {
            "ips": ["10.96.0.20", "fd00::20"],
            "registry": "Kubernetes",
            "shortname": "web",
            "namespace": "shop",
        },
        "api.example.com": { "ips": ["240.240.0.1"], "registry": "External" },
    }));
    let web = &table.hosts["web.shop.svc.cluster.local"];
    let ips: [IpAddr; 2] = ["10.96.0.20".parse().unwrap(), "fd00::20".parse().unwrap()];
    assert_eq!(*web.ips, ips);
    let name = KubernetesName { shortname: "web".into(), namespace: "shop".into() };
    assert_eq!(web.kubernetes.as_ref(), Some(&name));
    assert_eq!(table.hosts["api.example.com"].kubernetes, None);
    assert_eq!(snapshot.without_effect(), []);
}

#[test]
fn a_service_of_a_cluster_set_has_one_name_only() {
    // istiod leaves the short name out for it.
    let (table, _) = accepted(&json!({
        "web.shop.svc.clusterset.local": { "ips": ["10.0.0.1"], "registry": "Kubernetes" },
    }));
    assert_eq!(table.hosts["web.shop.svc.clusterset.local"].kubernetes, None);
}

#[test]
fn names_are_in_lower_case_and_without_a_final_dot() {
    let (table, _) = accepted(&json!({ "API.Example.COM.": { "ips": [] }, "*.Example.com": { "ips": [] } }));
    assert_eq!(
        table.hosts.keys().map(|host| &**host).collect::<Vec<_>>(),
        ["*.example.com", "api.example.com"]
    );
}

#[test]
fn a_host_that_cannot_be_asked_for_is_left_out_and_told() {
    let long = format!("{}.example", "x".repeat(64));
    for host in ["", ".", "a..b", "a b", "a.*.b", "*", "n\u{e4}me.example", &long] {
        let (table, snapshot) = accepted(&json!({ host: { "ips": [] }, "web": { "ips": [] } }));
        assert_eq!(table.hosts.keys().map(|host| &**host).collect::<Vec<_>>(), ["web"], "{host:?}");
        let told = snapshot.without_effect();
        assert_eq!(told.len(), 1, "{host:?}");
        assert_eq!(
            told[0].to_string(),
            format!("name table: table[{host:?}]: is not a name that DNS can carry; nothing answers to it"),
        );
    }
}

#[test]
fn hosts_that_differ_in_case_alone_are_one_and_told() {
    let (table, snapshot) =
        accepted(&json!({ "WEB": { "ips": ["10.0.0.1"] }, "web": { "ips": ["10.0.0.2"] } }));
    assert_eq!(*table.hosts["web"].ips, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(snapshot.without_effect().len(), 1);
}

#[test]
fn an_address_that_is_none_is_refused_and_the_last_good_table_stays() {
    let json = json!({ "table": { "web": { "ips": ["10.0.0.1", "10.0.0.0/8"] } } });
    let (snapshot, outcome) = deliver(KIND, [(String::new(), any(KIND, &json))]);
    assert_eq!(snapshot.name_table(), None);
    let fields: Vec<_> = outcome.errors[0].fields.iter().map(ToString::to_string).collect();
    assert_eq!(fields, [r#"table["web"].ips[1]: "10.0.0.0/8" is not an IP address"#]);
}
