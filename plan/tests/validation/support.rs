//! Resources written as Envoy's documentation writes them, and what becomes of them.

use std::time::SystemTime;

use std::sync::{Arc, LazyLock};

use envoy_types::pb::google::protobuf::Any;
use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::endpoint::ClusterLoadAssignment;
use orlop_plan::resource::header::HeaderMatcher;
use orlop_plan::resource::route::{Action, Route, RouteAction, RouteConfiguration};
use orlop_plan::snapshot::{Interner, Outcome, Resource, ResourceType, Snapshot};
use orlop_proto::Descriptors;
use serde_json::{Value, json};

static DESCRIPTORS: LazyLock<Descriptors> = LazyLock::new(|| Descriptors::load().expect("the built-in set"));

/// The bytes of a resource.
pub(crate) fn any(kind: ResourceType, json: &Value) -> Any {
    DESCRIPTORS.from_json(kind.type_url(), json).unwrap_or_else(|error| panic!("{error}"))
}

/// Delivers resources of one type.
pub(crate) fn deliver(
    kind: ResourceType,
    resources: impl IntoIterator<Item = (String, Any)>,
) -> (Snapshot, Outcome) {
    let mut snapshot = Snapshot::new();
    let upserts: Vec<_> =
        resources.into_iter().map(|(name, body)| Resource { name, version: "1".to_owned(), body }).collect();
    let outcome = snapshot.apply(&mut Interner::default(), kind, &upserts, &[], SystemTime::UNIX_EPOCH);
    (snapshot, outcome)
}

fn name(kind: ResourceType, json: &Value) -> String {
    if kind.is_singleton() {
        return String::new();
    }
    let key = if kind == ResourceType::ClusterLoadAssignment { "cluster_name" } else { "name" };
    json[key].as_str().expect("resources have a name").to_owned()
}

/// A resource that is accepted.
pub(crate) fn accepted(kind: ResourceType, json: &Value) -> Snapshot {
    let (snapshot, outcome) = deliver(kind, [(name(kind, json), any(kind, json))]);
    assert_eq!(outcome.errors, [], "refused");
    snapshot
}

/// Why a resource is refused.
pub(crate) fn refused(kind: ResourceType, json: &Value) -> Vec<String> {
    let (_, outcome) = deliver(kind, [(name(kind, json), any(kind, json))]);
    assert_eq!(outcome.errors.len(), 1, "accepted");
    outcome.errors[0].fields.iter().map(ToString::to_string).collect()
}

/// `base` with the fields of `fields` in place of its own.
fn with(mut base: Value, fields: &Value) -> Value {
    for (key, value) in fields.as_object().expect("fields") {
        base[key] = value.clone();
    }
    base
}

fn eds_cluster(fields: &Value) -> Value {
    with(
        json!({ "name": "backend", "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } } }),
        fields,
    )
}

/// An EDS cluster with these fields, which is accepted.
pub(crate) fn cluster(fields: &Value) -> Arc<Cluster> {
    let snapshot = accepted(ResourceType::Cluster, &eds_cluster(fields));
    Arc::clone(snapshot.clusters().get("backend").expect("accepted"))
}

/// Why an EDS cluster with these fields is refused.
pub(crate) fn cluster_refusals(fields: &Value) -> Vec<String> {
    refused(ResourceType::Cluster, &eds_cluster(fields))
}

fn one_endpoint(fields: &Value) -> Value {
    let endpoint = json!({
        "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": 8080 } } },
    });
    json!({ "cluster_name": "backend", "endpoints": [{ "lb_endpoints": [with(endpoint, fields)] }] })
}

/// A load assignment with one endpoint with these fields, which is accepted.
pub(crate) fn endpoint(fields: &Value) -> Arc<ClusterLoadAssignment> {
    load_assignment(&one_endpoint(fields))
}

/// Why a load assignment with one endpoint with these fields is refused.
pub(crate) fn endpoint_refusals(fields: &Value) -> Vec<String> {
    load_assignment_refusals(&one_endpoint(fields))
}

