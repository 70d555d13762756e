//! The configuration of a large mesh, generated as istiod would send it: half of the services carry HTTP and share one
//! listener and one route configuration, half carry anything and have a listener each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::cluster::v3::{self as cluster, Cluster, circuit_breakers};
use envoy_types::pb::envoy::config::core::v3::{
    self as core, Address, AggregatedConfigSource, ConfigSource, SocketAddress, TrafficDirection,
    config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    self as endpoint, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::{
    self as listener, Filter, FilterChain, Listener, ListenerFilter,
};
use envoy_types::pb::envoy::config::route::v3::{
    self as route, RouteConfiguration, VirtualHost, route_match::PathSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    self as http, HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{self as tcp_proxy, TcpProxy};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use prost::Name;

/// HTTP services listen on it.
const HTTP_PORT: u16 = 8080;
/// The others.
const TCP_PORT: u16 = 9000;
const PASSTHROUGH: &str = "PassthroughCluster";
/// The first virtual address; the others follow.
const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);
/// The first endpoint's address; the others follow.
const FIRST_ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 120, 0, 1);

/// A resource with its name.
pub(super) type Named = (String, Any);

/// All resources by type, in the order CDS, EDS, LDS, RDS.
pub(super) struct Mesh {
    pub(super) clusters: Vec<Named>,
    pub(super) load_assignments: Vec<Named>,
    pub(super) listeners: Vec<Named>,
    pub(super) routes: Vec<Named>,
}

/// The service whose endpoint the bench changes: one of the TCP ones, with that endpoint alone.
pub(super) const PROBED: SocketAddr = SocketAddr::new(IpAddr::V4(FIRST_VIP), TCP_PORT);
const PROBED_CLUSTER: &str = "outbound|9000||service-0.default.svc.cluster.local";

/// `services` services with `endpoints` endpoints each; the probed one among them has only `probed`.
pub(super) fn mesh(services: u32, endpoints: u32, probed: SocketAddr) -> Mesh {
    let all: Vec<Service> = (0..services).map(Service).collect();
    let (tcp, http): (Vec<Service>, Vec<Service>) = all.iter().partition(|service| service.is_tcp());
    Mesh {
        clusters: all.iter().map(|service| service.cluster()).chain([passthrough()]).collect(),
        load_assignments: all
            .iter()
            .map(
                |service| {
                    if service.0 == 0 { probed_assignment(probed) } else { service.assignment(endpoints) }
                },
            )
            .collect(),
        listeners: tcp
            .iter()
            .map(|service| service.listener())
            .chain([http_listener(), virtual_outbound()])
            .collect(),
        routes: vec![route_configuration(&http)],
    }
}

/// The load assignment of the probed service.
pub(super) fn probed_assignment(endpoint: SocketAddr) -> Named {
    load_assignment(PROBED_CLUSTER, [endpoint])
}

#[derive(Debug, Clone, Copy)]
struct Service(u32);

impl Service {
    fn is_tcp(self) -> bool {
        self.0.is_multiple_of(2)
    }

    fn host(self) -> String {
        format!("service-{}.default.svc.cluster.local", self.0)
    }

    fn port(self) -> u16 {
        if self.is_tcp() { TCP_PORT } else { HTTP_PORT }
    }

    fn vip(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_VIP.to_bits() + self.0)
    }

    fn cluster_name(self) -> String {
        format!("outbound|{}||{}", self.port(), self.host())
    }

    fn cluster(self) -> Named {
        let no_limit = || Some(UInt32Value { value: u32::MAX });
        let cluster = Cluster {
            name: self.cluster_name(),
            cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
                cluster::cluster::DiscoveryType::Eds.into(),
            )),
            eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: self.cluster_name(),
            }),
            connect_timeout: Some(Duration { seconds: 10, nanos: 0 }),
            lb_policy: cluster::cluster::LbPolicy::LeastRequest.into(),
            circuit_breakers: Some(cluster::CircuitBreakers {
                thresholds: vec![circuit_breakers::Thresholds {
                    max_connections: no_limit(),
                    max_pending_requests: no_limit(),
                    max_requests: no_limit(),
                    max_retries: no_limit(),
                    ..circuit_breakers::Thresholds::default()
                }],
                ..cluster::CircuitBreakers::default()
            }),
            ..Cluster::default()
        };
        named(cluster.name.clone(), &cluster)
    }

    fn assignment(self, endpoints: u32) -> Named {
        let first = FIRST_ENDPOINT.to_bits() + self.0 * endpoints;
        let addresses = (first..first + endpoints).map(|bits| (Ipv4Addr::from_bits(bits), 8080).into());
        load_assignment(&self.cluster_name(), addresses)
    }

    fn listener(self) -> Named {
        let proxy = TcpProxy {
            stat_prefix: self.cluster_name(),
            cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(self.cluster_name())),
            ..TcpProxy::default()
        };
        outbound_listener(
            &format!("{}_{}", self.vip(), TCP_PORT),
            self.vip(),
            TCP_PORT,
            "envoy.filters.network.tcp_proxy",
            &proxy,
        )
    }

    fn virtual_host(self) -> VirtualHost {
        let port = self.port();
        let host = self.host();
        VirtualHost {
            name: format!("{host}:{port}"),
            domains: vec![host, format!("service-{}.default", self.0), self.vip().to_string()],
            routes: vec![route_to(&self.cluster_name())],
            include_request_attempt_count: true,
            ..VirtualHost::default()
        }
    }
}

