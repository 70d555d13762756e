//! From protobuf to validated resources.
//!
//! Every message is taken apart field by field, without `..`, so that a field which a newer protocol adds does not compile
//! until somebody has decided about it. A field is honoured, or has no effect here for a reason that stands beside it, or is
//! refused by name when it is set. A resource's problems are all found, not the first one only. A function that returns
//! `None` has recorded a problem.

#![expect(deprecated, reason = "a control plane may still set what the protocol discourages")]
#![expect(
    clippy::option_option,
    reason = "the outer None is a field that was refused, the inner one a field left out"
)]

mod access_log;
mod at;
mod cluster;
mod decode;
mod endpoint;
mod filter_chain;
mod header;
mod header_format;
mod http_connection_manager;
mod http_filter;
mod listener;
mod listener_filter;
mod matcher;
mod network_filter;
mod regex;
mod retry;
mod route;
mod route_action;
mod route_configuration;
mod scalar;
mod tcp_proxy;
mod transport_socket;
mod unknown_fields;
mod upstream_http;

use envoy_types::pb::envoy::config;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use orlop_proto::mesh::ProxyConfig;
use orlop_proto::nds::NameTable;

use crate::resource::ResourceError;
use crate::resource::cluster::Cluster;
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::listener::Listener;
use crate::resource::route::RouteConfiguration;

pub(crate) use listener::refused_listener;

/// `cluster.v3.Cluster`
pub(crate) fn cluster(bytes: &[u8]) -> Result<Cluster, ResourceError> {
    decode::resource(bytes, |proto: &config::cluster::v3::Cluster| proto.name.clone(), cluster::cluster)
}

/// `endpoint.v3.ClusterLoadAssignment`
pub(crate) fn load_assignment(bytes: &[u8]) -> Result<ClusterLoadAssignment, ResourceError> {
    let name = |proto: &config::endpoint::v3::ClusterLoadAssignment| proto.cluster_name.clone();
    decode::resource(bytes, name, endpoint::load_assignment)
}

/// `core.v3.TypedExtensionConfig`
pub(crate) fn extension_config(bytes: &[u8]) -> Result<TypedExtensionConfig, ResourceError> {
    decode::resource(bytes, |proto: &TypedExtensionConfig| proto.name.clone(), |proto, _| Some(proto))
}

/// `tls.v3.Secret`
pub(crate) fn secret(bytes: &[u8]) -> Result<Secret, ResourceError> {
    decode::resource(bytes, |proto: &Secret| proto.name.clone(), |proto, _| Some(proto))
}

/// `nds.v1.NameTable`
pub(crate) fn name_table(bytes: &[u8]) -> Result<NameTable, ResourceError> {
    decode::resource(bytes, |_: &NameTable| String::new(), |proto, _| Some(proto))
}

/// `mesh.v1alpha1.ProxyConfig`
pub(crate) fn proxy_config(bytes: &[u8]) -> Result<ProxyConfig, ResourceError> {
    decode::resource(bytes, |_: &ProxyConfig| String::new(), |proto, _| Some(proto))
}

/// `listener.v3.Listener`
pub(crate) fn listener(bytes: &[u8]) -> Result<Listener, ResourceError> {
    decode::resource(bytes, |proto: &config::listener::v3::Listener| proto.name.clone(), listener::listener)
}

/// `route.v3.RouteConfiguration`
pub(crate) fn route_configuration(bytes: &[u8]) -> Result<RouteConfiguration, ResourceError> {
    let name = |proto: &config::route::v3::RouteConfiguration| proto.name.clone();
    decode::resource(bytes, name, route_configuration::route_configuration)
}
