//! Transport sockets, towards endpoints and of filter chains.
//!
//! TLS is understood, not yet served: a resource with it is accepted, and each hop that would need it is refused where
//! it is met. What the TLS contexts say is therefore not looked into.

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, UpstreamTlsContext,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Name;

use super::at::{At, no_effect};
use super::decode::Extension;
use crate::resource::cluster::UpstreamTransportSocket;
use crate::resource::listener::DownstreamTransportSocket;

enum Kinds {
    Raw,
    Tls,
}

fn kind(value: TransportSocket, tls: &str, at: &At<'_>) -> Option<Kinds> {
    let TransportSocket { name, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    match config_type {
        None if name == "envoy.transport_sockets.raw_buffer" => Some(Kinds::Raw),
        None => at.refuse(format!("transport socket {name:?} is not supported")),
        Some(transport_socket::ConfigType::TypedConfig(any)) => {
            let at = at.field("typed_config");
            let extension = Extension::open(any, &at)?;
            match extension.type_name() {
                known if known == RawBuffer::full_name() => {
                    let RawBuffer {} = extension.message(&at)?;
                    Some(Kinds::Raw)
                }
                known if known == tls => {
                    at.no_effect("is not looked into: hops with TLS are refused");
                    Some(Kinds::Tls)
                }
                _ => extension.refuse("transport socket", &name, &at),
            }
        }
    }
}

pub(super) fn downstream(value: Option<TransportSocket>, at: &At<'_>) -> Option<DownstreamTransportSocket> {
    let Some(value) = value else { return Some(DownstreamTransportSocket::RawBuffer) };
    Some(match kind(value, &DownstreamTlsContext::full_name(), at)? {
        Kinds::Raw => DownstreamTransportSocket::RawBuffer,
        Kinds::Tls => DownstreamTransportSocket::Tls,
    })
}

/// `transport_socket` and `transport_socket_matches` together. istiod writes two matches: TLS where an endpoint's
/// metadata has one pair, and plaintext for all others.
pub(super) fn upstream(
    socket: Option<TransportSocket>,
    matches: Vec<TransportSocketMatch>,
    at: &At<'_>,
) -> Option<UpstreamTransportSocket> {
    let tls = UpstreamTlsContext::full_name();
    let otherwise = match socket {
        None => Kinds::Raw,
        Some(socket) => kind(socket, &tls, &at.field("transport_socket"))?,
    };
    let at = at.field("transport_socket_matches");
    let mut by_metadata = None;
    let mut rest = None;
    for (i, value) in matches.into_iter().enumerate() {
        let at = at.index(i);
        let TransportSocketMatch { name, r#match, transport_socket } = value;
        no_effect!(at; "feeds statistics alone"; name);
        let at_socket = at.field("transport_socket");
        let kind = kind(at_socket.required(transport_socket)?, &tls, &at_socket)?;
        if rest.is_some() {
            return at.refuse("stands behind one that matches every endpoint");
        }
        match (metadata_pair(r#match.unwrap_or_default(), &at.field("match"))?, kind) {
            (None, kind) => rest = Some(kind),
            (Some(pair), Kinds::Tls) if by_metadata.is_none() => by_metadata = Some(pair),
            (Some(_), _) => {
                return at.refuse("is not supported: only one match by metadata, and that with TLS");
            }
        }
    }
    match (by_metadata, rest.unwrap_or(otherwise)) {
        (None, Kinds::Raw) => Some(UpstreamTransportSocket::RawBuffer),
        // TLS by metadata and TLS otherwise differ in their contexts, which are not told apart yet.
        (_, Kinds::Tls) => Some(UpstreamTransportSocket::Tls),
        (Some((key, value)), Kinds::Raw) => Some(UpstreamTransportSocket::TlsForEndpointsWith { key, value }),
    }
}

fn metadata_pair(value: Struct, at: &At<'_>) -> Option<Option<(String, String)>> {
    let mut fields = value.fields.into_iter();
    match (fields.next(), fields.next()) {
        (None, _) => Some(None),
        (Some((key, Value { kind: Some(Kind::StringValue(value)) })), None) => Some(Some((key, value))),
        _ => at.refuse("is not supported: one pair of strings at most"),
    }
}
