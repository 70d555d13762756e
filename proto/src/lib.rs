//! Message types that `envoy-types` lacks, the kinds of resource that all rooms speak of, and the descriptors that turn messages into JSON and back.
//!
//! The generated types cost nothing until used. The descriptors describe some six hundred files and live in
//! memory only as long as a [`Descriptors`] does: configuration over gRPC never needs them, only files and
//! printed output do.

mod descriptors;
mod error;
mod json;
mod print;
mod resource;

pub use descriptors::Descriptors;
pub use error::{DecodeError, DescriptorsError, JsonError};
pub use prost_reflect;
pub use resource::{Resource, ResourceType};

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::derive_partial_eq_without_eq,
    reason = "prost-build writes this code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/types.rs"));
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1`: the filter `istio.alpn`.
pub mod alpn {
    pub use crate::generated::istio::envoy::config::filter::http::alpn::v2alpha1::*;
}

/// `istio.v1.auth`: how a certificate is asked for.
pub mod certificate {
    pub use crate::generated::istio::v1::auth::*;
}

/// `runtime.v1`: how a container runtime is asked for a pod's sandbox.
pub mod cri {
    pub use crate::generated::runtime::v1::*;
}

/// `io.istio.http.peer_metadata`: the exchange of peer metadata in HTTP headers.
pub mod peer_metadata {
    pub use crate::generated::io::istio::http::peer_metadata::*;
}

/// `envoy.tcp.metadataexchange.config`: the exchange of peer metadata in front of a TCP payload.
pub mod metadata_exchange {
    pub use crate::generated::envoy::tcp::metadataexchange::config::*;
}

/// `istio.networking.nds.v1`: the names that a workload's resolver answers for.
pub mod nds {
    pub use crate::generated::istio::networking::nds::v1::*;
}

/// `istio.mesh.v1alpha1`: what a running proxy is told about the mesh.
pub mod mesh {
    pub use crate::generated::istio::mesh::v1alpha1::*;
}

/// `stats`: the filter `istio.stats`.
pub mod stats {
    pub use crate::generated::stats::*;
}

/// `udpa.type.v1`: the older `TypedStruct`.
pub mod typed_struct {
    pub use crate::generated::udpa::r#type::v1::*;
}
