//! `endpoint.v3.ClusterLoadAssignment`.

use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{
    HealthStatus as ProtoHealthStatus, Locality as ProtoLocality, Metadata,
};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::endpoint::AdditionalAddress;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment as Proto, Endpoint, LbEndpoint as ProtoEndpoint,
    LocalityLbEndpoints as ProtoLocalityEndpoints,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::at::{At, no_effect, refuse_set};
use super::decode::string_of;
use super::metadata::{ISTIO_METADATA, unread_metadata};
use super::scalar::socket_addr;
use crate::resource::endpoint::{
    ClusterLoadAssignment, DEFAULT_OVERPROVISIONING_FACTOR, EndpointAbout, HealthStatus, LbEndpoint,
    Locality, LocalityLbEndpoints,
};

const HIGHEST_PRIORITY_NUMBER: u32 = 128;
const SOCKET_MATCH: &str = "envoy.transport_socket_match";

pub(super) fn load_assignment(value: Proto, at: &At<'_>) -> Option<ClusterLoadAssignment> {
    let Proto { cluster_name, endpoints, named_endpoints, policy } = value;
    refuse_set!(at; named_endpoints);
    let Policy { drop_overloads, overprovisioning_factor, endpoint_stale_after, weighted_priority_health } =
        policy.unwrap_or_default();
    let at_policy = at.field("policy");
    refuse_set!(at_policy; drop_overloads, endpoint_stale_after, weighted_priority_health);
    let overprovisioning_factor = match overprovisioning_factor {
        None => Some(DEFAULT_OVERPROVISIONING_FACTOR),
        Some(factor) if factor.value > 0 => Some(factor.value),
        Some(_) => at_policy.field("overprovisioning_factor").refuse("must be above 0"),
    };
    if cluster_name.is_empty() {
        return at.field("cluster_name").refuse("is empty");
    }
    let localities = at.field("endpoints").each(endpoints, locality_endpoints);
    Some(ClusterLoadAssignment {
        cluster_name: cluster_name.into(),
        localities: localities?,
        overprovisioning_factor: overprovisioning_factor?,
    })
}

fn locality_endpoints(value: ProtoLocalityEndpoints, at: &At<'_>) -> Option<LocalityLbEndpoints> {
    let ProtoLocalityEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = value;
    no_effect!(at; "is read by load balancing extensions, none of which is supported"; metadata);
    no_effect!(at; "is not read by Envoy either"; proximity);
    refuse_set!(at; lb_config);
    let ProtoLocality { region, zone, sub_zone } = locality.unwrap_or_default();
    let weight = match load_balancing_weight {
        Some(weight) if weight.value == 0 => at.field("load_balancing_weight").refuse("must be 1 or above"),
        weight => Some(weight.map(|weight| weight.value)),
    };
    if priority > HIGHEST_PRIORITY_NUMBER {
        return at.field("priority").refuse(format!("must be {HIGHEST_PRIORITY_NUMBER} or below"));
    }
    let mut endpoints = at.field("lb_endpoints").each(lb_endpoints, lb_endpoint)?;
    share(&mut endpoints);
    if endpoints.iter().try_fold(0_u32, |sum, endpoint| sum.checked_add(endpoint.weight)).is_none() {
        return at.field("lb_endpoints").refuse("the sum of the weights does not fit into 32 bits");
    }
    Some(LocalityLbEndpoints {
        locality: Locality { region, zone, sub_zone },
        weight: weight?,
        priority,
        endpoints,
    })
}

fn lb_endpoint(value: ProtoEndpoint, at: &At<'_>) -> Option<LbEndpoint> {
    let ProtoEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = value;
    let health = match ProtoHealthStatus::try_from(health_status) {
        Ok(ProtoHealthStatus::Unknown | ProtoHealthStatus::Healthy) => Some(HealthStatus::Healthy),
        Ok(ProtoHealthStatus::Degraded) => Some(HealthStatus::Degraded),
        Ok(ProtoHealthStatus::Unhealthy | ProtoHealthStatus::Timeout) => Some(HealthStatus::Unhealthy),
        Ok(ProtoHealthStatus::Draining) => Some(HealthStatus::Draining),
        Err(_) => at.field("health_status").refuse("is unknown"),
    };
    let weight = match load_balancing_weight.map_or(1, |weight| weight.value) {
        0 => at.field("load_balancing_weight").refuse("must be 1 or above"),
        weight => Some(weight),
    };
    let metadata = metadata.unwrap_or_default();
    unread_metadata(&metadata, &[ISTIO_METADATA, SOCKET_MATCH], &at.field("metadata"));
    let Metadata { mut filter_metadata, .. } = metadata;
    let transport_socket_match = strings(
        filter_metadata.remove(SOCKET_MATCH).unwrap_or_default(),
        &at.field("metadata").field("filter_metadata").key(SOCKET_MATCH),
    );
    let workload = filter_metadata
        .get(ISTIO_METADATA)
        .and_then(|istio| string_of(istio, "workload"))
        .unwrap_or_default()
        .to_owned();
    let endpoint = match at.required(host_identifier)? {
        HostIdentifier::Endpoint(endpoint) => endpoint,
        HostIdentifier::EndpointName(_) => return at.field("endpoint_name").refuse("is not supported"),
    };
    let at = at.field("endpoint");
    let Endpoint { address, health_check_config, hostname, additional_addresses, observability_name } =
        endpoint;
    no_effect!(at; "is of active health checks, which are refused"; health_check_config);
    no_effect!(at; "feeds statistics alone"; observability_name);
    let additional_addresses =
        at.field("additional_addresses").each(additional_addresses, additional_address);
    let address = socket_addr(at.required(address)?, &at.field("address"));
    let about = EndpointAbout {
        hostname,
        transport_socket_match: transport_socket_match?,
        workload,
        additional_addresses: additional_addresses?,
    };
    Some(LbEndpoint { address: address?, health: health?, weight: weight?, about: Arc::new(about) })
}

fn additional_address(value: AdditionalAddress, at: &At<'_>) -> Option<SocketAddr> {
    let AdditionalAddress { address } = value;
    let at = at.field("address");
    at.required(address).and_then(|address| socket_addr(address, &at))
}

/// Neighbours that are alike keep what is alike once: a node holds many endpoints, and most are replicas.
fn share(endpoints: &mut [LbEndpoint]) {
    let mut known: Option<Arc<EndpointAbout>> = None;
    for endpoint in endpoints {
        match &known {
            Some(known) if *known == endpoint.about => endpoint.about = Arc::clone(known),
            _ => known = Some(Arc::clone(&endpoint.about)),
        }
    }
}

/// The pairs of a struct, sorted. Only strings can be matched.
fn strings(value: Struct, at: &At<'_>) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::with_capacity(value.fields.len());
    for (key, value) in value.fields {
        match value {
            Value { kind: Some(Kind::StringValue(value)) } => pairs.push((key, value)),
            Value { kind: _ } => return at.key(&key).refuse("is not a string"),
        }
    }
    pairs.sort_unstable();
    Some(pairs)
}
