//! Everything that a control plane sends to one workload, by way of our own client.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use orlop_proto::Descriptors;
use orlop_xds_client::{
    Client, ControlPlane, GrpcOptions, Names, Protocol, Resource, ResourceType, Subscriptions, WorkloadNode,
    names,
};
use serde_json::Value;

/// Nothing came for this long: it is complete.
const QUIET: Duration = Duration::from_secs(2);

/// Resources by kind and name.
pub type Captured = BTreeMap<(ResourceType, String), Resource>;

/// Subscribes to all that the resources themselves name, whether it is honoured or not, until nothing comes any more.
pub fn capture(descriptors: &Descriptors, address: &str, node: WorkloadNode) -> Result<Captured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let control_plane = ControlPlane::Grpc {
            address: address.to_owned(),
            protocol: Protocol::Delta,
            root_certificate: None,
        };
        let client = Client::new(control_plane, GrpcOptions::default())?;
        let mut stream = client.open(node.into());
        let mut captured = Captured::new();
        let mut wait = Duration::from_secs(10);
        while let Ok(delivery) = tokio::time::timeout(wait, stream.next()).await {
            wait = QUIET;
            let mut delivery = delivery.context("the stream ended")?;
            for resource in std::mem::take(&mut delivery.upserted) {
                captured.insert((delivery.resource_type, resource.name.clone()), resource);
            }
            delivery.accept(wanted(descriptors, &captured)?);
        }
        Ok(captured)
    })
}

fn wanted(descriptors: &Descriptors, captured: &Captured) -> Result<Subscriptions> {
    let mut found = Found::default();
    for ((resource_type, name), resource) in captured {
        let json = descriptors.to_json(&resource.body).with_context(|| format!("{resource_type} {name}"))?;
        if *resource_type == ResourceType::Cluster && json.get("type").is_some_and(|kind| kind == "EDS") {
            let service = json.pointer("/eds_cluster_config/service_name").and_then(Value::as_str);
            found.endpoints.push(service.unwrap_or(name).to_owned());
        }
        found.look_into(&json);
    }
    let Found { endpoints, routes, secrets, extensions } = found;
    Ok(Subscriptions {
        endpoints: set(endpoints),
        routes: set(routes),
        secrets: set(secrets),
        extensions: set(extensions),
    })
}

fn set(all: Vec<String>) -> Names {
    names(all)
}

#[derive(Default)]
struct Found {
    endpoints: Vec<String>,
    routes: Vec<String>,
    secrets: Vec<String>,
    extensions: Vec<String>,
}

impl Found {
    fn look_into(&mut self, json: &Value) {
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        self.routes.extend(text("route_config_name"));
        if json.get("config_discovery").is_some() {
            self.extensions.extend(text("name"));
        }
        // Secrets from elsewhere are not the control plane's.
        if json.pointer("/sds_config/ads").is_some() {
            self.secrets.extend(text("name"));
        }
        match json {
            Value::Object(fields) => fields.values().for_each(|field| self.look_into(field)),
            Value::Array(elements) => elements.iter().for_each(|element| self.look_into(element)),
            _ => {}
        }
    }
}
