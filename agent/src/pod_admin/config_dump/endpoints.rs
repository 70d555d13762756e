//! The endpoints of a cluster as Envoy's balancer has them: what EDS or the cluster says, with every default filled in.

use orlop_plan::resource::cluster::{Cluster, ClusterDiscovery};
use orlop_plan::snapshot::ResourceType;
use orlop_proto::Descriptors;
use serde_json::{Map, Value as Json, json};

use crate::pod_admin::view::{Resources, StoredResource};

/// Envoy's default of `overprovisioning_factor`, in percent.
const OVERPROVISIONING: u32 = 140;

/// `EndpointsConfigDump.DynamicEndpointConfig` of one cluster, and the name that its endpoints go by.
pub(super) fn endpoint_config<'a>(
    resources: &Resources,
    descriptors: &Descriptors,
    stored: &'a StoredResource<Cluster>,
) -> (&'a str, Map<String, Json>) {
    const EDS: &str = ResourceType::ClusterLoadAssignment.type_url();
    let (name, load_assignment) = match &stored.resource.discovery {
        ClusterDiscovery::Eds { service_name } => {
            let given = resources.load_assignment(service_name);
            (&**service_name, given.map(|given| descriptors.print(EDS, &given.source.bytes.bytes())))
        }
        ClusterDiscovery::Static(_) => {
            let mut cluster =
                descriptors.print(ResourceType::Cluster.type_url(), &stored.source.bytes.bytes());
            (&*stored.name, cluster.get_mut("load_assignment").map(Json::take))
        }
        ClusterDiscovery::Dns(_) | ClusterDiscovery::OriginalDst { .. } => (&*stored.name, None),
    };
    let policy = json!({ "overprovisioning_factor": stored_overprovisioning(load_assignment.as_ref()) });
    let mut config = Map::from_iter([
        ("@type".to_owned(), EDS.into()),
        ("cluster_name".to_owned(), name.into()),
        ("policy".to_owned(), policy),
    ]);
    let localities = load_assignment.and_then(|mut json| match json.get_mut("endpoints").map(Json::take) {
        Some(Json::Array(localities)) => Some(localities),
        _ => None,
    });
    let localities: Vec<Json> = localities.into_iter().flatten().filter_map(locality).collect();
    if !localities.is_empty() {
        config.insert("endpoints".to_owned(), localities.into());
    }
    (name, Map::from_iter([("endpoint_config".to_owned(), config.into())]))
}

fn stored_overprovisioning(load_assignment: Option<&Json>) -> Json {
    load_assignment
        .and_then(|json| json.pointer("/policy/overprovisioning_factor"))
        .cloned()
        .unwrap_or_else(|| OVERPROVISIONING.into())
}

/// One `LocalityLbEndpoints`; an empty one is no part of a host set.
fn locality(mut given: Json) -> Option<Json> {
    let endpoints = given.get_mut("lb_endpoints")?.as_array_mut()?;
    if endpoints.is_empty() {
        return None;
    }
    for endpoint in endpoints {
        let endpoint = endpoint.as_object_mut()?;
        let health = match endpoint.get("health_status").and_then(Json::as_str) {
            None | Some("UNKNOWN" | "HEALTHY") => "HEALTHY",
            Some("DEGRADED") => "DEGRADED",
            Some(_) => "UNHEALTHY",
        };
        endpoint.insert("health_status".to_owned(), health.into());
        endpoint.entry("load_balancing_weight").or_insert_with(|| 1.into());
        endpoint.entry("metadata").or_insert_with(|| json!({}));
        if let Some(endpoint) = endpoint.get_mut("endpoint").and_then(Json::as_object_mut) {
            endpoint.entry("health_check_config").or_insert_with(|| json!({}));
        }
    }
    given.as_object_mut()?.entry("locality").or_insert_with(|| json!({}));
    Some(given)
}
