//! `listener.v3.Listener` and the choice of a filter chain.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::access_log::AccessLog;
use super::http_connection_manager::HttpConnectionManager;
use super::rbac::Rbac;
use super::tcp_proxy::TcpProxy;
use super::telemetry::IstioStats;
use super::tls::DownstreamTlsContext;

/// `Listener`.
#[derive(Debug)]
pub struct Listener {
    /// The name that LDS knows it by.
    pub name: String,
    /// `address` and `additional_addresses`.
    pub addresses: Vec<SocketAddr>,
    /// `bind_to_port`: false for the listeners that virtualOutbound hands connections to.
    pub bind_to_port: bool,
    /// `use_original_dst`: true for virtualOutbound; virtualInbound has a listener filter for it.
    pub use_original_dst: bool,
    /// `traffic_direction`.
    pub direction: TrafficDirection,
    /// What is looked at before a chain is chosen.
    pub listener_filters: ListenerFilters,
    /// `listener_filters_timeout`: `None` waits for ever (an explicit 0); Envoy's default is 15 s.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`: what is known by then decides, instead of closing.
    pub continue_on_listener_filters_timeout: bool,
    /// Matched as Envoy documents `FilterChainMatch`: most specific criterion first, in its fixed order.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Where no chain matches; otherwise the connection is closed.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// `access_log`: of connections that no chain takes.
    pub unmatched_logs: Vec<AccessLog>,
}

impl Listener {
    /// Whether it takes connections by their original destination, as virtualOutbound and virtualInbound do.
    pub fn takes_original_dst(&self) -> bool {
        self.use_original_dst || self.listener_filters.original_dst
    }
}

/// `core.v3.TrafficDirection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficDirection {
    /// Not said.
    Unspecified,
    /// Towards the pod.
    Inbound,
    /// From the pod.
    Outbound,
}

/// The listener filters that are understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListenerFilters {
    /// `envoy.filters.listener.original_dst`
    pub original_dst: bool,
    /// `envoy.filters.listener.tls_inspector`
    pub tls_inspector: bool,
    /// `envoy.filters.listener.http_inspector`
    pub http_inspector: bool,
    /// Destination ports for which the TLS inspector does not look (`filter_disabled`).
    pub tls_inspector_off: PortRanges,
    /// Destination ports for which the HTTP inspector does not look (`filter_disabled`).
    pub http_inspector_off: PortRanges,
}

impl ListenerFilters {
    /// Whether the first bytes of a connection to this port are looked at for TLS.
    pub fn inspects_tls(&self, destination_port: u16) -> bool {
        self.tls_inspector && !self.tls_inspector_off.contains(destination_port)
    }

    /// Whether the first bytes of a connection to this port are looked at for HTTP.
    pub fn inspects_http(&self, destination_port: u16) -> bool {
        self.http_inspector && !self.http_inspector_off.contains(destination_port)
    }
}

/// A set of ports as ascending ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortRanges(Vec<RangeInclusive<u16>>);

impl PortRanges {
    /// The ports for which `holds` is true.
    pub fn where_true(holds: impl Fn(u16) -> bool) -> Self {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for port in (0..=u16::MAX).filter(|port| holds(*port)) {
            match ranges.last_mut() {
                Some(last) if *last.end() + 1 == port => *last = *last.start()..=port,
                _ => ranges.push(port..=port),
            }
        }
        Self(ranges)
    }

    /// Whether a port is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

/// `FilterChain`.
#[derive(Debug)]
pub struct FilterChain {
    /// For `explain`; may be empty.
    pub name: String,
    /// Which connections it takes.
    pub filter_chain_match: FilterChainMatch,
    /// Plaintext or TLS.
    pub transport_socket: DownstreamTransportSocket,
    /// `transport_socket_connect_timeout`: how long a handshake may take; `None` is for ever, Envoy's default.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// Network filters before the last.
    pub filters: Vec<NetworkFilter>,
    /// The last network filter.
    pub terminal: TerminalFilter,
}

impl FilterChain {
    /// What the RBAC filters of its connections enforce, in order.
    pub fn network_rbac(&self) -> impl Iterator<Item = &Rbac> {
        self.filters.iter().filter_map(|filter| match filter {
            NetworkFilter::Rbac(rbac) => Some(&**rbac),
            NetworkFilter::MetadataExchange | NetworkFilter::Stats(_) => None,
        })
    }

    /// What its filter `istio.stats` for connections is told; `None` without.
    pub fn stats(&self) -> Option<&Arc<IstioStats>> {
        self.filters.iter().find_map(|filter| match filter {
            NetworkFilter::Stats(stats) => Some(stats),
            NetworkFilter::Rbac(_) | NetworkFilter::MetadataExchange => None,
        })
    }

    /// Whether it says who is let in.
    pub fn enforces_policy(&self) -> bool {
        self.network_rbac().next().is_some()
            || matches!(&self.terminal, TerminalFilter::HttpConnectionManager(manager) if manager.enforces_policy())
    }

    /// What all its RBAC filters enforce, in order: those of its connections, then those of its requests.
    pub fn rbac(&self) -> impl Iterator<Item = &Rbac> {
        let manager = match &self.terminal {
            TerminalFilter::HttpConnectionManager(manager) => Some(manager),
            TerminalFilter::TcpProxy(_) => None,
        };
        self.network_rbac().chain(manager.into_iter().flat_map(|manager| manager.rbac()))
    }
}

/// `FilterChainMatch`; empty lists match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// `destination_port`.
    pub destination_port: Option<u16>,
    /// `prefix_ranges` of the original destination.
    pub prefix_ranges: Vec<IpNet>,
    /// `server_names`: SNI, `*.` suffixes allowed.
    pub server_names: Vec<String>,
    /// `transport_protocol`.
    pub transport_protocol: Option<TransportProtocol>,
    /// `application_protocols`: ALPN, or what the inspector found (`http/1.0`, `http/1.1`, `h2c`).
    pub application_protocols: Vec<String>,
    /// `direct_source_prefix_ranges`.
    pub direct_source_prefix_ranges: Vec<IpNet>,
    /// `source_type`: `SAME_IP_OR_LOOPBACK` (true) or EXTERNAL (false); `None` is any.
    pub source_local: Option<bool>,
    /// `source_prefix_ranges`.
    pub source_prefix_ranges: Vec<IpNet>,
    /// `source_ports`.
    pub source_ports: Vec<u16>,
}

/// `transport_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// `tls`
    Tls,
    /// `raw_buffer`
    RawBuffer,
}

/// The transport socket of a filter chain.
#[derive(Debug, Clone, PartialEq)]
pub enum DownstreamTransportSocket {
    /// Plaintext.
    RawBuffer,
    /// TLS is terminated. Connections are refused while a secret of it is not there.
    Tls(Arc<DownstreamTlsContext>),
}

/// Network filters before the terminal one. Anything else is refused when the listener is validated.
#[derive(Debug, Clone)]
pub enum NetworkFilter {
    /// `envoy.filters.network.rbac` that enforces something.
    Rbac(Arc<Rbac>),
    /// `istio.metadata_exchange`: only with the ALPN `istio-peer-exchange`, which is neither offered nor chosen.
    MetadataExchange,
    /// `istio.stats`: Istio's metrics of connections.
    Stats(Arc<IstioStats>),
}

/// The filter that ends a chain.
#[derive(Debug, Clone)]
pub enum TerminalFilter {
    /// `envoy.filters.network.http_connection_manager`
    HttpConnectionManager(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`
    TcpProxy(Arc<TcpProxy>),
}
