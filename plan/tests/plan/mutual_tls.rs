//! Where TLS is owed or terminated: the proxy's, where the node provides an identity; refused where it does not. Never plaintext.

use envoy_types::pb::envoy::config::core::v3::{TrafficDirection, TransportSocket, transport_socket};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use envoy_types::pb::envoy::config::rbac::v3::principal::{Authenticated, Identifier};
use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, permission};
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, UpstreamTlsContext,
};
use orlop_plan::classify::{Destination, Path};
use orlop_plan::compile::Plans;
use orlop_plan::kernel::{Frontend, InboundAction, OutboundAction, SourceAction};

use crate::build::{
    World, any, assignment, chain, eds_cluster, endpoint, flag, listener, locality, mtls_endpoint,
    network_filter, number, passthrough_cluster, tcp_proxy,
};
use crate::kernel_equals_proxy::tls_by_metadata;

const SERVICE: Frontend =
    Frontend { addr: Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1))), port: 9000 };

fn tls<M: prost::Message + prost::Name>(context: &M) -> Option<TransportSocket> {
    Some(TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(context))),
    })
}

/// A TCP service, of which the cluster and the endpoints are given.
fn service(identity: bool, endpoints: &[&str], mtls: &[&str], to_all: bool) -> World {
    let mut world = World::default();
    world.facts.identity = identity;
    let mut cluster = eds_cluster("a");
    if to_all {
        cluster.transport_socket = tls(&UpstreamTlsContext::default());
    } else {
        cluster.transport_socket_matches = vec![tls_by_metadata()];
    }
    world.clusters(&[cluster, passthrough_cluster()]);
    let plain = endpoints.iter().map(|address| endpoint(address));
    let all = plain.chain(mtls.iter().map(|address| mtls_endpoint(address)));
    world.endpoints(&[assignment("a", vec![locality(all.collect())])]);
    world.listeners(&[listener("tcp", "10.96.0.1:9000", vec![chain(vec![tcp_proxy("a")])])]);
    world
}

fn outbound(world: &mut World) -> (OutboundAction, Path, String) {
    let plans = world.compile(None);
    let verdict = plans.verdicts().remove(&Destination::Outbound(SERVICE)).unwrap();
    (plans.kernel().frontends.get(&SERVICE).unwrap().clone(), verdict.path, verdict.reason.to_string())
}

#[test]
fn with_an_identity_the_proxy_speaks_tls_and_says_because_of_what() {
    let (action, path, reason) = outbound(&mut service(true, &[], &["10.0.0.1:9000"], false));
    assert_eq!((action, path), (OutboundAction::Proxy, Path::TcpProxy));
    assert!(reason.contains("endpoints[0].lb_endpoints[0].metadata"), "{reason}");

    let (action, path, reason) = outbound(&mut service(true, &["10.0.0.1:9000"], &[], true));
    assert_eq!((action, path), (OutboundAction::Proxy, Path::TcpProxy));
    assert!(reason.contains("cluster `a`") && reason.contains("transport_socket"), "{reason}");
}

#[test]
fn without_one_what_owes_tls_to_everybody_is_refused_by_the_kernel() {
    for to_all in [false, true] {
        let (action, _, reason) = outbound(&mut service(false, &[], &["10.0.0.1:9000"], to_all));
        assert_eq!(action, OutboundAction::Block);
        assert!(reason.contains("holds no identity"), "{reason}");
    }
}

#[test]
fn an_identity_changes_nothing_for_plaintext() {
    for identity in [false, true] {
        let (action, ..) = outbound(&mut service(identity, &["10.0.0.1:9000"], &[], false));
        assert!(matches!(action, OutboundAction::Balance(_)), "{action:?}");
    }
}

#[test]
fn an_identity_that_comes_or_goes_is_followed_without_a_delivery() {
    let mut world = service(false, &[], &["10.0.0.1:9000"], false);
    let mut plans = world.compile(None);
    for (identity, action) in [(true, OutboundAction::Proxy), (false, OutboundAction::Block)] {
        world.facts.identity = identity;
        plans.set_facts(&mut world.interner, world.facts.clone());
        assert_eq!(plans.kernel().frontends.get(&SERVICE), Some(&action));
    }
}

/// A port of the workload, with a chain for TLS and one for plaintext, or the former alone.
fn inbound(identity: bool, strict: bool, filters: &[Filter]) -> Plans {
    let mut world = World::default();
    world.facts.identity = identity;
    world.clusters(&[passthrough_cluster()]);
    let one = |transport: &str, socket| FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            destination_port: number(8080),
            transport_protocol: transport.to_owned(),
            ..FilterChainMatch::default()
        }),
        transport_socket: socket,
        ..chain(filters.iter().cloned().chain([tcp_proxy("PassthroughCluster")]).collect())
    };
    let mut chains = vec![one("tls", tls(&DownstreamTlsContext::default()))];
    if !strict {
        chains.push(one("raw_buffer", None));
    }
    world.listeners(&[Listener {
        traffic_direction: TrafficDirection::Inbound.into(),
        use_original_dst: flag(true),
        ..listener("virtualInbound", "0.0.0.0:15006", chains)
    }]);
    world.compile(None)
}

fn action(plans: &Plans) -> &InboundAction {
    plans.kernel().inbound.get(&8080).unwrap()
}

#[test]
fn ports_that_terminate_tls_are_the_proxys_be_it_that_plaintext_is_let_in_too() {
    for strict in [false, true] {
        let plans = inbound(true, strict, &[]);
        assert_eq!(action(&plans), &InboundAction::Proxy);
        let reason = &plans.verdicts()[&Destination::Inbound(8080)].reason.to_string();
        assert!(reason.contains("filter_chains[0].transport_socket"), "{reason}");
    }
}

#[test]
fn without_an_identity_plaintext_goes_straight_in_where_it_may_and_is_refused_where_it_may_not() {
    assert_eq!(action(&inbound(false, false, &[])), &InboundAction::Direct);
    assert_eq!(action(&inbound(false, true, &[])), &InboundAction::Drop);
}

/// Lets in whoever has shown an identity.
fn only_the_authenticated() -> Filter {
    let policy = Policy {
        permissions: vec![Permission { rule: Some(permission::Rule::Any(true)) }],
        principals: vec![Principal { identifier: Some(Identifier::Authenticated(Authenticated::default())) }],
        ..Policy::default()
    };
    let rules = Rbac { policies: [("who".to_owned(), policy)].into(), ..Rbac::default() };
    network_filter("rbac", &NetworkRbac { rules: Some(rules), ..NetworkRbac::default() })
}

#[test]
fn who_may_show_an_identity_is_not_refused_for_having_none_yet() {
    let source = "192.0.2.1".parse().unwrap();
    let of = |plans: &Plans| match action(plans) {
        InboundAction::BySource(policy) => policy.actions(source).anybody,
        InboundAction::Proxy => SourceAction::Proxy,
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&inbound(true, false, &[only_the_authenticated()])), SourceAction::Proxy);
    assert_eq!(of(&inbound(true, true, &[only_the_authenticated()])), SourceAction::Proxy);
    assert_eq!(of(&inbound(false, false, &[only_the_authenticated()])), SourceAction::ProxyRefuses);
}
