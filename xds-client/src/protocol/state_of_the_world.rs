//! Requests of the protocol that sends the whole state each time.
//!
//! Every request names all that is wanted, the version in force and the nonce of the last response. A new
//! stream asks without a version: whatever its server knows of an earlier one, it sends everything, and what
//! did not change goes no further than here.

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

use super::wire::{Request, refusal};
use crate::ResourceType;

/// Where a type of a stream stands.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Of the response that was accepted last on this stream.
    version: String,
    /// Of the response that came last on this stream.
    nonce: String,
}

impl Progress {
    pub(super) fn received(&mut self, nonce: &str) {
        nonce.clone_into(&mut self.nonce);
    }

    /// Asks for these names and no others.
    pub(super) fn subscribe(&self, resource_type: ResourceType, names: Vec<String>) -> Request {
        request(resource_type, names, self.version.clone(), self.nonce.clone(), None)
    }

    /// Answers a response. A refusal repeats the version before it.
    pub(super) fn answer(
        &mut self,
        resource_type: ResourceType,
        names: Vec<String>,
        version: String,
        nonce: String,
        rejected: Option<String>,
    ) -> Request {
        if rejected.is_none() {
            self.version = version;
        }
        request(resource_type, names, self.version.clone(), nonce, rejected)
    }
}

fn request(
    resource_type: ResourceType,
    resource_names: Vec<String>,
    version_info: String,
    response_nonce: String,
    rejected: Option<String>,
) -> Request {
    Request::StateOfTheWorld(DiscoveryRequest {
        type_url: resource_type.type_url().to_owned(),
        resource_names,
        version_info,
        response_nonce,
        error_detail: rejected.map(refusal),
        ..DiscoveryRequest::default()
    })
}
