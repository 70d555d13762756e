//! The messages of both protocols, and what they have in common.

use std::collections::HashSet;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    Resource as WireResource,
};
use envoy_types::pb::google::protobuf::{self, Any};
use envoy_types::pb::google::rpc::Status;
use prost::{Message, Name};

use crate::ResourceType;
use crate::resource::name_of;

/// gRPC's code for a response that the client refuses: Envoy's.
const INTERNAL: i32 = 13;

/// Far below istiod's limit of 4 MiB for a message to it.
const MAX_NACK_DETAIL_BYTES: usize = 64 << 10;

/// From the client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Request {
    Delta(DeltaDiscoveryRequest),
    StateOfTheWorld(DiscoveryRequest),
}

/// From the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Response {
    Delta(DeltaDiscoveryResponse),
    StateOfTheWorld(DiscoveryResponse),
}

impl Response {
    pub(super) fn type_url(&self) -> &str {
        match self {
            Self::Delta(response) => &response.type_url,
            Self::StateOfTheWorld(response) => &response.type_url,
        }
    }
}

/// What a response says, in either protocol.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) version: String,
    pub(super) nonce: String,
    /// Or why the response cannot be taken at all.
    pub(super) changes: Result<Changes, String>,
}

#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) arrived: Vec<Arrived>,
    pub(super) removed: Vec<String>,
    /// Whatever did not arrive exists no more.
    pub(super) complete: bool,
}

#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) name: String,
    pub(super) version: String,
    /// `None` only prolongs the life of what came before.
    pub(super) body: Option<Any>,
    /// How long it lives unless it is prolonged.
    pub(super) ttl: Option<Duration>,
}

impl Said {
    pub(super) fn new(resource_type: ResourceType, response: Response) -> Self {
        match response {
            Response::Delta(response) => {
                let arrived = response.resources.into_iter().map(Arrived::from).collect();
                let changes = Changes { arrived, removed: response.removed_resources, complete: false };
                Self {
                    version: response.system_version_info,
                    nonce: response.nonce,
                    changes: changes.checked(resource_type),
                }
            }
            Response::StateOfTheWorld(response) => {
                let arrived: Result<Vec<_>, _> = response
                    .resources
                    .into_iter()
                    .enumerate()
                    .map(|(index, body)| {
                        Arrived::unwrapped(resource_type, body)
                            .map_err(|fault| format!("resources[{index}]: {fault}"))
                    })
                    .collect();
                let changes = arrived.and_then(|arrived| {
                    // Servers prolong lives in a response of nothing else.
                    let beats_only = !arrived.is_empty() && arrived.iter().all(|found| found.body.is_none());
                    let complete = resource_type.is_wildcard() && !beats_only;
                    Changes { arrived, removed: Vec::new(), complete }.checked(resource_type)
                });
                Self { version: response.version_info, nonce: response.nonce, changes }
            }
        }
    }
}

impl Changes {
    /// Refuses what contradicts itself, as a whole: Envoy does.
    fn checked(self, resource_type: ResourceType) -> Result<Self, String> {
        let mut names = HashSet::with_capacity(self.arrived.len() + self.removed.len());
        for arrived in &self.arrived {
            let name = &arrived.name;
            let type_url = arrived.body.as_ref().map(|body| body.type_url.as_str());
            if let Some(other) = type_url.filter(|type_url| *type_url != resource_type.type_url()) {
                return Err(format!("{resource_type} '{name}': resource.type_url: is '{other}'"));
            }
            if !names.insert(name.as_str()) {
                return Err(format!("{resource_type} '{name}': is in the response twice"));
            }
        }
        for name in &self.removed {
            if !names.insert(name.as_str()) {
                return Err(format!("{resource_type} '{name}': removed_resources: names it once more"));
            }
        }
        Ok(self)
    }
}

impl From<WireResource> for Arrived {
    fn from(resource: WireResource) -> Self {
        Self {
            name: resource.name,
            version: resource.version,
            body: resource.resource,
            ttl: resource.ttl.and_then(positive),
        }
    }
}

impl Arrived {
    /// A resource as it lies in a response of the whole state: by itself, or wrapped when it has more than a body.
    fn unwrapped(resource_type: ResourceType, any: Any) -> Result<Self, String> {
        if any.type_url.rsplit('/').next() == Some(&*WireResource::full_name()) {
            let wrapped = WireResource::decode(any.value.as_slice())
                .map_err(|error| format!("is malformed: {error}"))?;
            let mut arrived = Self::from(wrapped);
            if let Some(body) = arrived.body.as_ref().filter(|_| arrived.name.is_empty()) {
                arrived.name = name_of(resource_type, body)?;
            }
            return Ok(arrived);
        }
        if any.type_url != resource_type.type_url() {
            return Err(format!("type_url: is '{}' and not a {resource_type}", any.type_url));
        }
        let name = name_of(resource_type, &any)?;
        Ok(Self { name, version: String::new(), body: Some(any), ttl: None })
    }
}

fn positive(duration: protobuf::Duration) -> Option<Duration> {
    let protobuf::Duration { seconds, nanos } = duration;
    Some(Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?))
}

pub(super) fn refusal(detail: String) -> Status {
    let mut message = detail;
    message.truncate(message.floor_char_boundary(MAX_NACK_DETAIL_BYTES));
    Status { code: INTERNAL, message, ..Status::default() }
}
