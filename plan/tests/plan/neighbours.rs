//! Workloads of one node, where the kernel attests who connects: when connections among them need no TLS, and when they do.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::{
    ApiConfigSource, ConfigSource, GrpcService, TransportSocket, api_config_source, config_source,
    grpc_service, transport_socket,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
    UpstreamTlsContext, common_tls_context, subject_alt_name_matcher,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use orlop_plan::kernel::{
    Frontend, InboundAction, KernelPlan, OutboundAction, SourceAction, SourceActions, SourcePolicy,
};
use orlop_plan::neighbours::{Neighbour, Neighbours, SameNode};

use crate::build::{
    World, any, assignment, chain, eds_cluster, listener, locality, mtls_endpoint, passthrough_cluster,
    tcp_proxy,
};
use crate::kernel_equals_proxy::tls_by_metadata;

const SERVICE: Frontend =
    Frontend { addr: Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1))), port: 9000 };
const OWN: &str = "10.0.0.9";
const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";

/// A secret that a sidecar gets from its own agent.
fn of_the_node(name: &str) -> SdsSecretConfig {
    let grpc =
        grpc_service::EnvoyGrpc { cluster_name: "sds-grpc".to_owned(), ..grpc_service::EnvoyGrpc::default() };
    let service = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
        ..GrpcService::default()
    };
    let source = ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc.into(),
        grpc_services: vec![service],
        ..ApiConfigSource::default()
    };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            config_source_specifier: Some(config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
            ..ConfigSource::default()
        }),
    }
}

/// The mesh's mutual TLS with an endpoint of this identity.
fn mesh_tls(principal: &str) -> TransportSocketMatch {
    let name = SubjectAltNameMatcher {
        san_type: subject_alt_name_matcher::SanType::Uri.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(string_matcher::MatchPattern::Exact(principal.to_owned())),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    };
    let validation = common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: vec![name],
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(of_the_node("ROOTCA")),
        ..common_tls_context::CombinedCertificateValidationContext::default()
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: vec!["istio-peer-exchange".to_owned(), "istio".to_owned()],
            tls_certificate_sds_secret_configs: vec![of_the_node("default")],
            validation_context_type: Some(
                common_tls_context::ValidationContextType::CombinedValidationContext(validation),
            ),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    let socket = TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    };
    TransportSocketMatch { transport_socket: Some(socket), ..tls_by_metadata() }
}

/// A workload among `neighbours`, with a TCP service of these endpoints, all of which take mutual TLS.
fn client(endpoints: &[&str], socket: TransportSocketMatch, neighbours: Neighbours) -> World {
    let mut world = World::default();
    world.facts.identity = true;
    world.facts.addresses = vec![OWN.parse().unwrap()];
    let principal = "spiffe://cluster.local/ns/default/sa/client".into();
    world.facts.same_node = Some(SameNode { principal, neighbours: Arc::new(neighbours) });
    let mut cluster = eds_cluster("a");
    cluster.transport_socket_matches = vec![socket];
    world.clusters(&[cluster, passthrough_cluster()]);
    let endpoints = endpoints.iter().map(|address| mtls_endpoint(address)).collect();
    world.endpoints(&[assignment("a", vec![locality(endpoints)])]);
    world.listeners(&[listener("tcp", "10.96.0.1:9000", vec![chain(vec![tcp_proxy("a")])])]);
    world
}

/// A neighbour of the account `server` at each address, that does this with connections.
fn servers(addresses: &[&str], default_inbound: &InboundAction) -> Neighbours {
    let plan = KernelPlan { default_inbound: default_inbound.clone(), ..KernelPlan::default() };
    let neighbour = Arc::new(Neighbour::new(SERVER.into(), &plan));
    addresses.iter().map(|address| (address.parse().unwrap(), Arc::clone(&neighbour))).collect()
}

/// Lets in whom the kernel attests, from one address alone.
fn strict(attested: &str) -> InboundAction {
    let refused = SourceActions::from(SourceAction::Proxy);
    let actions = SourceActions { attested: Some(SourceAction::Direct), ..refused };
    let sources =
        vec![("0.0.0.0/0".parse().unwrap(), refused), (format!("{attested}/32").parse().unwrap(), actions)];
    InboundAction::BySource(Arc::new(SourcePolicy::new(sources)))
}

fn goes_straight(world: &mut World) -> bool {
    match world.compile(None).kernel().frontends.get(&SERVICE).unwrap() {
        OutboundAction::Balance(_) => true,
        OutboundAction::Proxy => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connections_go_straight_where_every_endpoint_is_a_neighbour_that_takes_them() {
    let (one, other) = ("10.0.0.1", "10.0.0.2");
    let endpoints = ["10.0.0.1:9000", "10.0.0.2:9000"];
    let world = |neighbours| client(&endpoints, mesh_tls(SERVER), neighbours);

    assert!(goes_straight(&mut world(servers(&[one, other], &strict(OWN)))));
    assert!(!goes_straight(&mut world(servers(&[one], &strict(OWN)))), "the other is on another node");
    assert!(!goes_straight(&mut world(servers(&[one, other], &strict("10.0.0.8")))), "they take another's");
    assert!(
        !goes_straight(&mut world(servers(&[one, other], &InboundAction::Proxy))),
        "a policy of requests"
    );
    assert!(!goes_straight(&mut world(servers(&[one, other, one], &strict(OWN)))), "two have one address");
}

#[test]
fn tls_stays_where_it_is_not_the_meshs_or_asks_for_somebody_else() {
    let neighbours = || servers(&["10.0.0.1"], &strict(OWN));
    let world = |socket| client(&["10.0.0.1:9000"], socket, neighbours());

    assert!(goes_straight(&mut world(mesh_tls(SERVER))));
    assert!(!goes_straight(&mut world(mesh_tls("spiffe://cluster.local/ns/default/sa/another"))));
    assert!(!goes_straight(&mut world(tls_by_metadata())), "with no identity of the mesh");
}

#[test]
fn the_way_to_itself_stays_the_proxys() {
    assert!(!goes_straight(&mut client(&["10.0.0.9:9000"], mesh_tls(SERVER), servers(&[OWN], &strict(OWN)))));
}

#[test]
fn neighbours_that_come_go_or_change_are_followed_without_a_delivery() {
    let mut world = client(&["10.0.0.1:9000"], mesh_tls(SERVER), Neighbours::default());
    let mut plans = world.compile(None);
    let straight = strict(OWN);
    for (neighbours, is_straight) in [
        (servers(&["10.0.0.1"], &straight), true),
        (servers(&["10.0.0.1", "10.0.0.7"], &straight), true),
        (servers(&["10.0.0.1"], &InboundAction::Drop), false),
        (servers(&["10.0.0.1"], &straight), true),
        (Neighbours::default(), false),
    ] {
        plans.set_neighbours(&mut world.interner, &Arc::new(neighbours));
        let action = plans.kernel().frontends.get(&SERVICE).unwrap();
        assert_eq!(matches!(action, OutboundAction::Balance(_)), is_straight, "{action:?}");
    }
}