fn route_to(cluster: &str) -> route::Route {
    route::Route {
        name: "default".to_owned(),
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..route::RouteMatch::default()
        }),
        action: Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
            timeout: Some(Duration::default()),
            ..route::RouteAction::default()
        })),
        ..route::Route::default()
    }
}

fn route_configuration(services: &[Service]) -> Named {
    let any = VirtualHost {
        name: "allow_any".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route_to(PASSTHROUGH)],
        ..VirtualHost::default()
    };
    let routes = RouteConfiguration {
        name: HTTP_PORT.to_string(),
        virtual_hosts: services.iter().map(|service| service.virtual_host()).chain([any]).collect(),
        validate_clusters: Some(BoolValue { value: false }),
        ..RouteConfiguration::default()
    };
    named(routes.name.clone(), &routes)
}

fn http_listener() -> Named {
    let manager = HttpConnectionManager {
        stat_prefix: format!("outbound_0.0.0.0_{HTTP_PORT}"),
        route_specifier: Some(RouteSpecifier::Rds(http::Rds {
            config_source: Some(ads()),
            route_config_name: HTTP_PORT.to_string(),
        })),
        http_filters: vec![http::HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http::http_filter::ConfigType::TypedConfig(any(&Router::default()))),
            ..http::HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    };
    let name = format!("0.0.0.0_{HTTP_PORT}");
    let filter = "envoy.filters.network.http_connection_manager";
    outbound_listener(&name, Ipv4Addr::UNSPECIFIED, HTTP_PORT, filter, &manager)
}

fn virtual_outbound() -> Named {
    let proxy = TcpProxy {
        stat_prefix: PASSTHROUGH.to_owned(),
        cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(PASSTHROUGH.to_owned())),
        ..TcpProxy::default()
    };
    let listener = Listener {
        name: "virtualOutbound".to_owned(),
        address: Some(socket_address((Ipv4Addr::UNSPECIFIED, 15001).into())),
        use_original_dst: Some(BoolValue { value: true }),
        traffic_direction: TrafficDirection::Outbound.into(),
        listener_filters: vec![ListenerFilter {
            name: "envoy.filters.listener.original_dst".to_owned(),
            config_type: Some(listener::listener_filter::ConfigType::TypedConfig(any(
                &OriginalDst::default(),
            ))),
            ..ListenerFilter::default()
        }],
        filter_chains: vec![chain("envoy.filters.network.tcp_proxy", &proxy)],
        ..Listener::default()
    };
    named(listener.name.clone(), &listener)
}

fn outbound_listener(name: &str, address: Ipv4Addr, port: u16, filter: &str, config: &impl Name) -> Named {
    let listener = Listener {
        name: name.to_owned(),
        address: Some(socket_address((address, port).into())),
        traffic_direction: TrafficDirection::Outbound.into(),
        bind_to_port: Some(BoolValue { value: false }),
        filter_chains: vec![chain(filter, config)],
        ..Listener::default()
    };
    named(listener.name.clone(), &listener)
}

fn chain(filter: &str, config: &impl Name) -> FilterChain {
    FilterChain {
        filters: vec![Filter {
            name: filter.to_owned(),
            config_type: Some(listener::filter::ConfigType::TypedConfig(any(config))),
        }],
        ..FilterChain::default()
    }
}

fn passthrough() -> Named {
    let cluster = Cluster {
        name: PASSTHROUGH.to_owned(),
        cluster_discovery_type: Some(cluster::cluster::ClusterDiscoveryType::Type(
            cluster::cluster::DiscoveryType::OriginalDst.into(),
        )),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        connect_timeout: Some(Duration { seconds: 10, nanos: 0 }),
        ..Cluster::default()
    };
    named(cluster.name.clone(), &cluster)
}

fn load_assignment(cluster: &str, endpoints: impl IntoIterator<Item = SocketAddr>) -> Named {
    let endpoint = |address| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(socket_address(address)),
            ..endpoint::Endpoint::default()
        })),
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        ..LbEndpoint::default()
    };
    let lb_endpoints: Vec<_> = endpoints.into_iter().map(endpoint).collect();
    let assignment = ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            locality: Some(core::Locality {
                region: "region".to_owned(),
                zone: "zone".to_owned(),
                ..core::Locality::default()
            }),
            load_balancing_weight: u32::try_from(lb_endpoints.len()).ok().map(|value| UInt32Value { value }),
            lb_endpoints,
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    };
    named(cluster.to_owned(), &assignment)
}

fn socket_address(address: SocketAddr) -> Address {
    Address {
        address: Some(core::address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..SocketAddress::default()
        })),
    }
}

fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

fn any<M: Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

fn named<M: Name>(name: String, message: &M) -> Named {
    (name, any(message))
}
