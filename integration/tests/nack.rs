//! What the agent cannot honour it rejects, visibly on both sides, and the last good configuration stays.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use orlop_integration::istio::document;
use orlop_integration::{Mesh, Service, tally, until};
use serde_json::{Value, json};

#[test]
fn an_unknown_filter_is_rejected_by_name_and_the_last_good_routes_stay() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    let routed =
        || Ok::<_, anyhow::Error>(tally(&mesh.client.http(Mesh::WEB).host(&mesh.web.host()).times(20)?));
    assert_eq!(routed()?, [("v1".to_owned(), 20)].into());

    mesh.istiod.apply("filter.yaml", &lua_on_outbound_http())?;
    let status = mesh.agent.wait_for_status("the rejection to be reported", |status| {
        Ok(!status.workload("client")?.rejected.is_empty())
    })?;
    let rejected = status.workload("client")?.rejected.join("\n");
    assert!(rejected.contains("lua"), "it names the filter: {rejected}");
    assert!(rejected.contains("filter"), "it names the field: {rejected}");
    until("istiod to know of the rejection", Duration::from_secs(5), || {
        Ok(mesh.istiod.log().contains("ACK ERROR").then_some(()))
    })?;
    assert_eq!(routed()?, [("v1".to_owned(), 20)].into(), "the last good routes stay");
    let listener = listener_dump(&mesh)?;
    assert!(listener["error_state"]["details"].as_str().is_some_and(|why| why.contains("lua")), "{listener}");
    assert!(!listener["active_state"].to_string().contains("lua"), "{listener}");

    mesh.istiod.delete("filter.yaml")?;
    mesh.agent.wait_for_status("the rejection to be over", |status| {
        Ok(status.workload("client")?.rejected.is_empty())
    })?;
    assert_eq!(routed()?, [("v1".to_owned(), 20)].into());
    assert_eq!(listener_dump(&mesh)?["error_state"], Value::Null);
    Ok(())
}

/// An extension that nobody knows, where it is put, and where the refusal finds it.
struct Unknown {
    name: &'static str,
    apply_to: &'static str,
    matches: Value,
    patch: Value,
    /// Part of the field's path.
    field: &'static str,
}

fn unknown_extensions(web: &str) -> [Unknown; 4] {
    let config = json!({
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/acme.Extension",
    });
    let extension = |name: &str| json!({"name": name, "typed_config": config});
    let outbound = |what: &str, matches: Value| json!({"context": "SIDECAR_OUTBOUND", what: matches});
    [
        Unknown {
            name: "acme.network",
            apply_to: "NETWORK_FILTER",
            matches: outbound(
                "listener",
                json!({"portNumber": 8080, "filterChain": {"filter": {
                    "name": "envoy.filters.network.http_connection_manager",
                }}}),
            ),
            patch: json!({"operation": "INSERT_BEFORE", "value": extension("acme.network")}),
            field: ".filters[0].typed_config",
        },
        Unknown {
            name: "acme.listener",
            apply_to: "LISTENER_FILTER",
            matches: outbound("listener", json!({"portNumber": 8080})),
            patch: json!({"operation": "INSERT_FIRST", "value": extension("acme.listener")}),
            field: "listener_filters[0].typed_config",
        },
        Unknown {
            name: "acme.route",
            apply_to: "HTTP_ROUTE",
            matches: outbound("routeConfiguration", json!({"portNumber": 8080})),
            patch: json!({"operation": "MERGE", "value": {
                "typed_per_filter_config": {"acme.route": config},
            }}),
            field: "typed_per_filter_config",
        },
        Unknown {
            name: "acme.cluster",
            apply_to: "CLUSTER",
            matches: outbound("cluster", json!({"service": web})),
            patch: json!({"operation": "MERGE", "value": {"filters": [extension("acme.cluster")]}}),
            // Behind istiod's own filter.
            field: "filters[1].typed_config",
        },
    ]
}

