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
mod collector;
mod cors;
mod decode;
mod dns;
mod endpoint;
mod ext_authz;
mod extension_config;
mod fault;
mod filter_chain;
mod format;
mod grpc_service;
mod hash_policy;
mod header;
mod http_connection_manager;
mod http_filter;
mod jwks;
mod jwt_authn;
mod listener;
mod listener_filter;
mod load_balancing;
mod local_rate_limit;
mod matcher;
mod metadata;
mod metadata_matcher;
mod name_table;
mod network_filter;
mod outlier_detection;
mod per_filter_config;
mod rbac;
mod regex;
mod retry;
mod route;
mod route_action;
mod route_configuration;
mod scalar;
mod secret;
mod tcp_proxy;
mod telemetry;
mod tls;
mod tracing;
mod transport_socket;
mod unknown_fields;
mod upstream_http;
mod uri_template;

use std::cell::RefCell;

use envoy_types::pb::envoy::config;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_v3;
use orlop_proto::{mesh, nds};

use crate::resource::cluster::Cluster;
use crate::resource::endpoint::ClusterLoadAssignment;
use crate::resource::extension_config::ExtensionConfig;
use crate::resource::listener::Listener;
use crate::resource::mesh::ProxyConfig;
use crate::resource::name_table::NameTable;
use crate::resource::route::RouteConfiguration;
use crate::resource::secret::Secret;
use crate::resource::{FieldNote, RefusedRoute, ResourceError};

pub(crate) use at::Findings;
pub(crate) use listener::refused_listener;

/// The validation of one kind of resource. Lists what has no effect by its nature where the findings ask for it.
pub(crate) type Validate<T> = fn(&[u8], &RefCell<Findings>) -> Result<T, ResourceError>;

/// A resource that is fit to serve, and what was accepted with it and has no effect yet.
#[derive(Debug)]
pub(crate) struct Validated<T> {
    pub(crate) resource: T,
    pub(crate) notes: Vec<FieldNote>,
    /// Routes of it that are refused by themselves, and why.
    pub(crate) refused_routes: Vec<RefusedRoute>,
}

pub(crate) fn validated<T>(validate: Validate<T>, bytes: &[u8]) -> Result<Validated<T>, ResourceError> {
    let findings = RefCell::default();
    let resource = validate(bytes, &findings)?;
    let Findings { notes, refused_routes, .. } = findings.into_inner();
    Ok(Validated { resource, notes, refused_routes })
}

/// `cluster.v3.Cluster`
pub(crate) fn cluster(bytes: &[u8], findings: &RefCell<Findings>) -> Result<Cluster, ResourceError> {
    decode::resource(
        bytes,
        findings,
        |proto: &config::cluster::v3::Cluster| proto.name.clone(),
        cluster::cluster,
    )
}

/// `endpoint.v3.ClusterLoadAssignment`
pub(crate) fn load_assignment(
    bytes: &[u8],
    findings: &RefCell<Findings>,
) -> Result<ClusterLoadAssignment, ResourceError> {
    decode::resource(
        bytes,
        findings,
        |proto: &config::endpoint::v3::ClusterLoadAssignment| proto.cluster_name.clone(),
        endpoint::load_assignment,
    )
}

/// `listener.v3.Listener`
pub(crate) fn listener(bytes: &[u8], findings: &RefCell<Findings>) -> Result<Listener, ResourceError> {
    decode::resource(
        bytes,
        findings,
        |proto: &config::listener::v3::Listener| proto.name.clone(),
        listener::listener,
    )
}

/// `route.v3.RouteConfiguration`
pub(crate) fn route_configuration(
    bytes: &[u8],
    findings: &RefCell<Findings>,
) -> Result<RouteConfiguration, ResourceError> {
    decode::resource(
        bytes,
        findings,
        |proto: &config::route::v3::RouteConfiguration| proto.name.clone(),
        route_configuration::route_configuration,
    )
}

/// `core.v3.TypedExtensionConfig`
pub(crate) fn extension_config(
    bytes: &[u8],
    findings: &RefCell<Findings>,
) -> Result<ExtensionConfig, ResourceError> {
    decode::resource(
        bytes,
        findings,
        |proto: &TypedExtensionConfig| proto.name.clone(),
        extension_config::extension_config,
    )
}

/// `tls.v3.Secret`
pub(crate) fn secret(bytes: &[u8], findings: &RefCell<Findings>) -> Result<Secret, ResourceError> {
    decode::resource(bytes, findings, |proto: &tls_v3::Secret| proto.name.clone(), secret::secret)
}

/// A `tls.v3.Secret` that validates, as it may be kept and printed: its keys are gone, that they were there is not.
pub(crate) fn without_secrets(bytes: &[u8]) -> Vec<u8> {
    secret::without_keys(bytes)
}

/// `nds.v1.NameTable`
pub(crate) fn name_table(bytes: &[u8], findings: &RefCell<Findings>) -> Result<NameTable, ResourceError> {
    decode::resource(bytes, findings, |_: &nds::NameTable| String::new(), name_table::name_table)
}

/// `mesh.v1alpha1.ProxyConfig`
pub(crate) fn proxy_config(bytes: &[u8], findings: &RefCell<Findings>) -> Result<ProxyConfig, ResourceError> {
    decode::resource(bytes, findings, |_: &mesh::ProxyConfig| String::new(), secret::proxy_config)
}
