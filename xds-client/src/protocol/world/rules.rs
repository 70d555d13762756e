//! The rules that every request must keep, whatever happened before it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;

use super::{Request, Response};
use crate::ResourceType;

/// What one stream's client has said and owes.
#[derive(Default)]
pub(super) struct Rules {
    started: bool,
    types: BTreeMap<String, Asked>,
}

#[derive(Default)]
struct Asked {
    /// Responses that came and were not answered.
    due: VecDeque<Due>,
    subscribed: BTreeSet<String>,
    last_nonce: String,
    accepted_version: String,
}

struct Due {
    nonce: String,
    version: String,
    contradicts_itself: bool,
}

impl Rules {
    /// A response is about to reach the client; nothing is due to one that it did not ask for.
    pub(super) fn came(&mut self, response: &Response, contradicts_itself: bool) {
        let (type_url, nonce, version) = match response {
            Response::Delta(response) => (&response.type_url, &response.nonce, &response.system_version_info),
            Response::StateOfTheWorld(response) => {
                (&response.type_url, &response.nonce, &response.version_info)
            }
        };
        let Some(asked) = self.types.get_mut(type_url) else { return };
        asked.last_nonce.clone_from(nonce);
        let due = Due { nonce: nonce.clone(), version: version.clone(), contradicts_itself };
        asked.due.push_back(due);
    }

    pub(super) fn all_answered(&self) -> bool {
        self.types.values().all(|asked| asked.due.is_empty())
    }

    pub(super) fn subscribed(&self, resource_type: ResourceType) -> BTreeSet<String> {
        self.types.get(resource_type.type_url()).map(|asked| asked.subscribed.clone()).unwrap_or_default()
    }

    pub(super) fn check(&mut self, request: &Request) {
        match request {
            Request::Delta(request) => self.check_delta(request),
            Request::StateOfTheWorld(request) => self.check_whole(request),
        }
    }

    fn check_delta(&mut self, request: &DeltaDiscoveryRequest) {
        self.check_node(request.node.as_ref());
        let first = !self.types.contains_key(&request.type_url);
        let asked = self.types.entry(request.type_url.clone()).or_default();
        if !request.response_nonce.is_empty() {
            assert!(!first);
            asked.answer(&request.response_nonce, request.error_detail.as_ref());
            assert!(request.resource_names_subscribe.is_empty());
            assert!(request.resource_names_unsubscribe.is_empty());
            return;
        }
        if first {
            check_first(&request.type_url, request.resource_names_subscribe.is_empty());
        } else {
            assert!(request.initial_resource_versions.is_empty());
        }
        for name in &request.resource_names_subscribe {
            assert!(asked.subscribed.insert(name.clone()), "{name} is subscribed once");
        }
        for name in &request.resource_names_unsubscribe {
            assert!(asked.subscribed.remove(name), "{name} was subscribed");
        }
    }

    fn check_whole(&mut self, request: &DiscoveryRequest) {
        self.check_node(request.node.as_ref());
        let first = !self.types.contains_key(&request.type_url);
        let asked = self.types.entry(request.type_url.clone()).or_default();
        let names: BTreeSet<String> = request.resource_names.iter().cloned().collect();
        if first {
            assert_eq!(request.response_nonce, "");
            assert_eq!(request.version_info, "");
            check_first(&request.type_url, names.is_empty());
        } else if let Some(due) = asked.due.front() {
            let rejected = request.error_detail.is_some();
            let version = if rejected { asked.accepted_version.clone() } else { due.version.clone() };
            asked.answer(&request.response_nonce, request.error_detail.as_ref());
            assert_eq!(request.version_info, version, "a refusal repeats the version before it");
            asked.accepted_version = version;
        } else {
            assert_eq!(request.response_nonce, asked.last_nonce);
            assert_eq!(request.version_info, asked.accepted_version);
            assert_ne!(names, asked.subscribed, "a request without a cause");
        }
        asked.subscribed = names;
    }

    fn check_node(&mut self, node: Option<&Node>) {
        let started = std::mem::replace(&mut self.started, true);
        assert_eq!(node.is_none(), started, "the node comes first");
    }
}

impl Asked {
    fn answer(&mut self, nonce: &str, error: Option<&Status>) {
        let due = self.due.pop_front().expect("a response to answer");
        assert_eq!(nonce, due.nonce, "answered once and in order");
        assert!(error.is_some() || !due.contradicts_itself, "nobody accepts a contradiction");
    }
}

fn check_first(type_url: &str, names_nothing: bool) {
    let wildcard = ResourceType::from_type_url(type_url).is_some_and(ResourceType::is_wildcard);
    assert_eq!(names_nothing, wildcard, "to name nothing first means to want everything");
}
