//! `core.v3.GrpcService` and `core.v3.HttpService`, where the proxy itself sends to them.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{
    GrpcService, HeaderValueOption, HttpService, HttpUri, http_uri,
};
use envoy_types::pb::google::protobuf;
use http::{HeaderName, HeaderValue};

use super::at::{At, is_set, no_effect, refuse_set};
use super::grpc_service::{Called, grpc_service, header_to_add, named};
use super::scalar::timeout;
use crate::resource::collector::{Collector, CollectorProtocol};

/// Where none is given, or none at all: what waits for a collector that is stuck takes up room.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn grpc(value: GrpcService, at: &At<'_>) -> Option<Collector> {
    let Called { cluster, authority, initial_metadata, timeout } = grpc_service(value, limit_of, at)?;
    Some(Collector {
        cluster: cluster.into(),
        authority,
        protocol: CollectorProtocol::Grpc,
        timeout,
        headers: initial_metadata,
    })
}

pub(super) fn http(value: HttpService, at: &At<'_>) -> Option<Collector> {
    let HttpService { http_uri, request_headers_to_add, formatters } = value;
    refuse_set!(at; formatters);
    let headers = at.field("request_headers_to_add").each(request_headers_to_add, option);
    let at = at.field("http_uri");
    let HttpUri { uri, timeout: limit, http_upstream_type } = at.required(http_uri)?;
    let limit = limit_of(limit, &at);
    let http_uri::HttpUpstreamType::Cluster(cluster) =
        at.field("http_upstream_type").required(http_upstream_type)?;
    let rest = uri.split_once("://").map_or(uri.as_str(), |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.is_empty() {
        return at.field("uri").refuse("names no host");
    }
    let path = if path.is_empty() { "/" } else { path }.to_owned();
    Some(Collector {
        cluster: named(cluster, &at.field("cluster"))?.into(),
        authority: authority.to_owned(),
        protocol: CollectorProtocol::Http { path },
        timeout: limit?,
        headers: headers?,
    })
}

/// There is nothing yet that it could be added to.
fn option(value: HeaderValueOption, at: &At<'_>) -> Option<(HeaderName, HeaderValue)> {
    let HeaderValueOption { header, append, append_action, keep_empty_value } = value;
    if append_action == HeaderAppendAction::OverwriteIfExists as i32 {
        return at.field("append_action").unsupported("is not supported");
    }
    if is_set(&append_action) {
        at.field("append_action").no_effect("adds to headers that are not there");
    }
    no_effect!(at; "adds to headers that are not there"; append, keep_empty_value);
    let at = at.field("header");
    header_to_add(at.required(header)?, &at)
}

fn limit_of(value: Option<protobuf::Duration>, at: &At<'_>) -> Option<Duration> {
    let limit = timeout(value, Some(DEFAULT_TIMEOUT), &at.field("timeout"))?;
    Some(limit.unwrap_or(DEFAULT_TIMEOUT))
}
