//! A delta xDS server over one workload's content: the other side of the protocol, in the same process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource,
};

use super::files::Content;
use crate::ResourceType;

#[derive(Debug, Default)]
pub(crate) struct Server {
    content: Content,
    generation: u64,
    watches: BTreeMap<ResourceType, Watch>,
    responses: u64,
}

/// One type that the client asked for.
#[derive(Debug, Default)]
struct Watch {
    wildcard: bool,
    names: BTreeSet<String>,
    /// Name and version of what the client was sent.
    sent: BTreeMap<String, String>,
}

impl Server {
    /// Takes over new content and tells the client what changed for it.
    pub(crate) fn update(&mut self, content: Content, generation: u64) -> Vec<DeltaDiscoveryResponse> {
        self.content = content;
        self.generation = generation;
        let watched: Vec<_> = self.watches.keys().copied().collect();
        watched.into_iter().filter_map(|resource_type| self.respond(resource_type, &[], false)).collect()
    }

    /// Answers a request; acknowledgements need no answer.
    pub(crate) fn request(&mut self, request: DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        let resource_type = ResourceType::from_type_url(&request.type_url)?;
        if !request.response_nonce.is_empty() {
            return None;
        }
        let first = !self.watches.contains_key(&resource_type);
        let watch = self.watches.entry(resource_type).or_default();
        watch.wildcard |= first && request.resource_names_subscribe.is_empty();
        watch.sent.extend(request.initial_resource_versions);
        for name in &request.resource_names_unsubscribe {
            watch.names.remove(name);
            watch.sent.remove(name);
        }
        for name in &request.resource_names_subscribe {
            watch.names.insert(name.clone());
        }
        self.respond(resource_type, &request.resource_names_subscribe, first)
    }

    /// What the client lacks of a type, and what it has too much. Of the names it `asked` for it hears in any
    /// case whether they exist.
    fn respond(
        &mut self,
        resource_type: ResourceType,
        asked: &[String],
        always: bool,
    ) -> Option<DeltaDiscoveryResponse> {
        let watch = self.watches.get_mut(&resource_type)?;
        let subscribed = |name: &String| watch.wildcard || watch.names.contains(name);
        let present: BTreeMap<&String, &Arc<crate::Resource>> = self
            .content
            .iter()
            .filter(|((found, name), _)| *found == resource_type && subscribed(name))
            .map(|((_, name), resource)| (name, resource))
            .collect();
        let removed: Vec<String> = watch
            .sent
            .keys()
            .chain(asked)
            .filter(|name| !present.contains_key(name))
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let resources: Vec<WireResource> = present
            .iter()
            .filter(|(name, resource)| watch.sent.get(**name) != Some(&resource.version))
            .map(|(name, resource)| WireResource {
                name: (*name).clone(),
                version: resource.version.clone(),
                resource: Some(resource.body.clone()),
                ..WireResource::default()
            })
            .collect();
        watch.sent =
            present.into_iter().map(|(name, resource)| (name.clone(), resource.version.clone())).collect();
        if resources.is_empty() && removed.is_empty() && !always {
            return None;
        }
        self.responses = self.responses.saturating_add(1);
        Some(DeltaDiscoveryResponse {
            type_url: resource_type.type_url().to_owned(),
            system_version_info: self.generation.to_string(),
            nonce: self.responses.to_string(),
            resources,
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        })
    }
}
