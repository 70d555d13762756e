//! Transport sockets, towards endpoints and of filter chains.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, UpstreamTlsContext,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::{Message, Name};

use super::at::{At, no_effect};
use super::decode::Extension;
use super::tls::{downstream_tls_context, upstream_tls_context};
use crate::resource::cluster::UpstreamTransportSocket;
use crate::resource::listener::DownstreamTransportSocket;

/// A socket: TLS, or none.
type Tls<T> = Option<Arc<T>>;

fn socket<M: Message + Name + Default, T>(
    value: TransportSocket,
    tls: impl FnOnce(M, &At<'_>) -> Option<T>,
    at: &At<'_>,
) -> Option<Tls<T>> {
    let TransportSocket { name, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    match config_type {
        None if name == "envoy.transport_sockets.raw_buffer" => Some(None),
        None => at.refuse(format!("transport socket {name:?} is not supported")),
        Some(transport_socket::ConfigType::TypedConfig(any)) => {
            let at = at.field("typed_config");
            let extension = Extension::open(any, &at)?;
            match extension.type_name() {
                known if known == RawBuffer::full_name() => {
                    let RawBuffer {} = extension.message(&at)?;
                    Some(None)
                }
                known if known == M::full_name() => {
                    tls(extension.message(&at)?, &at).map(|context| Some(Arc::new(context)))
                }
                _ => extension.refuse("transport socket", &name, &at),
            }
        }
    }
}

pub(super) fn downstream(value: Option<TransportSocket>, at: &At<'_>) -> Option<DownstreamTransportSocket> {
    let Some(value) = value else { return Some(DownstreamTransportSocket::RawBuffer) };
    Some(match socket::<DownstreamTlsContext, _>(value, downstream_tls_context, at)? {
        None => DownstreamTransportSocket::RawBuffer,
        Some(context) => DownstreamTransportSocket::Tls(context),
    })
}

/// `transport_socket` and `transport_socket_matches` together. istiod writes two matches: TLS where an endpoint's
/// metadata has one pair, and plaintext for all others.
pub(super) fn upstream(
    socket: Option<TransportSocket>,
    matches: Vec<TransportSocketMatch>,
    at: &At<'_>,
) -> Option<UpstreamTransportSocket> {
    let tls = |value: TransportSocket, at: &At<'_>| {
        self::socket::<UpstreamTlsContext, _>(value, upstream_tls_context, at)
    };
    let otherwise = match socket {
        None => None,
        Some(socket) => tls(socket, &at.field("transport_socket"))?,
    };
    let at = at.field("transport_socket_matches");
    let mut by_metadata = None;
    let mut rest = None;
    for (i, value) in matches.into_iter().enumerate() {
        let at = at.index(i);
        let TransportSocketMatch { name, r#match, transport_socket } = value;
        no_effect!(at; "feeds statistics alone"; name);
        let at_socket = at.field("transport_socket");
        let context = tls(at_socket.required(transport_socket)?, &at_socket)?;
        if rest.is_some() {
            return at.refuse("stands behind one that matches every endpoint");
        }
        match (metadata_pair(r#match.unwrap_or_default(), &at.field("match"))?, context) {
            (None, context) => rest = Some(context),
            (Some(pair), Some(context)) if by_metadata.is_none() => by_metadata = Some((pair, context)),
            (Some(_), _) => {
                return at.refuse("is not supported: only one match by metadata, and that with TLS");
            }
        }
    }
    Some(match (by_metadata, rest.unwrap_or(otherwise)) {
        (None, None) => UpstreamTransportSocket::RawBuffer,
        (None, Some(context)) => UpstreamTransportSocket::Tls(context),
        (Some(((key, value), context)), others) => {
            UpstreamTransportSocket::TlsForEndpointsWith { key, value, context, others }
        }
    })
}

fn metadata_pair(value: Struct, at: &At<'_>) -> Option<Option<(String, String)>> {
    let mut fields = value.fields.into_iter();
    match (fields.next(), fields.next()) {
        (None, _) => Some(None),
        (Some((key, Value { kind: Some(Kind::StringValue(value)) })), None) => Some(Some((key, value))),
        _ => at.refuse("is not supported: one pair of strings at most"),
    }
}
