//! `listener.v3.FilterChain`.

use envoy_types::pb::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain as Proto, FilterChainMatch as ProtoMatch};

use super::at::{At, no_effect, refuse_set};
use super::network_filter::{Parsed, network_filter};
use super::scalar::{cidr, port, timeout};
use super::transport_socket;
use crate::resource::listener::{FilterChain, FilterChainMatch, TransportProtocol};

pub(super) fn filter_chain(value: Proto, at: &At<'_>) -> Option<FilterChain> {
    let Proto {
        filter_chain_match: criteria,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = value;
    no_effect!(at; "has no reader"; metadata);
    let use_proxy_proto = use_proxy_proto.is_some_and(|flag| flag.value);
    refuse_set!(at; use_proxy_proto);
    let filter_chain_match =
        filter_chain_match(criteria.unwrap_or_default(), &at.field("filter_chain_match"));
    let transport_socket = transport_socket::downstream(transport_socket, &at.field("transport_socket"));
    let connect_timeout =
        timeout(transport_socket_connect_timeout, None, &at.field("transport_socket_connect_timeout"));
    let at_filters = at.field("filters");
    let parsed = at_filters.each(filters, network_filter)?;
    let count = parsed.len();
    let mut filters = Vec::new();
    let mut terminal = None;
    for (i, filter) in parsed.into_iter().enumerate() {
        match filter {
            Parsed::Terminal(filter) if i + 1 == count => terminal = Some(filter),
            Parsed::Terminal(_) => {
                return at_filters.index(i).refuse("ends the chain and is not the last filter");
            }
            Parsed::Other(filter) => filters.push(filter),
            Parsed::Nothing => {}
        }
    }
    let Some(terminal) = terminal else {
        return at_filters.refuse("does not end with a connection manager or a TCP proxy");
    };
    Some(FilterChain {
        name,
        filter_chain_match: filter_chain_match?,
        transport_socket: transport_socket?,
        transport_socket_connect_timeout: connect_timeout?,
        filters,
        terminal,
    })
}

fn filter_chain_match(value: ProtoMatch, at: &At<'_>) -> Option<FilterChainMatch> {
    let ProtoMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = value;
    refuse_set!(at; address_suffix, suffix_len);
    let destination_port = match destination_port {
        None => Some(None),
        Some(value) => port(value.value, &at.field("destination_port")).map(Some),
    };
    let prefix_ranges = at.field("prefix_ranges").each(prefix_ranges, cidr);
    let direct_source = at.field("direct_source_prefix_ranges").each(direct_source_prefix_ranges, cidr);
    let source = at.field("source_prefix_ranges").each(source_prefix_ranges, cidr);
    let source_ports = at.field("source_ports").each(source_ports, port);
    let server_names = at.field("server_names").each(server_names, |name: String, at| {
        let name = name.to_ascii_lowercase();
        let rest = name.strip_prefix("*.").unwrap_or(&name);
        if rest.is_empty() || rest.contains('*') {
            return at.refuse(format!("{name:?}: a wildcard is `*.` at the start and nothing else"));
        }
        Some(name)
    });
    let source_local = match ConnectionSourceType::try_from(source_type) {
        Ok(ConnectionSourceType::Any) => Some(None),
        Ok(ConnectionSourceType::SameIpOrLoopback) => Some(Some(true)),
        Ok(ConnectionSourceType::External) => Some(Some(false)),
        Err(_) => at.field("source_type").refuse("is unknown"),
    };
    let transport_protocol = match transport_protocol.as_str() {
        "" => Some(None),
        "tls" => Some(Some(TransportProtocol::Tls)),
        "raw_buffer" => Some(Some(TransportProtocol::RawBuffer)),
        other => at.field("transport_protocol").refuse(format!("{other:?} is not supported")),
    };
    Some(FilterChainMatch {
        destination_port: destination_port?,
        prefix_ranges: prefix_ranges?,
        server_names: server_names?,
        transport_protocol: transport_protocol?,
        application_protocols,
        direct_source_prefix_ranges: direct_source?,
        source_local: source_local?,
        source_prefix_ranges: source?,
        source_ports: source_ports?,
    })
}
