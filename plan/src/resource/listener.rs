//! `listener.v3.Listener` and the choice of a filter chain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::http_connection_manager::HttpConnectionManager;
use super::tcp_proxy::TcpProxy;

/// `Listener`.
#[derive(Debug)]
pub struct Listener {
    /// The name that LDS knows it by.
    pub name: String,
    /// `address` and `additional_addresses`.
    pub addresses: Vec<SocketAddr>,
    /// `bind_to_port`: false for the listeners that virtualOutbound hands connections to.
    pub bind_to_port: bool,
    /// `use_original_dst`: true for virtualOutbound and virtualInbound.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListenerFilters {
    /// `envoy.filters.listener.original_dst`
    pub original_dst: bool,
    /// `envoy.filters.listener.tls_inspector`
    pub tls_inspector: bool,
    /// `envoy.filters.listener.http_inspector`
    pub http_inspector: bool,
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
    /// Network filters before the last.
    pub filters: Vec<NetworkFilter>,
    /// The last network filter.
    pub terminal: TerminalFilter,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownstreamTransportSocket {
    /// Plaintext.
    RawBuffer,
    /// TLS is to be terminated. A connection that is matched to such a chain is refused until the node holds identities.
    Tls,
}

/// Network filters before the terminal one. Anything else is refused when the listener is validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkFilter {
    /// `istio.metadata_exchange`: only with the ALPN `istio-peer-exchange`, hence never on plaintext.
    MetadataExchange,
    /// `istio.stats` in its default form.
    Stats,
}

/// The filter that ends a chain.
#[derive(Debug, Clone)]
pub enum TerminalFilter {
    /// `envoy.filters.network.http_connection_manager`
    HttpConnectionManager(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`
    TcpProxy(Arc<TcpProxy>),
}
