//! `endpoint.v3.ClusterLoadAssignment`

use std::sync::Arc;

use orlop_plan::resource::endpoint::{EndpointAbout, HealthStatus, LbEndpoint, Locality};
use serde_json::json;

use crate::support::{endpoint, endpoint_refusals, load_assignment, load_assignment_refusals};

#[test]
fn an_endpoint_as_istiod_describes_it() {
    let assignment = load_assignment(&json!({
        "cluster_name": "backend",
        "endpoints": [{
            "locality": { "region": "r1", "zone": "z1" },
            "lb_endpoints": [{
                "endpoint": {
                    "address": { "socket_address": { "address": "10.0.0.1", "port_value": 8080 } },
                    "additional_addresses": [
                        { "address": { "socket_address": { "address": "fd00::1", "port_value": 8080 } } },
                    ],
                },
                "metadata": { "filter_metadata": {
                    "envoy.transport_socket_match": { "tlsMode": "istio" },
                    "istio": { "workload": "app-1;default;app;v1;Kubernetes" },
                } },
                "load_balancing_weight": 3,
            }],
            "load_balancing_weight": 3,
            "priority": 1,
        }],
    }));

    let locality = &assignment.localities[0];
    let place = Locality { region: "r1".to_owned(), zone: "z1".to_owned(), sub_zone: String::new() };
    assert_eq!((&locality.locality, locality.weight, locality.priority), (&place, Some(3), 1));
    assert_eq!(
        locality.endpoints,
        [LbEndpoint {
            address: "10.0.0.1:8080".parse().unwrap(),
            health: HealthStatus::Healthy,
            weight: 3,
            about: Arc::new(EndpointAbout {
                hostname: String::new(),
                transport_socket_match: vec![("tlsMode".to_owned(), "istio".to_owned())],
                workload: "app-1;default;app;v1;Kubernetes".to_owned(),
                additional_addresses: vec!["[fd00::1]:8080".parse().unwrap()],
            }),
        }]
    );
}

#[test]
fn fields_that_are_left_out_have_the_defaults_of_envoy() {
    let assignment = endpoint(&json!({}));

    assert_eq!(assignment.overprovisioning_factor, 140);
    assert_eq!(assignment.localities[0].weight, None);
    assert_eq!(assignment.localities[0].endpoints[0].weight, 1);
}

#[test]
fn health_as_the_control_plane_sees_it() {
    for (status, health) in [
        ("UNKNOWN", HealthStatus::Healthy),
        ("HEALTHY", HealthStatus::Healthy),
        ("DEGRADED", HealthStatus::Degraded),
        ("UNHEALTHY", HealthStatus::Unhealthy),
        ("TIMEOUT", HealthStatus::Unhealthy),
        ("DRAINING", HealthStatus::Draining),
    ] {
        let assignment = endpoint(&json!({ "health_status": status }));
        assert_eq!(assignment.localities[0].endpoints[0].health, health, "{status}");
    }
}

#[test]
fn an_endpoint_has_an_address_of_its_own() {
    let at = "endpoints[0].lb_endpoints[0].endpoint.address";
    let address = |address| json!({ "endpoint": { "address": address } });

    let named =
        endpoint_refusals(&address(json!({ "socket_address": { "address": "backend", "port_value": 80 } })));
    let internal =
        endpoint_refusals(&address(json!({ "envoy_internal_address": { "server_listener_name": "hbone" } })));
    let pipe = endpoint_refusals(&address(json!({ "pipe": { "path": "/run/backend" } })));

    assert!(named[0].starts_with(&format!("{at}.socket_address.address: \"backend\"")), "{named:?}");
    assert!(internal[0].starts_with(&format!("{at}.envoy_internal_address: ")), "{internal:?}");
    assert!(pipe[0].starts_with(&format!("{at}.pipe: ")), "{pipe:?}");
}

#[test]
fn weights_are_above_zero_and_their_sum_fits() {
    let zero = endpoint_refusals(&json!({ "load_balancing_weight": 0 }));
    let heavy = json!({
        "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": 8080 } } },
        "load_balancing_weight": u32::MAX,
    });
    let sum = load_assignment_refusals(
        &json!({ "cluster_name": "backend", "endpoints": [{ "lb_endpoints": [heavy, heavy] }] }),
    );

    assert_eq!(zero, ["endpoints[0].lb_endpoints[0].load_balancing_weight: must be 1 or above"]);
    assert_eq!(sum, ["endpoints[0].lb_endpoints: the sum of the weights does not fit into 32 bits"]);
}

#[test]
fn dropping_a_part_of_the_requests_is_refused() {
    let refusals = load_assignment_refusals(&json!({
        "cluster_name": "backend",
        "policy": { "drop_overloads": [{ "category": "lb", "drop_percentage": { "numerator": 1 } }] },
    }));

    assert_eq!(refusals, ["policy.drop_overloads: is not supported"]);
}
