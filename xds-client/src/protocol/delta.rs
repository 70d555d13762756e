//! Requests of the incremental protocol.
//!
//! Answers and changes of subscription are separate requests: a server ignores an answer with an outdated
//! nonce, and must not lose a subscription with it.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::wire::{Request, refusal};
use crate::ResourceType;

/// Keeps a request below istiod's limit of 4 MiB with names of any sensible length.
const MAX_NAMES_PER_REQUEST: usize = 10_000;

/// The first requests of a type on a stream: the names that are wanted, and name and version of what is there.
///
/// An empty first subscription means all, and so a sidecar writes it.
pub(super) fn subscribe(
    resource_type: ResourceType,
    names: &[String],
    held: impl Iterator<Item = (String, String)>,
) -> Vec<Request> {
    let mut requests = changed(resource_type, names, &[]);
    if requests.is_empty() {
        requests.push(empty(resource_type));
    }
    if let Some(first) = requests.first_mut() {
        first.initial_resource_versions = held.collect();
    }
    requests.into_iter().map(Request::Delta).collect()
}

/// Tells which names are wanted in addition, and which no longer.
pub(super) fn change(resource_type: ResourceType, added: &[String], gone: &[String]) -> Vec<Request> {
    changed(resource_type, added, gone).into_iter().map(Request::Delta).collect()
}

pub(super) fn answer(resource_type: ResourceType, nonce: String, rejected: Option<String>) -> Request {
    Request::Delta(DeltaDiscoveryRequest {
        response_nonce: nonce,
        error_detail: rejected.map(refusal),
        ..empty(resource_type)
    })
}

fn changed(resource_type: ResourceType, added: &[String], gone: &[String]) -> Vec<DeltaDiscoveryRequest> {
    let subscribe = added.chunks(MAX_NAMES_PER_REQUEST).map(|names| DeltaDiscoveryRequest {
        resource_names_subscribe: names.to_vec(),
        ..empty(resource_type)
    });
    let unsubscribe = gone.chunks(MAX_NAMES_PER_REQUEST).map(|names| DeltaDiscoveryRequest {
        resource_names_unsubscribe: names.to_vec(),
        ..empty(resource_type)
    });
    subscribe.chain(unsubscribe).collect()
}

fn empty(resource_type: ResourceType) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: resource_type.type_url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}
