//! Protobuf resources in the form that istiod writes, for tests to vary.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, LbPolicy,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ConfigSource, Metadata, SocketAddress, TrafficDirection, address,
    config_source, socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, Struct, UInt32Value, Value, value::Kind};
use orlop_plan::compile::{Plans, WorkloadFacts};
use orlop_plan::resource::ResourceError;
use orlop_plan::resource::secret::Secret;
use orlop_plan::snapshot::{Changes, Interner, Outcome, Resource, ResourceType, Snapshot};
use prost::{Message, Name};

/// One workload's snapshot.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) interner: Interner,
    pub(crate) facts: WorkloadFacts,
    /// Since the last time that plans were made.
    pub(crate) changes: Changes,
}

impl World {
    /// Delivers resources of one kind, and removes others.
    pub(crate) fn deliver<M: Message + Name>(
        &mut self,
        resources: &[(&str, M)],
        removed: &[&str],
    ) -> Outcome {
        let kind = ResourceType::from_type_url(&M::type_url()).unwrap();
        let upserts = resources.iter().map(|(name, message)| Resource {
            name: (*name).to_owned(),
            version: "1".to_owned(),
            body: any(message),
        });
        let removed: Vec<_> = removed.iter().map(|name| (*name).to_owned()).collect();
        self.apply(kind, &upserts.collect::<Vec<_>>(), &removed)
    }

    pub(crate) fn apply(&mut self, kind: ResourceType, upserts: &[Resource], removed: &[String]) -> Outcome {
        let outcome = self.snapshot.apply(&mut self.interner, kind, upserts, removed, SystemTime::UNIX_EPOCH);
        self.changes.merge(outcome.changes.clone());
        outcome
    }

    pub(crate) fn clusters(&mut self, clusters: &[Cluster]) -> Outcome {
        let named: Vec<_> = clusters.iter().map(|cluster| (cluster.name.as_str(), cluster.clone())).collect();
        self.deliver(&named, &[])
    }

    pub(crate) fn endpoints(&mut self, assignments: &[ClusterLoadAssignment]) -> Outcome {
        let named: Vec<_> = assignments.iter().map(|one| (one.cluster_name.as_str(), one.clone())).collect();
        self.deliver(&named, &[])
    }

    pub(crate) fn listeners(&mut self, listeners: &[Listener]) -> Outcome {
        let named: Vec<_> =
            listeners.iter().map(|listener| (listener.name.as_str(), listener.clone())).collect();
        self.deliver(&named, &[])
    }

    pub(crate) fn routes(&mut self, routes: &[RouteConfiguration]) -> Outcome {
        let named: Vec<_> = routes.iter().map(|routes| (routes.name.as_str(), routes.clone())).collect();
        self.deliver(&named, &[])
    }

    /// The node has a secret for the workload.
    pub(crate) fn provide(&mut self, secret: &Arc<Secret>) {
        self.changes.merge(self.snapshot.provide(Arc::clone(secret)));
    }

    /// The plans that follow `previous`, or the first ones.
    pub(crate) fn compile(&mut self, previous: Option<&Plans>) -> Plans {
        let since = std::mem::take(&mut self.changes);
        let (mut plans, changes) = match previous {
            Some(previous) => (previous.clone(), since),
            None => (Plans::new(self.facts.clone()), Changes::all(&self.snapshot)),
        };
        plans.update(&mut self.interner, &self.snapshot, &changes);
        plans
    }
}

/// The one error of a resource that must be refused.
pub(crate) fn refusal<M: Message + Name>(name: &str, message: M) -> ResourceError {
    let outcome = World::default().deliver(&[(name, message)], &[]);
    assert_eq!(outcome.errors.len(), 1, "it is refused");
    outcome.errors.into_iter().next().unwrap()
}

pub(crate) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(crate) fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

pub(crate) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(crate) fn flag(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(crate) fn address(text: &str) -> Option<Address> {
    let parsed: SocketAddr = text.parse().unwrap();
    Some(Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: parsed.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(parsed.port().into())),
            ..SocketAddress::default()
        })),
    })
}

pub(crate) fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    })
}

