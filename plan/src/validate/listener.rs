//! `listener.v3.Listener`.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::AccessLog as ProtoLog;
use envoy_types::pb::envoy::config::core::v3::TrafficDirection as ProtoDirection;
use envoy_types::pb::envoy::config::listener::v3::{AdditionalAddress, Listener as Proto};
use prost::Message;

use super::access_log::access_logs;
use super::at::{At, no_effect, refuse_set};
use super::filter_chain::filter_chain;
use super::listener_filter::listener_filters;
use super::scalar::{socket_addr, timeout};
use crate::resource::access_log::AccessLog;
use crate::resource::listener::{FilterChain, Listener, TrafficDirection};
use crate::snapshot::RefusedListener;

/// Envoy's limit of the time that listener filters take.
const DEFAULT_LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);

#[expect(clippy::too_many_lines, reason = "one message, taken apart in one place")]
pub(super) fn listener(value: Proto, at: &At<'_>) -> Option<Listener> {
    let Proto {
        name,
        address,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters: filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = value;
    no_effect!(at; "feeds statistics alone"; stat_prefix, stats_matcher);
    no_effect!(at; "is a hint for memory; the proxy bounds its buffers itself"; per_connection_buffer_limit_bytes);
    no_effect!(at; "has no reader"; metadata);
    no_effect!(at; "says what a changed listener does with its connections; they go on with the version that they began with"; drain_type);
    no_effect!(at; "is of a socket that Envoy opens; connections come in by way of the datapath"; freebind, tcp_backlog_size);
    no_effect!(at; "says how connections are spread over Envoy's threads"; connection_balance_config, reuse_port, enable_reuse_port, max_connections_to_accept_per_socket_event);
    no_effect!(at; "is of limits that Envoy's bootstrap sets"; ignore_global_conn_limit, bypass_overload_manager);
    let transparent = transparent.is_some_and(|flag| flag.value);
    refuse_set!(
        at; fcds_config, filter_chain_matcher, per_connection_buffer_high_watermark_timeout, deprecated_v1,
        transparent, socket_options, tcp_fast_open_queue_length, udp_listener_config, api_listener, enable_mptcp,
        tcp_keepalive, listener_specifier
    );
    let at_address = at.field("address");
    let first = at_address.required(address).and_then(|address| socket_addr(address, &at_address));
    let others = at.field("additional_addresses").each(additional_addresses, additional_address);
    let use_original_dst = use_original_dst.is_some_and(|flag| flag.value);
    let bind_to_port = bind_to_port.is_none_or(|flag| flag.value);
    let direction = direction(traffic_direction, &at.field("traffic_direction"));
    let unmatched_logs = unmatched_logs(access_log, &at.field("access_log"));
    let listener_filters = listener_filters(filters, &at.field("listener_filters"));
    let takes_original_dst =
        use_original_dst || listener_filters.as_ref().is_some_and(|filters| filters.original_dst);
    if bind_to_port && !takes_original_dst {
        let _: Option<()> = at
            .field("bind_to_port")
            .refuse("is not supported: only virtualOutbound and virtualInbound have a socket of their own");
    }
    let listener_filters_timeout = timeout(
        listener_filters_timeout,
        Some(DEFAULT_LISTENER_FILTERS_TIMEOUT),
        &at.field("listener_filters_timeout"),
    );
    let at_chains = at.field("filter_chains");
    let filter_chains = at_chains.each(filter_chains, |chain, at| filter_chain(chain, at).map(Into::into));
    let default_filter_chain = match default_filter_chain {
        None => Some(None),
        Some(chain) => {
            filter_chain(chain, &at.field("default_filter_chain")).map(|chain| Some(Arc::new(chain)))
        }
    };
    let filter_chains: Vec<Arc<FilterChain>> = filter_chains?;
    for (i, chain) in filter_chains.iter().enumerate() {
        let earlier = filter_chains
            .iter()
            .take(i)
            .position(|other| other.filter_chain_match == chain.filter_chain_match);
        if let Some(earlier) = earlier {
            let reason = format!("is the same as filter_chains[{earlier}].filter_chain_match");
            let _: Option<()> = at_chains.index(i).field("filter_chain_match").refuse(reason);
        }
    }
    if direction != Some(TrafficDirection::Inbound) {
        refuse_policies(&filter_chains, default_filter_chain.as_ref().and_then(Option::as_deref), at);
    }
    Some(Listener {
        name,
        addresses: std::iter::once(first?).chain(others?).collect(),
        bind_to_port,
        use_original_dst,
        direction: direction?,
        listener_filters: listener_filters?,
        listener_filters_timeout: listener_filters_timeout?,
        continue_on_listener_filters_timeout,
        filter_chains,
        default_filter_chain: default_filter_chain?,
        unmatched_logs: unmatched_logs?,
    })
}

/// istiod puts policies where connections come in.
fn refuse_policies(chains: &[Arc<FilterChain>], default: Option<&FilterChain>, at: &At<'_>) {
    let indexed = chains.iter().enumerate().map(|(i, chain)| (at.field("filter_chains").index(i), &**chain));
    let default = default.map(|chain| (at.field("default_filter_chain"), chain));
    for (at, _) in indexed.chain(default).filter(|(_, chain)| chain.enforces_policy()) {
        let _: Option<()> = at.field("filters").refuse(
            "has a filter of RBAC, JWT or ext_authz, which is supported for traffic_direction INBOUND alone",
        );
    }
}

fn direction(value: i32, at: &At<'_>) -> Option<TrafficDirection> {
    match ProtoDirection::try_from(value) {
        Ok(ProtoDirection::Unspecified) => Some(TrafficDirection::Unspecified),
        Ok(ProtoDirection::Inbound) => Some(TrafficDirection::Inbound),
        Ok(ProtoDirection::Outbound) => Some(TrafficDirection::Outbound),
        Err(_) => at.refuse("is unknown"),
    }
}

fn additional_address(value: AdditionalAddress, at: &At<'_>) -> Option<std::net::SocketAddr> {
    let AdditionalAddress { address, socket_options, tcp_keepalive } = value;
    refuse_set!(at; socket_options, tcp_keepalive);
    let at = at.field("address");
    at.required(address).and_then(|address| socket_addr(address, &at))
}

/// istiod's logs of connections that match no filter chain (`NR`). A listener's log of all connections is not kept.
fn unmatched_logs(logs: Vec<ProtoLog>, at: &At<'_>) -> Option<Vec<AccessLog>> {
    let logs = access_logs(logs, at)?;
    let all = logs.iter().any(|log| log.only_flags.as_deref().is_none_or(|flags| flags != ["NR"]));
    if all { at.refuse("is supported for the response flag NR alone") } else { Some(logs) }
}

/// What can still be said of a listener that was refused.
pub(crate) fn refused_listener(bytes: &[u8]) -> Option<RefusedListener> {
    let value = Proto::decode(bytes).ok()?;
    let findings = RefCell::default();
    let at = At::root(&findings);
    let additional = value.additional_addresses.into_iter().filter_map(|additional| additional.address);
    let addresses = value.address.into_iter().chain(additional);
    Some(RefusedListener {
        addresses: addresses.filter_map(|address| socket_addr(address, &at)).collect(),
        takes_original_dst: value.use_original_dst.is_some_and(|flag| flag.value)
            || value
                .listener_filters
                .iter()
                .any(|filter| filter.name == "envoy.filters.listener.original_dst"),
        direction: direction(value.traffic_direction, &at).unwrap_or(TrafficDirection::Unspecified),
    })
}
