//! `core.v3.GrpcService`, and what it shares with other services that the proxy itself calls.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{GrpcService, HeaderValue as ProtoHeader};
use envoy_types::pb::google::protobuf;
use http::{HeaderName, HeaderValue};

use super::at::{At, no_effect, refuse_set};
use super::header::header_name;

/// A service that is called by gRPC.
pub(super) struct Called {
    pub(super) cluster: String,
    /// The cluster's name where none is given.
    pub(super) authority: String,
    pub(super) initial_metadata: Vec<(HeaderName, HeaderValue)>,
    pub(super) timeout: Duration,
}

/// `limit` is what becomes of its `timeout`, seen from the service.
pub(super) fn grpc_service(
    value: GrpcService,
    limit: impl FnOnce(Option<protobuf::Duration>, &At<'_>) -> Option<Duration>,
    at: &At<'_>,
) -> Option<Called> {
    let GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = value;
    refuse_set!(at; retry_policy);
    let timeout = limit(timeout, at);
    let initial_metadata = at.field("initial_metadata").each(initial_metadata, header_to_add);
    let EnvoyGrpc { cluster_name, authority, retry_policy, max_receive_message_length, skip_envoy_headers } =
        match at.field("target_specifier").required(target_specifier)? {
            TargetSpecifier::EnvoyGrpc(value) => value,
            TargetSpecifier::GoogleGrpc(_) => return at.field("google_grpc").unsupported("is not supported"),
        };
    let at = at.field("envoy_grpc");
    no_effect!(at; "is of headers that are not sent"; skip_envoy_headers);
    refuse_set!(at; retry_policy, max_receive_message_length);
    let authority = if authority.is_empty() { cluster_name.clone() } else { authority };
    let cluster = named(cluster_name, &at.field("cluster_name"))?;
    Some(Called { cluster, authority, initial_metadata: initial_metadata?, timeout: timeout? })
}

/// As text: operators are refused by name.
pub(super) fn header_to_add(value: ProtoHeader, at: &At<'_>) -> Option<(HeaderName, HeaderValue)> {
    let ProtoHeader { key, value, raw_value } = value;
    refuse_set!(at; raw_value);
    let name = header_name(&key, &at.field("key"));
    let at_value = at.field("value");
    if value.contains('%') {
        return at_value.unsupported("has operators, which are not supported here");
    }
    let value = HeaderValue::try_from(value).ok().or_else(|| at_value.refuse("is not a header's value"));
    Some((name?, value?))
}

pub(super) fn named(cluster: String, at: &At<'_>) -> Option<String> {
    if cluster.is_empty() { at.refuse("is empty") } else { Some(cluster) }
}
