//! Which endpoints the kernel balances over, and with which weights.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::LocalityConfigSpecifier;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{CommonLbConfig, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3::{LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::r#type::v3::Percent;
use orlop_plan::classify::{Destination, Path, Verdict};
use orlop_plan::compile::Plans;
use orlop_plan::kernel::{BackendSet, Choice, Frontend, Group, OutboundAction};

use crate::build::{
    World, assignment, chain, eds_cluster, endpoint, listener, locality, mtls_endpoint, number, tcp_proxy,
};

const FRONTEND: Frontend = Frontend { addr: Some(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1))), port: 9000 };

fn weighted(address: &str, weight: u32) -> LbEndpoint {
    LbEndpoint { load_balancing_weight: number(weight), ..endpoint(address) }
}

fn with_health(address: &str, health: HealthStatus) -> LbEndpoint {
    LbEndpoint { health_status: health.into(), ..endpoint(address) }
}

/// What the kernel is told.
fn set(cluster: Cluster, localities: Vec<LocalityLbEndpoints>) -> Arc<BackendSet> {
    let plans = plans(cluster, localities);
    match plans.kernel().frontends.get(&FRONTEND) {
        Some(OutboundAction::Balance(set)) => Arc::clone(set),
        other => panic!("{other:?}"),
    }
}

fn plans(cluster: Cluster, localities: Vec<LocalityLbEndpoints>) -> Plans {
    let mut world = World::default();
    world.clusters(&[cluster]);
    world.endpoints(&[assignment("a", localities)]);
    world.listeners(&[listener("tcp", "10.96.0.1:9000", vec![chain(vec![tcp_proxy("a")])])]);
    world.compile(None)
}

fn judged(cluster: Cluster, localities: Vec<LocalityLbEndpoints>) -> (Verdict, Vec<(String, u64)>) {
    let plans = plans(cluster, localities);
    let backends = match &plans.kernel().frontends.get(&FRONTEND) {
        Some(OutboundAction::Balance(set)) => {
            set.backends.iter().map(|backend| (backend.address.to_string(), backend.weight)).collect()
        }
        _ => Vec::new(),
    };
    (plans.verdicts()[&Destination::Outbound(FRONTEND)].clone(), backends)
}

fn locality_weighted() -> Cluster {
    Cluster {
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent::default()),
            locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(
                envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::LocalityWeightedLbConfig {},
            )),
            ..CommonLbConfig::default()
        }),
        ..round_robin()
    }
}

fn round_robin() -> Cluster {
    Cluster { lb_policy: LbPolicy::RoundRobin.into(), ..eds_cluster("a") }
}

fn of_weight(weight: u32, endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    LocalityLbEndpoints { load_balancing_weight: number(weight), ..locality(endpoints) }
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(address, weight)| ((*address).to_owned(), *weight)).collect()
}

#[test]
fn endpoints_have_their_own_weights() {
    let localities = vec![
        of_weight(7, vec![weighted("10.0.0.1:1", 1), weighted("10.0.0.2:1", 3)]),
        of_weight(9, vec![weighted("10.0.0.3:1", 2)]),
    ];
    let (verdict, backends) = judged(eds_cluster("a"), localities);
    assert_eq!(verdict.path, Path::Kernel);
    assert_eq!(backends, pairs(&[("10.0.0.1:1", 1), ("10.0.0.2:1", 3), ("10.0.0.3:1", 2)]));
}

#[test]
fn locality_weights_are_multiplied_out_exactly() {
    // A: 1/3, shared 1:1; B: 2/3, shared 1:2. In twelfths: 1/6, 1/6, 2/9, 4/9 = 3:3:4:8.
    let localities = vec![
        of_weight(1, vec![weighted("10.0.0.1:1", 5), weighted("10.0.0.2:1", 5)]),
        of_weight(2, vec![weighted("10.0.0.3:1", 1), weighted("10.0.0.4:1", 2)]),
        locality(vec![endpoint("10.0.0.5:1")]),
    ];
    let (verdict, backends) = judged(locality_weighted(), localities);
    assert_eq!(verdict.path, Path::Kernel);
    assert_eq!(
        backends,
        pairs(&[("10.0.0.1:1", 3), ("10.0.0.2:1", 3), ("10.0.0.3:1", 4), ("10.0.0.4:1", 8)])
    );
}

#[test]
fn random_takes_no_notice_of_weights() {
    let random = Cluster { lb_policy: LbPolicy::Random.into(), ..eds_cluster("a") };
    let (_, backends) =
        judged(random, vec![locality(vec![weighted("10.0.0.1:1", 9), endpoint("10.0.0.2:1")])]);
    assert_eq!(backends, pairs(&[("10.0.0.1:1", 1), ("10.0.0.2:1", 1)]));
}

#[test]
fn unfit_endpoints_get_nothing() {
    let endpoints = vec![
        endpoint("10.0.0.1:1"),
        with_health("10.0.0.2:1", HealthStatus::Unhealthy),
        with_health("10.0.0.3:1", HealthStatus::Draining),
    ];
    let (_, backends) = judged(eds_cluster("a"), vec![locality(endpoints)]);
    assert_eq!(backends, pairs(&[("10.0.0.1:1", 1)]));
}

#[test]
fn without_a_fit_endpoint_connections_are_refused_at_once() {
    let sick = vec![locality(vec![with_health("10.0.0.2:1", HealthStatus::Unhealthy)])];
    for localities in [vec![], vec![locality(vec![])], sick] {
        assert_eq!(judged(eds_cluster("a"), localities).0.path, Path::Blocked);
    }
}

