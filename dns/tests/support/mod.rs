//! The table of the tests: that of Istio's own tests of its DNS proxy, and some more.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

use std::sync::Arc;

use orlop_dns::Names;
use orlop_plan::resource::name_table::{KubernetesName, NameInfo, NameTable};

/// What becomes of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Unknown,
    Address(String),
    /// Of what, and its address.
    Alias(String, String),
}

pub(crate) fn find(names: &Names, name: &str) -> Expected {
    let Some(found) = names.find(name) else { return Expected::Unknown };
    let ip = found.ips.first().unwrap().to_string();
    match found.own_labels {
        None => Expected::Address(ip),
        Some(labels) => Expected::Alias(name.split('.').take(labels).collect::<Vec<_>>().join("."), ip),
    }
}

/// As a workload of the namespace `ns1` sees them.
pub(crate) fn names() -> Names {
    let many: Vec<String> = (0..64).map(|last| format!("240.0.0.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let service = |shortname: &str, namespace: &str| {
        Some(KubernetesName { shortname: shortname.into(), namespace: namespace.into() })
    };
    let table = [
        ("www.google.com", None, &["1.1.1.1"][..]),
        ("productpage.ns1.svc.cluster.local", service("productpage", "ns1"), &["9.9.9.9"]),
        ("example.ns2.svc.cluster.local", service("example", "ns2"), &["10.10.10.10"]),
        ("details.ns2.svc.cluster.remote", service("details", "ns2"), &["11.11.11.11", "12.12.12.12"]),
        ("elsewhere.ns1.svc.cluster.local", None, &["6.6.6.6"]),
        ("ipv6.localhost", None, &["2001:db8::ff00:42:8329"]),
        ("dual.localhost", None, &["2.2.2.2", "2001:db8::ff00:42:8329"]),
        ("*.b.wildcard", None, &["11.11.11.12"]),
        ("*.wildcard", None, &["10.10.10.10"]),
        ("*.svc.mesh.company.net", None, &["10.1.2.3"]),
        ("shadow.ns1.svc.cluster.local", service("shadow", "ns1"), &["7.7.7.7"]),
        ("shadow", None, &["8.8.8.8"]),
        ("mysql-0.mysql.ns1.svc.cluster.local", service("mysql-0.mysql", "ns1"), &["10.0.0.7"]),
        ("many.example", None, &many),
    ];
    let hosts = table.into_iter().map(|(host, kubernetes, ips)| {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        (host.into(), NameInfo { ips, kubernetes })
    });
    Names::new(Arc::new(NameTable { hosts: hosts.collect() }), "ns1", "cluster.local")
}
