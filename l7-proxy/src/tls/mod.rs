//! TLS towards endpoints and of filter chains, by `rustls`: Envoy's `transport_sockets.tls`.
//!
//! In: TLS contexts of the plan and the workload's secrets. Out: [`Stream`]s. What is made of a context and its secrets is kept
//! by whoever uses it (a cluster, the pod) until a secret changes; then the next connection has a new one, and nothing that
//! one pod has made is seen by another. Nothing goes on in plaintext where TLS cannot be spoken.

mod certificate;
mod client;
mod failure;
mod material;
mod parameters;
mod server;
mod stream;
mod verifier;

use std::collections::BTreeMap;
use std::sync::Arc;

use orlop_plan::resource::secret::Secret;
use orlop_plan::resource::tls::SecretSource;

pub(crate) use certificate::Certificate;
pub(crate) use client::{CannotSpeak, ClientContexts, ClientTls};
pub(crate) use failure::TlsFailure;
pub(crate) use server::{Accepted, ServerContexts, accept};
pub(crate) use stream::Stream;

/// A workload's secrets, as its plan has them.
pub(crate) type Secrets = Arc<BTreeMap<SecretSource, Arc<Secret>>>;

/// The exchange of peers' metadata over TCP, which is not spoken: neither offered nor chosen.
const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// As `rustls` takes it, without what is not spoken.
fn alpn_protocols(protocols: &[String]) -> Vec<Vec<u8>> {
    let spoken = protocols.iter().filter(|protocol| *protocol != PEER_EXCHANGE);
    spoken.map(|protocol| protocol.as_bytes().to_vec()).collect()
}