/// A load assignment of the cluster `backend` that is accepted.
pub(crate) fn load_assignment(json: &Value) -> Arc<ClusterLoadAssignment> {
    let snapshot = accepted(ResourceType::ClusterLoadAssignment, json);
    Arc::clone(snapshot.load_assignments().get("backend").expect("accepted"))
}

/// Why a load assignment is refused.
pub(crate) fn load_assignment_refusals(json: &Value) -> Vec<String> {
    refused(ResourceType::ClusterLoadAssignment, json)
}

fn route_configuration(fields: &Value) -> Value {
    with(json!({ "name": "8080" }), fields)
}

/// A route configuration with these fields, which is accepted.
pub(crate) fn routes(fields: &Value) -> Arc<RouteConfiguration> {
    let snapshot = accepted(ResourceType::RouteConfiguration, &route_configuration(fields));
    Arc::clone(snapshot.routes().get("8080").expect("accepted"))
}

/// Why a route configuration with these fields is refused, or why routes of it are.
pub(crate) fn routes_refusals(fields: &Value) -> Vec<String> {
    let body = any(ResourceType::RouteConfiguration, &route_configuration(fields));
    let (snapshot, outcome) = deliver(ResourceType::RouteConfiguration, [("8080".to_owned(), body)]);
    let alone = snapshot.refused_routes().map(|(_, _, refused)| refused.error.to_string());
    let whole = outcome.errors.iter().flat_map(|error| error.fields.iter().map(ToString::to_string));
    let all: Vec<_> = whole.chain(alone).collect();
    assert_ne!(all, [""; 0], "accepted");
    all
}

fn one_route(fields: &Value) -> Value {
    let route = with(json!({ "match": { "prefix": "/" }, "direct_response": { "status": 200 } }), fields);
    // Only one action may be set.
    let mut route = route;
    if fields.get("route").is_some() || fields.get("redirect").is_some() {
        route.as_object_mut().expect("a message").remove("direct_response");
    }
    json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] })
}

/// The only route of a configuration, with these fields; it is accepted.
pub(crate) fn route(fields: &Value) -> Arc<Route> {
    Arc::clone(&routes(&one_route(fields)).virtual_hosts[0].routes[0])
}

/// Why the only route of a configuration, with these fields, is refused, by itself or with all of the configuration; below `virtual_hosts[0].routes[0]`.
pub(crate) fn route_refusals(fields: &Value) -> Vec<String> {
    let prefix = "virtual_hosts[0].routes[0].";
    routes_refusals(&one_route(fields))
        .into_iter()
        .map(|refusal| refusal.strip_prefix(prefix).map_or(refusal.clone(), str::to_owned))
        .collect()
}

fn to_backend(fields: &Value) -> Value {
    json!({ "route": with(json!({ "cluster": "backend" }), fields) })
}

/// Checks the action of a route to the cluster `backend` with these fields, which is accepted.
pub(crate) fn action<T>(fields: &Value, check: impl FnOnce(&RouteAction) -> T) -> T {
    match &route(&to_backend(fields)).action {
        Action::Route(action) => check(action),
        other => panic!("{other:?}"),
    }
}

/// Why the action of a route to the cluster `backend` with these fields is refused; below `route`.
pub(crate) fn action_refusals(fields: &Value) -> Vec<String> {
    route_refusals(&to_backend(fields))
        .into_iter()
        .map(|refusal| refusal.strip_prefix("route.").map_or(refusal.clone(), str::to_owned))
        .collect()
}

/// A header matcher that is accepted.
pub(crate) fn header_matcher(matcher: &Value) -> HeaderMatcher {
    route(&json!({ "match": { "prefix": "/", "headers": [matcher] } })).route_match.headers[0].clone()
}

/// Why a header matcher is refused; below `match.headers[0]`.
pub(crate) fn header_matcher_refusals(matcher: &Value) -> Vec<String> {
    route_refusals(&json!({ "match": { "prefix": "/", "headers": [matcher] } }))
        .into_iter()
        .map(|refusal| refusal.strip_prefix("match.headers[0].").map_or(refusal.clone(), str::to_owned))
        .collect()
}
