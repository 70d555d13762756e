//! Istio's headers by which the two ends of a request describe themselves.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::dimensions::Peer;
use super::peer_metadata::PeerMetadata;

const ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");
const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");

/// Descriptions that are kept as they were read; peers have few.
const MOST: usize = 500;

/// What a workload says of itself, ready to be sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    id: Option<HeaderValue>,
    metadata: Option<HeaderValue>,
}

/// Which headers a client sent: it is answered with the same.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    id: bool,
    metadata: bool,
}

/// A pod's part in the exchange, on one worker.
#[derive(Debug, Default)]
pub(crate) struct PeerExchange {
    own: Told,
    /// By the header's value.
    known: RefCell<HashMap<HeaderValue, Arc<PeerMetadata>>>,
}

impl Told {
    /// `node_id` is the one that the control plane knows the workload by.
    pub(crate) fn new(node_id: &str, metadata: &PeerMetadata) -> Self {
        Self {
            id: HeaderValue::from_str(node_id).ok(),
            metadata: HeaderValue::from_str(&metadata.encode()).ok(),
        }
    }
}

impl PeerExchange {
    /// For a workload that says this of itself.
    pub(crate) fn new(own: Told) -> Self {
        Self { own, known: RefCell::default() }
    }

    /// Takes what the other end says out of its headers.
    pub(crate) fn hear(&self, headers: &mut HeaderMap) -> (Said, Peer) {
        let id = headers.remove(ID).is_some();
        let Some(said) = headers.remove(METADATA) else {
            return (Said { id, metadata: false }, Peer::Unknown);
        };
        let peer = self.read(said).map_or(Peer::Unknown, Peer::Said);
        (Said { id, metadata: true }, peer)
    }

    fn read(&self, said: HeaderValue) -> Option<Arc<PeerMetadata>> {
        let mut known = self.known.borrow_mut();
        if let Some(metadata) = known.get(&said) {
            return Some(Arc::clone(metadata));
        }
        let metadata = Arc::new(PeerMetadata::decode(said.as_bytes())?);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(said, Arc::clone(&metadata));
        Some(metadata)
    }

    /// Tells an endpoint.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        self.answer(headers, Said { id: true, metadata: true });
    }

    /// Tells a client that said so much.
    pub(crate) fn answer(&self, headers: &mut HeaderMap, said: Said) {
        if let Some(id) = self.own.id.as_ref().filter(|_| said.id) {
            headers.insert(ID, id.clone());
        }
        if let Some(metadata) = self.own.metadata.as_ref().filter(|_| said.metadata) {
            headers.insert(METADATA, metadata.clone());
        }
    }
}
