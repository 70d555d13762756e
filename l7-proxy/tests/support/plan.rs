//! Plans as istiod's resources compile to, with defaults for what a test does not care about.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use orlop_plan::proxy::{ClusterPlan, ProxyPlan};
use orlop_plan::resource::cluster::{
    CircuitBreakers, Cluster, ClusterDiscovery, LbPolicy, ServerNameSource, ToldOfPeers, UpstreamProtocol,
    UpstreamTransportSocket,
};
use orlop_plan::resource::endpoint::{
    ClusterLoadAssignment, HealthStatus, LbEndpoint, Locality, LocalityLbEndpoints,
};
use orlop_plan::resource::listener::{
    DownstreamTransportSocket, FilterChain, FilterChainMatch, Listener, ListenerFilters, TerminalFilter,
    TrafficDirection, TransportProtocol,
};
use orlop_plan::resource::tcp_proxy::{TcpClusterSpecifier, TcpProxy};
use orlop_shared_map::Pool;

/// Builds a [`ProxyPlan`].
#[derive(Default)]
pub struct Plan(ProxyPlan);

impl Plan {
    pub fn new() -> Self {
        Self::default()
    }

    /// A listener for one address and port.
    pub fn outbound(mut self, at: &str, listener: Listener) -> Self {
        let at: SocketAddr = at.parse().unwrap();
        self.0.outbound.exact.insert(&mut Pool::new(), (at.ip(), at.port()), Arc::new(listener));
        self
    }

    pub fn virtual_outbound(mut self, listener: Listener) -> Self {
        self.0.outbound.default = Some(Arc::new(listener));
        self
    }

    pub fn virtual_inbound(mut self, listener: Listener) -> Self {
        self.0.inbound = Some(Arc::new(listener));
        self
    }

    pub fn cluster(self, cluster: Cluster) -> Self {
        self.cluster_with(cluster, &[])
    }

    pub fn cluster_at(self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let endpoints: Vec<_> = endpoints.iter().copied().map(endpoint).collect();
        self.cluster_with(eds(name), &endpoints)
    }

    pub fn cluster_with(mut self, cluster: Cluster, endpoints: &[LbEndpoint]) -> Self {
        let load_assignment = matches!(cluster.discovery, ClusterDiscovery::Eds { .. }).then(|| {
            Arc::new(ClusterLoadAssignment {
                cluster_name: Arc::clone(&cluster.name),
                localities: vec![LocalityLbEndpoints {
                    locality: Locality::default(),
                    weight: None,
                    priority: 0,
                    endpoints: endpoints.to_vec(),
                }],
                overprovisioning_factor: 140,
            })
        });
        let name = Arc::clone(&cluster.name);
        let plan = Arc::new(ClusterPlan::new(Arc::new(cluster), load_assignment));
        self.0.clusters.insert(&mut Pool::new(), name, plan);
        self
    }

    pub fn build(self) -> ProxyPlan {
        self.0
    }
}

pub fn endpoint(address: SocketAddr) -> LbEndpoint {
    LbEndpoint { address, health: HealthStatus::Healthy, weight: 1, about: Arc::default() }
}

pub fn eds(name: &str) -> Cluster {
    Cluster {
        name: name.into(),
        discovery: ClusterDiscovery::Eds { service_name: name.into() },
        // Envoy's; a busy machine loses a SYN, and the next comes after a second.
        connect_timeout: Duration::from_secs(5),
        lb_policy: LbPolicy::RoundRobin,
        protocol: UpstreamProtocol::Http1,
        transport_socket: UpstreamTransportSocket::RawBuffer,
        server_name: ServerNameSource::Context,
        alpn_override: true,
        circuit_breakers: CircuitBreakers {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
        },
        outlier_detection: None,
        idle_timeout: None,
        max_requests_per_connection: None,
        tcp_keepalive: None,
        slow_start: None,
        healthy_panic_threshold: 50,
        locality_weighted: false,
        service: None,
        told_of_peers: ToldOfPeers::Always,
    }
}

pub fn original_dst(name: &str) -> Cluster {
    Cluster {
        discovery: ClusterDiscovery::OriginalDst { use_http_header: false, port_override: None },
        lb_policy: LbPolicy::ClusterProvided,
        ..eds(name)
    }
}

/// A listener with these chains and no default.
pub fn listener(chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: "listener".to_owned(),
        addresses: Vec::new(),
        bind_to_port: false,
        use_original_dst: false,
        direction: TrafficDirection::Outbound,
        listener_filters: ListenerFilters {
            tls_inspector: true,
            http_inspector: true,
            ..ListenerFilters::default()
        },
        listener_filters_timeout: None,
        continue_on_listener_filters_timeout: false,
        filter_chains: chains.into_iter().map(Arc::new).collect(),
        default_filter_chain: None,
        unmatched_logs: Vec::new(),
    }
}

/// A listener that takes every connection to one cluster, without sniffing.
pub fn tcp_listener(cluster: &str) -> Listener {
    listener(vec![tcp_chain(cluster)])
}

/// A chain for every connection, to one cluster.
pub fn tcp_chain(cluster: &str) -> FilterChain {
    chain(tcp_proxy(TcpClusterSpecifier::Cluster(cluster.into())))
}

pub fn chain(tcp_proxy: TcpProxy) -> FilterChain {
    FilterChain {
        name: String::new(),
        filter_chain_match: FilterChainMatch::default(),
        transport_socket: DownstreamTransportSocket::RawBuffer,
        transport_socket_connect_timeout: None,
        filters: Vec::new(),
        terminal: TerminalFilter::TcpProxy(Arc::new(tcp_proxy)),
    }
}

pub fn tcp_proxy(cluster: TcpClusterSpecifier) -> TcpProxy {
    TcpProxy {
        cluster,
        idle_timeout: None,
        max_connect_attempts: 1,
        max_downstream_connection_duration: None,
        hash_source_ip: false,
        access_logs: Vec::new(),
    }
}

/// What narrows a chain.
pub trait Matching {
    fn on_port(self, port: u16) -> Self;
    fn on_transport(self, transport: TransportProtocol) -> Self;
    fn on_protocols(self, protocols: &[&str]) -> Self;
    fn on_server_name(self, name: &str) -> Self;
}

impl Matching for FilterChain {
    fn on_port(mut self, port: u16) -> Self {
        self.filter_chain_match.destination_port = Some(port);
        self
    }

    fn on_transport(mut self, transport: TransportProtocol) -> Self {
        self.filter_chain_match.transport_protocol = Some(transport);
        self
    }

    fn on_protocols(mut self, protocols: &[&str]) -> Self {
        self.filter_chain_match.application_protocols = protocols.iter().map(ToString::to_string).collect();
        self
    }

    fn on_server_name(mut self, name: &str) -> Self {
        self.filter_chain_match.server_names = vec![name.to_owned()];
        self
    }
}
