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