/// A cluster as istiod writes one: no limit, no panic.
pub(crate) fn cluster(name: &str, kind: DiscoveryType) -> Cluster {
    let passthrough = kind == DiscoveryType::OriginalDst;
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        connect_timeout: seconds(10),
        lb_policy: if passthrough { LbPolicy::ClusterProvided } else { LbPolicy::LeastRequest }.into(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: number(u32::MAX),
                max_pending_requests: number(u32::MAX),
                max_requests: number(u32::MAX),
                max_retries: number(u32::MAX),
                ..Thresholds::default()
            }],
            ..CircuitBreakers::default()
        }),
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent::default()),
            ..CommonLbConfig::default()
        }),
        ..Cluster::default()
    }
}

pub(crate) fn eds_cluster(name: &str) -> Cluster {
    cluster(name, DiscoveryType::Eds)
}

pub(crate) fn passthrough_cluster() -> Cluster {
    cluster("PassthroughCluster", DiscoveryType::OriginalDst)
}

pub(crate) fn endpoint(address_text: &str) -> LbEndpoint {
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: address(address_text),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

/// An endpoint that expects mutual TLS.
pub(crate) fn mtls_endpoint(address_text: &str) -> LbEndpoint {
    let mode = Value { kind: Some(Kind::StringValue("istio".to_owned())) };
    let pair = Struct { fields: [("tlsMode".to_owned(), mode)].into() };
    LbEndpoint {
        metadata: Some(Metadata {
            filter_metadata: [("envoy.transport_socket_match".to_owned(), pair)].into(),
            ..Metadata::default()
        }),
        ..endpoint(address_text)
    }
}

pub(crate) fn locality(endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    LocalityLbEndpoints { lb_endpoints: endpoints, ..LocalityLbEndpoints::default() }
}

pub(crate) fn assignment(name: &str, localities: Vec<LocalityLbEndpoints>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: localities,
        ..ClusterLoadAssignment::default()
    }
}

pub(crate) fn prefix(prefix: &str) -> RouteMatch {
    RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix(prefix.to_owned())),
        ..RouteMatch::default()
    }
}

pub(crate) fn action_to(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: seconds(0),
        ..RouteAction::default()
    }
}

/// A route for everything that asks for nothing.
pub(crate) fn route_to(cluster: &str) -> Route {
    Route {
        name: "default".to_owned(),
        r#match: Some(prefix("/")),
        action: Some(route::Action::Route(action_to(cluster))),
        ..Route::default()
    }
}

pub(crate) fn virtual_host(name: &str, domains: &[&str], routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: name.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        routes,
        ..VirtualHost::default()
    }
}

pub(crate) fn route_configuration(name: &str, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

pub(crate) fn tcp_proxy(cluster: &str) -> Filter {
    network_filter(
        "envoy.filters.network.tcp_proxy",
        &TcpProxy {
            stat_prefix: cluster.to_owned(),
            cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
            ..TcpProxy::default()
        },
    )
}

pub(crate) fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..HttpFilter::default()
    }
}

pub(crate) fn manager(rds: &str) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".to_owned(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(Rds {
            config_source: ads(),
            route_config_name: rds.to_owned(),
        })),
        http_filters: vec![router()],
        ..HttpConnectionManager::default()
    }
}

pub(crate) fn http(manager: &HttpConnectionManager) -> Filter {
    network_filter("envoy.filters.network.http_connection_manager", manager)
}

pub(crate) fn network_filter<M: Message + Name>(name: &str, message: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(message))) }
}

pub(crate) fn chain(filters: Vec<Filter>) -> FilterChain {
    FilterChain { filters, ..FilterChain::default() }
}

/// A chain for what the HTTP inspector finds to be HTTP.
pub(crate) fn http_chain(manager: &HttpConnectionManager) -> FilterChain {
    FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            transport_protocol: "raw_buffer".to_owned(),
            application_protocols: vec!["http/1.1".to_owned(), "h2c".to_owned()],
            ..FilterChainMatch::default()
        }),
        ..chain(vec![http(manager)])
    }
}

pub(crate) fn listener(name: &str, address_text: &str, chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.to_owned(),
        address: address(address_text),
        filter_chains: chains,
        bind_to_port: flag(false),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    }
}

/// `0.0.0.0_<port>`: HTTP by the routes named after the port, anything else to where it was going.
pub(crate) fn http_listener(port: u16) -> Listener {
    Listener {
        default_filter_chain: Some(chain(vec![tcp_proxy("PassthroughCluster")])),
        ..listener(
            &format!("0.0.0.0_{port}"),
            &format!("0.0.0.0:{port}"),
            vec![http_chain(&manager(&port.to_string()))],
        )
    }
}
