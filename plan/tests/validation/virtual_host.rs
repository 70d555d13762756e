//! `route.v3.VirtualHost` and the route configuration around it.

use orlop_plan::resource::route::Domain;
use serde_json::{Value, json};

use crate::support::{routes, routes_refusals};

fn host(name: &str, domains: &[&str]) -> Value {
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "backend" } });
    json!({ "name": name, "domains": domains, "routes": [route] })
}

#[test]
fn domains_are_told_apart_and_lower_case() {
    let domains = ["WWW.Example.com", "*.example.com", "www.*", "*"];
    let configuration = routes(&json!({ "virtual_hosts": [host("all", &domains)] }));

    assert_eq!(
        configuration.virtual_hosts[0].domains,
        [
            Domain::Exact("www.example.com".to_owned()),
            Domain::Suffix(".example.com".to_owned()),
            Domain::Prefix("www.".to_owned()),
            Domain::Any,
        ]
    );
}

#[test]
fn a_virtual_host_has_a_domain() {
    let refusals = routes_refusals(&json!({ "virtual_hosts": [host("none", &[]), host("empty", &[""])] }));

    assert_eq!(refusals.len(), 2);
    assert!(refusals[0].starts_with("virtual_hosts[0].domains: "), "{refusals:?}");
    assert!(refusals[1].starts_with("virtual_hosts[1].domains[0]: "), "{refusals:?}");
}

#[test]
fn what_is_not_served_is_refused_at_every_level() {
    let mut all = host("all", &["*"]);
    all["rate_limits"] = json!([{ "actions": [{ "remote_address": {} }] }]);
    all["cors"] = json!({ "allow_methods": "GET" });
    let refusals = routes_refusals(&json!({ "virtual_hosts": [all], "vhds": {}, "vhost_header": "x-host" }));

    assert_eq!(refusals.len(), 4, "{refusals:#?}");
    for field in ["vhds: ", "vhost_header: ", "virtual_hosts[0].rate_limits: ", "virtual_hosts[0].cors: "] {
        assert!(refusals.iter().any(|refusal| refusal.starts_with(field)), "{field} is not in {refusals:#?}");
    }
}
