//! Correct servers of both protocols, for the state machine to play with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse, Resource as WireResource,
};
use envoy_types::pb::google::protobuf::{self, Any};
use prost::{Message, Name};

use super::{Key, Protocol, Request, Response};
use crate::directory::Server;
use crate::{Resource, ResourceType};

pub(super) const TTL: Duration = Duration::from_secs(10);

type Content = BTreeMap<Key, Arc<Resource>>;

/// A resource with this value must be prolonged.
pub(super) fn is_mortal(body: &Any) -> bool {
    body.value.last() == Some(&2)
}

/// The server's end of one stream.
pub(super) enum Peer {
    Delta(Server),
    StateOfTheWorld(WholeServer),
}

impl Peer {
    pub(super) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Delta => Self::Delta(Server::default()),
            Protocol::StateOfTheWorld => Self::StateOfTheWorld(WholeServer::default()),
        }
    }

    pub(super) fn request(&mut self, request: Request) -> Option<Response> {
        let response = match (self, request) {
            (Self::Delta(server), Request::Delta(request)) => server.request(request).map(Response::Delta),
            (Self::StateOfTheWorld(server), Request::StateOfTheWorld(request)) => {
                server.request(&request).map(Response::StateOfTheWorld)
            }
            _ => panic!("a request of the other protocol"),
        };
        response.map(with_ttl)
    }

    pub(super) fn update(&mut self, content: Content, generation: u64) -> Vec<Response> {
        let responses: Vec<_> = match self {
            Self::Delta(server) => {
                server.update(content, generation).into_iter().map(Response::Delta).collect()
            }
            Self::StateOfTheWorld(server) => {
                server.update(&content, generation).into_iter().map(Response::StateOfTheWorld).collect()
            }
        };
        responses.into_iter().map(with_ttl).collect()
    }

    /// The server has sent a response out of its mind.
    pub(super) fn sent(&mut self, resource_type: ResourceType, nonce: &str) {
        if let Self::StateOfTheWorld(server) = self
            && let Some(watch) = server.watches.get_mut(&resource_type)
        {
            nonce.clone_into(&mut watch.nonce);
        }
    }
}

fn with_ttl(response: Response) -> Response {
    let ttl = Some(protobuf::Duration { seconds: TTL.as_secs().cast_signed(), nanos: 0 });
    match response {
        Response::Delta(mut response) => {
            for resource in &mut response.resources {
                if resource.resource.as_ref().is_some_and(is_mortal) {
                    resource.ttl = ttl;
                }
            }
            Response::Delta(response)
        }
        Response::StateOfTheWorld(mut response) => {
            for body in &mut response.resources {
                if is_mortal(body) {
                    let wrapped =
                        WireResource { resource: Some(body.clone()), ttl, ..WireResource::default() };
                    *body = Any { type_url: WireResource::type_url(), value: wrapped.encode_to_vec() };
                }
            }
            Response::StateOfTheWorld(response)
        }
    }
}

/// Sends everything that is watched of a type whenever any of it changes, as istiod does.
#[derive(Default)]
pub(super) struct WholeServer {
    content: Content,
    generation: u64,
    watches: BTreeMap<ResourceType, Watch>,
    responses: u64,
}

#[derive(Default)]
struct Watch {
    names: BTreeSet<String>,
    nonce: String,
    sent: BTreeMap<String, Any>,
}

impl WholeServer {
    fn update(&mut self, content: &Content, generation: u64) -> Vec<DiscoveryResponse> {
        self.content.clone_from(content);
        self.generation = generation;
        let watched: Vec<_> = self.watches.keys().copied().collect();
        let changed = watched.into_iter().filter(|found| self.watches[found].sent != self.present(*found));
        let changed: Vec<_> = changed.collect();
        changed.into_iter().map(|resource_type| self.respond(resource_type)).collect()
    }

    fn request(&mut self, request: &DiscoveryRequest) -> Option<DiscoveryResponse> {
        let resource_type = ResourceType::from_type_url(&request.type_url)?;
        let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
        let Some(watch) = self.watches.get_mut(&resource_type) else {
            let watch = Watch { names, ..Watch::default() };
            self.watches.insert(resource_type, watch);
            return Some(self.respond(resource_type));
        };
        if request.response_nonce != watch.nonce {
            return None;
        }
        let asks = names.difference(&watch.names).next().is_some();
        watch.names = names;
        asks.then(|| self.respond(resource_type))
    }

    fn present(&self, resource_type: ResourceType) -> BTreeMap<String, Any> {
        let names = &self.watches[&resource_type].names;
        let wanted = |name: &String| resource_type.is_wildcard() || names.contains(name);
        let of_type =
            self.content.iter().filter(|((found, name), _)| *found == resource_type && wanted(name));
        of_type.map(|((_, name), resource)| (name.clone(), resource.body.clone())).collect()
    }

    fn respond(&mut self, resource_type: ResourceType) -> DiscoveryResponse {
        self.responses += 1;
        let sent = self.present(resource_type);
        let resources = sent.values().cloned().collect();
        let nonce = self.responses.to_string();
        let watch = self.watches.get_mut(&resource_type).unwrap();
        watch.nonce.clone_from(&nonce);
        watch.sent = sent;
        DiscoveryResponse {
            type_url: resource_type.type_url().into(),
            version_info: self.generation.to_string(),
            nonce,
            resources,
            ..DiscoveryResponse::default()
        }
    }
}