#[test]
fn an_unknown_extension_is_rejected_by_name_wherever_it_is_put() -> Result<()> {
    let mesh = Mesh::start(Service::canary_routing)?;
    for Unknown { name, apply_to, matches, patch, field } in unknown_extensions(&mesh.web.host()) {
        let filter = document(&json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": "acme", "namespace": "default"},
            "spec": {"configPatches": [{"applyTo": apply_to, "match": matches, "patch": patch}]},
        }));
        mesh.istiod.apply("filter.yaml", &filter)?;
        let status = mesh.agent.wait_for_status(&format!("the rejection of {name}"), |status| {
            Ok(!status.workload("client")?.rejected.is_empty())
        })?;
        let rejected = status.workload("client")?.rejected.join("\n");
        assert!(rejected.contains(name), "{apply_to}: it names the extension: {rejected}");
        assert!(rejected.contains(field), "{apply_to}: it names the field: {rejected}");
        until("istiod to know of the rejection", Duration::from_secs(5), || {
            Ok(mesh.istiod.log().contains(name).then_some(()))
        })?;
        mesh.istiod.delete("filter.yaml")?;
        mesh.agent.wait_for_status(&format!("the rejection of {name} to be over"), |status| {
            Ok(status.workload("client")?.rejected.is_empty())
        })?;
    }
    Ok(())
}

#[test]
fn a_route_with_a_feature_that_is_not_supported_answers_503_and_all_others_are_served() -> Result<()> {
    let limited = |web: &Service| {
        let routes = json!([
            {"name": "limited", "match": [{"uri": {"prefix": "/limited"}}], "route": [web.subset("v1")]},
            {"route": [web.subset("v2")]},
        ]);
        let limits = json!({"route": {"rate_limits": [{"actions": [{"remote_address": {}}]}]}});
        let filter = json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": "limits", "namespace": "default"},
            "spec": {"configPatches": [{
                "applyTo": "HTTP_ROUTE",
                "match": {"context": "SIDECAR_OUTBOUND", "routeConfiguration": {
                    "vhost": {"route": {"name": "limited"}},
                }},
                "patch": {"operation": "MERGE", "value": limits},
            }]},
        });
        web.subsets_by_version(&["v1", "v2"]) + &web.http_routes(&routes) + &document(&filter)
    };
    let mesh = Mesh::start(limited)?;
    let request = || mesh.client.http(Mesh::WEB).host(&mesh.web.host());

    assert_eq!(request().path("/limited").send()?.status, 503);
    assert_eq!(tally(&request().times(20)?), [("v2".to_owned(), 20)].into());

    let status = mesh.agent.status()?;
    let workload = status.workload("client")?;
    assert_eq!(workload.rejected, [""; 0], "the configuration is accepted");
    let refused = workload.refused_routes.join("\n");
    assert!(refused.contains(r#"route "limited" answers 503"#), "it names the route: {refused}");
    assert!(refused.contains("rate_limits"), "and what it asks for: {refused}");
    Ok(())
}

/// The service's listener, as the pod's admin interface dumps it.
fn listener_dump(mesh: &Mesh) -> Result<Value> {
    let path = "/config_dump?resource=dynamic_listeners&name_regex=0.0.0.0_8080";
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000));
    let dump: Value = serde_json::from_str(&mesh.client.http(admin).path(path).send()?.body)?;
    Ok(dump.pointer("/configs/0").context("no listener")?.clone())
}

/// A filter that runs a program in the proxy.
fn lua_on_outbound_http() -> String {
    let lua = json!({
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": "function envoy_on_request(handle) end"},
        },
    });
    let before_router = json!({"context": "SIDECAR_OUTBOUND", "listener": {"filterChain": {"filter": {
        "name": "envoy.filters.network.http_connection_manager",
        "subFilter": {"name": "envoy.filters.http.router"},
    }}}});
    document(&json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "lua", "namespace": "default"},
        "spec": {"configPatches": [{
            "applyTo": "HTTP_FILTER",
            "match": before_router,
            "patch": {"operation": "INSERT_BEFORE", "value": lua},
        }]},
    }))
}
