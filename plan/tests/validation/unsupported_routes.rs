//! A route that asks for what Envoy does and Orlop does not is refused by itself; what Envoy would refuse as well refuses the
//! whole configuration.

use orlop_plan::resource::route::Action;
use orlop_plan::snapshot::ResourceType;
use serde_json::{Value, json};

use crate::support::{refused, routes};

const KIND: ResourceType = ResourceType::RouteConfiguration;

fn urgent() -> Value {
    json!({ "name": "urgent", "match": { "prefix": "/m" }, "route": { "cluster": "web", "priority": "HIGH" } })
}

fn plain() -> Value {
    json!({ "match": { "prefix": "/" }, "route": { "cluster": "web" } })
}

fn host(name: &str, routes: &[Value]) -> Value {
    json!({ "name": name, "domains": [name], "routes": routes })
}

/// A configuration that is refused as a whole.
fn whole(hosts: &[Value]) -> Vec<String> {
    refused(KIND, &json!({ "name": "8080", "virtual_hosts": hosts }))
}

/// The routes of a configuration that are refused by themselves, as the status says it.
fn alone(hosts: &[Value]) -> Vec<String> {
    let json = json!({ "name": "8080", "virtual_hosts": hosts });
    let snapshot = crate::support::accepted(KIND, &json);
    snapshot.refused_routes().map(|(_, resource, refused)| format!("{resource}: {refused}")).collect()
}

#[test]
fn the_others_are_served() {
    let configuration = routes(&json!({ "virtual_hosts": [host("web", &[urgent(), plain()])] }));

    let [refused, served] = &configuration.virtual_hosts[0].routes[..] else { panic!("{configuration:?}") };
    let Action::Unsupported(fields) = &refused.action else { panic!("{refused:?}") };
    assert_eq!(fields[0].path.to_string(), "route.priority");
    assert!(matches!(served.action, Action::Route(_)));
}

#[test]
fn route_and_field_are_named() {
    assert_eq!(
        alone(&[host("web", &[plain(), urgent()])]),
        [r#"8080: virtual_hosts[0].routes[1].route.priority: is not supported; route "urgent" answers 503"#]
    );
}

#[test]
fn a_filter_that_envoy_has_refuses_its_route_and_one_that_nobody_knows_all() {
    let with = |type_name: &str| {
        let mut route = plain();
        let config = json!({ "@type": format!("type.googleapis.com/{type_name}") });
        route["typed_per_filter_config"] = json!({ "f": config });
        host("web", &[route])
    };
    assert_eq!(alone(&[with("envoy.extensions.filters.http.fault.v3.HTTPFault")]).len(), 1);
    assert_eq!(whole(&[with("istio.networking.nds.v1.NameTable")]).len(), 1);
}

#[test]
fn what_a_virtual_host_asks_for_refuses_its_routes_and_no_others() {
    let mut asking = host("asking", &[plain()]);
    asking["rate_limits"] = json!([{ "actions": [{ "remote_address": {} }] }]);
    let hosts = [asking, host("web", &[plain()])];

    assert_eq!(
        alone(&hosts),
        [r#"8080: virtual_hosts[0].rate_limits: is not supported; every route of "asking" answers 503"#]
    );
    let configuration = routes(&json!({ "virtual_hosts": hosts }));
    let unsupported = configuration.virtual_hosts.iter().map(|host| host.unsupported.len());
    assert_eq!(unsupported.collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn a_match_that_is_not_understood_refuses_all_for_its_requests_are_not_known() {
    let mut route = plain();
    route["match"]["cookies"] = json!([{ "name": "c", "string_match": { "exact": "1" } }]);
    assert_eq!(
        whole(&[host("web", &[route])]),
        ["virtual_hosts[0].routes[0].match.cookies: is not supported"]
    );
}

#[test]
fn a_configuration_that_is_refused_names_such_routes_too() {
    let mut invalid = plain();
    invalid["route"]["timeout"] = json!("-1s");
    assert_eq!(
        whole(&[host("web", &[urgent(), invalid])]),
        [
            "virtual_hosts[0].routes[1].route.timeout: is negative",
            "virtual_hosts[0].routes[0].route.priority: is not supported",
        ]
    );
}