#[test]
fn a_priority_that_lacks_healthy_endpoints_shares_with_the_next() {
    // Half of them healthy, times 1.4: 70 of 100 connections stay.
    let first = vec![endpoint("10.0.0.1:1"), with_health("10.0.0.2:1", HealthStatus::Unhealthy)];
    let second = LocalityLbEndpoints { priority: 1, ..locality(vec![endpoint("10.0.0.3:1")]) };
    let (verdict, backends) = judged(round_robin(), vec![locality(first), second]);
    assert_eq!(verdict.path, Path::Kernel);
    assert_eq!(backends, pairs(&[("10.0.0.1:1", 7), ("10.0.0.3:1", 3)]));
}

#[test]
fn below_the_panic_threshold_everybody_is_used_and_draining_endpoints_never_are() {
    let panicking = Cluster { common_lb_config: None, ..eds_cluster("a") };
    let endpoints = vec![
        endpoint("10.0.0.1:1"),
        with_health("10.0.0.2:1", HealthStatus::Unhealthy),
        with_health("10.0.0.3:1", HealthStatus::Unhealthy),
        with_health("10.0.0.4:1", HealthStatus::Draining),
    ];
    let (_, backends) = judged(panicking, vec![locality(endpoints)]);
    assert_eq!(backends, pairs(&[("10.0.0.1:1", 1), ("10.0.0.2:1", 1), ("10.0.0.3:1", 1)]));
}

#[test]
fn least_request_is_told_as_open_connections_within_each_locality() {
    let cluster = Cluster { lb_policy: LbPolicy::LeastRequest.into(), ..locality_weighted() };
    let localities = vec![
        of_weight(3, vec![endpoint("10.0.0.1:1"), endpoint("10.0.0.2:1")]),
        of_weight(1, vec![endpoint("10.0.0.3:1")]),
    ];
    let set = set(cluster, localities);
    let groups = vec![Group { share: 3, backends: 2 }, Group { share: 1, backends: 1 }];
    assert_eq!(set.choice, Choice::LeastConnections { choices: 2, groups });
}

#[test]
fn a_limit_of_connections_is_the_kernels_and_one_of_pending_requests_the_proxys() {
    let limited = |max_connections, max_pending_requests| Cluster {
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: number(max_connections),
                max_pending_requests: number(max_pending_requests),
                max_requests: number(u32::MAX),
                max_retries: number(u32::MAX),
                ..Thresholds::default()
            }],
            ..CircuitBreakers::default()
        }),
        ..eds_cluster("a")
    };
    let localities = || vec![locality(vec![endpoint("10.0.0.1:1")])];
    let limit = set(limited(7, u32::MAX), localities()).limit.clone().unwrap();
    assert_eq!((&*limit.cluster, limit.connections), ("a", 7));
    let (verdict, _) = judged(limited(u32::MAX, 7), localities());
    assert_eq!(
        (verdict.path, verdict.reason.field.to_string().as_str()),
        (Path::TcpProxy, "circuit_breakers")
    );
}

#[test]
fn what_the_kernel_cannot_choose_goes_to_the_proxy() {
    use envoy_types::pb::envoy::config::cluster::v3::cluster::{LbConfig, LeastRequestLbConfig};
    let many = Cluster {
        lb_policy: LbPolicy::LeastRequest.into(),
        lb_config: Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
            choice_count: number(9),
            ..LeastRequestLbConfig::default()
        })),
        ..eds_cluster("a")
    };
    let primes = [u32::MAX - 4, u32::MAX - 16, u32::MAX - 64];
    let inexact = primes
        .map(|weight| of_weight(weight, vec![weighted("10.0.0.1:1", weight - 1), endpoint("10.0.0.2:1")]));
    let cases = [
        (many, vec![locality(vec![endpoint("10.0.0.1:1")])], "least_request_lb_config.choice_count"),
        (locality_weighted(), inexact.to_vec(), "endpoints"),
    ];
    for (cluster, localities, field) in cases {
        let (verdict, _) = judged(cluster, localities);
        assert_eq!((verdict.path, verdict.reason.field.to_string()), (Path::TcpProxy, field.to_owned()));
    }
}

#[test]
fn plaintext_never_goes_where_tls_is_owed() {
    use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
    use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
    use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

    let tls = TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(crate::build::any(
            &UpstreamTlsContext::default(),
        ))),
    };
    let mode = Value { kind: Some(Kind::StringValue("istio".to_owned())) };
    let by_metadata = Cluster {
        transport_socket_matches: vec![TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(Struct { fields: [("tlsMode".to_owned(), mode)].into() }),
            transport_socket: Some(tls.clone()),
        }],
        ..eds_cluster("a")
    };
    let for_all = Cluster { transport_socket: Some(tls), ..eds_cluster("a") };
    let path = |cluster: &Cluster, endpoints: Vec<LbEndpoint>| {
        judged(cluster.clone(), vec![locality(endpoints)]).0.path
    };
    assert_eq!(path(&by_metadata, vec![endpoint("10.0.0.1:1")]), Path::Kernel);
    assert_eq!(path(&by_metadata, vec![mtls_endpoint("10.0.0.1:1")]), Path::Blocked);
    assert_eq!(path(&by_metadata, vec![endpoint("10.0.0.1:1"), mtls_endpoint("10.0.0.2:1")]), Path::TcpProxy);
    assert_eq!(path(&for_all, vec![endpoint("10.0.0.1:1")]), Path::Blocked);
}
