//! Whatever the kernel does is what the proxy would do.
//!
//! Configurations are generated from parts that ask for L7 and parts that do not. For each frontend of the kernel plan, a
//! connection is then walked through the proxy plan as Envoy would walk it: listener, chain, route, cluster, endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{CommonLbConfig, LbPolicy, TransportSocketMatch};
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::{
    HealthStatus as ProtoHealth, TransportSocket, transport_socket,
};
use envoy_types::pb::envoy::config::endpoint::v3::{LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::Route;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use http::HeaderMap;
use orlop_plan::chain_match::{ConnectionFacts, select_chain};
use orlop_plan::classify::Mode;
use orlop_plan::compile::Plans;
use orlop_plan::kernel::{BackendSet, Choice, Frontend, OutboundAction};
use orlop_plan::proxy::ClusterPlan;
use orlop_plan::resource::cluster;
use orlop_plan::resource::cluster::{ClusterDiscovery, UpstreamTransportSocket};
use orlop_plan::resource::endpoint::{HealthStatus, LbEndpoint as PlanEndpoint};
use orlop_plan::resource::http_connection_manager::RouteSpecifier;
use orlop_plan::resource::listener::{TerminalFilter, TransportProtocol};
use orlop_plan::resource::route::{Action, ClusterSpecifier};
use orlop_plan::resource::tcp_proxy::TcpClusterSpecifier;
use orlop_plan::route_match::RequestHead;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::build::{
    World, action_to, any, assignment, chain, eds_cluster, endpoint, http_chain, http_listener, listener,
    locality, manager, mtls_endpoint, number, passthrough_cluster, prefix, route_configuration, route_to,
    seconds, tcp_proxy, virtual_host,
};

const CLUSTERS: [&str; 3] = ["a", "b", "c"];

pub(crate) fn tls_by_metadata() -> TransportSocketMatch {
    let mode = Value { kind: Some(Kind::StringValue("istio".to_owned())) };
    TransportSocketMatch {
        name: "tlsMode-istio".to_owned(),
        r#match: Some(Struct { fields: [("tlsMode".to_owned(), mode)].into() }),
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any(&UpstreamTlsContext::default()))),
        }),
    }
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let policies = vec![LbPolicy::RoundRobin, LbPolicy::LeastRequest, LbPolicy::Random];
    (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.5),
        select(policies),
        select(vec![0.0, 50.0, 100.0]),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(ejects, tls, policy, panic_threshold, weighted)| Cluster {
            outlier_detection: ejects.then(OutlierDetection::default),
            transport_socket_matches: if tls { vec![tls_by_metadata()] } else { vec![] },
            lb_policy: policy.into(),
            common_lb_config: Some(CommonLbConfig {
                healthy_panic_threshold: Some(Percent { value: panic_threshold }),
                locality_config_specifier: weighted.then_some(
                    LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}),
                ),
                ..CommonLbConfig::default()
            }),
            ..eds_cluster("")
        })
}

fn localities() -> impl Strategy<Value = Vec<LocalityLbEndpoints>> {
    let one = (0..2_u32, prop::option::weighted(0.8, 1..4_u32), vec(lb_endpoint(), 0..4)).prop_map(
        |(priority, weight, endpoints)| LocalityLbEndpoints {
            priority,
            load_balancing_weight: weight.and_then(number),
            ..locality(endpoints)
        },
    );
    vec(one, 0..3)
}

fn lb_endpoint() -> impl Strategy<Value = LbEndpoint> {
    (
        1..20_u8,
        1..4_u32,
        prop::bool::weighted(0.2),
        select(vec![
            ProtoHealth::Healthy,
            ProtoHealth::Healthy,
            ProtoHealth::Healthy,
            ProtoHealth::Unhealthy,
            ProtoHealth::Degraded,
            ProtoHealth::Draining,
        ]),
    )
        .prop_map(|(last, weight, mtls, health)| {
            let address = format!("10.1.0.{last}:80");
            let endpoint = if mtls { mtls_endpoint(&address) } else { endpoint(&address) };
            LbEndpoint { load_balancing_weight: number(weight), health_status: health.into(), ..endpoint }
        })
}

fn to_cluster() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c", "missing", "PassthroughCluster"])
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let route = (to_cluster(), select(vec!["/", "/", "/", "/api"]), prop::bool::weighted(0.2)).prop_map(
        |(cluster, path, timeout)| {
            let mut action = action_to(cluster);
            if timeout {
                action.timeout = seconds(3);
            }
            Route {
                r#match: Some(prefix(path)),
                action: Some(envoy_types::pb::envoy::config::route::v3::route::Action::Route(action)),
                ..route_to(cluster)
            }
        },
    );
    vec(route, 1..3)
}

/// A listener of one service: TCP, or HTTP told by its first bytes.
fn own_listener(index: usize, tcp: &str, http: Option<&[Route]>) -> (Listener, Option<Vec<Route>>) {
    let address = format!("10.96.1.{index}:80");
    let name = format!("10.96.1.{index}_80");
    let tcp_chain = chain(vec![tcp_proxy(tcp)]);
    match http {
        None => (listener(&name, &address, vec![tcp_chain]), None),
        Some(routes) => {
            let mut auto = listener(&name, &address, vec![http_chain(&manager(&name))]);
            auto.default_filter_chain = Some(tcp_chain);
            (auto, Some(routes.to_vec()))
        }
    }
}

fn world(
    clusters: &[(Cluster, Vec<LocalityLbEndpoints>)],
    shared: &[Vec<Route>],
    allow_any: bool,
    own: &[(&str, Option<Vec<Route>>)],
) -> World {
    let mut world = World::default();
    let named = CLUSTERS.iter().zip(clusters);
    let mut all: Vec<_> = named
        .clone()
        .map(|(name, (cluster, _))| Cluster { name: (*name).to_owned(), ..cluster.clone() })
        .collect();
    all.push(passthrough_cluster());
    world.clusters(&all);
    let assignments: Vec<_> =
        named.map(|(name, (_, localities))| assignment(name, localities.clone())).collect();
    world.endpoints(&assignments);
    let mut hosts: Vec<_> = shared
        .iter()
        .enumerate()
        .map(|(i, routes)| {
            let domains = [format!("svc-{i}"), format!("10.96.0.{i}")];
            virtual_host(&format!("svc-{i}"), &[&domains[0], &domains[1]], routes.clone())
        })
        .collect();
    if allow_any {
        hosts.push(virtual_host("allow_any", &["*"], vec![route_to("PassthroughCluster")]));
    }
    let mut route_configurations = vec![route_configuration("8080", hosts)];
    let mut listeners = vec![http_listener(8080)];
    for (i, (tcp, http)) in own.iter().enumerate() {
        let (listener, routes) = own_listener(i, tcp, http.as_deref());
        if let Some(routes) = routes {
            route_configurations
                .push(route_configuration(&listener.name, vec![virtual_host("own", &["*"], routes)]));
        }
        listeners.push(listener);
    }
    let outcome = world.routes(&route_configurations);
    assert_eq!(outcome.errors, []);
    let outcome = world.listeners(&listeners);
    assert_eq!(outcome.errors, []);
    world
}

/// What a proxy does with a connection, as far as the kernel could do it too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Sent to one of these, in plaintext: the policy, and each one's share of connections to idle endpoints, in millionths.
    Balanced(&'static str, BTreeMap<SocketAddr, u64>),
    /// Sent to where it was going.
    OriginalDestination,
    /// Nobody may be sent to.
    Refused,
    /// Something that only a proxy does.
    Other,
}

/// Whether what is asked for beyond the choice of an endpoint counts: with the mode `never` it is forgone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Counts,
    Forgone,
}

fn through_cluster(plans: &Plans, name: &str, asked: Asked, identity: bool) -> Outcome {
    let Some(plan) = plans.proxy().clusters.get(name) else { return Outcome::Refused };
    if matches!(plan.cluster.discovery, ClusterDiscovery::OriginalDst { .. }) {
        return Outcome::OriginalDestination;
    }
    let (chosen, lost) = chosen(plan);
    let owed = |endpoint: &&(&PlanEndpoint, f64)| match &plan.cluster.transport_socket {
        UpstreamTransportSocket::TlsForEndpointsWith { key, value, .. } => {
            endpoint.0.about.transport_socket_match.contains(&(key.clone(), value.clone()))
        }
        UpstreamTransportSocket::Tls(_) => true,
        UpstreamTransportSocket::RawBuffer => false,
    };
    match chosen.iter().filter(owed).count() {
        // With an identity, TLS is spoken: by the proxy, where there is anybody to speak to.
        count if count == chosen.len() && (!identity || chosen.is_empty()) => Outcome::Refused,
        1.. if identity => Outcome::Other,
        _ if lost => Outcome::Other,
        _ if plan.cluster.outlier_detection.is_some() && asked == Asked::Counts => Outcome::Other,
        0 => {
            let policy = match plan.cluster.lb_policy {
                cluster::LbPolicy::LeastRequest { .. } => "least",
                _ => "weighted",
            };
            balanced(policy, chosen.iter().map(|(endpoint, share)| (endpoint.address, *share)))
        }
        _ => Outcome::Other,
    }
}

/// Each endpoint's share, as Envoy's documentation tells it ("Priority levels", "Degraded endpoints", "Panic threshold",
/// "Locality weighted load balancing"), and whether a share of the connections finds no endpoint.
fn chosen(plan: &ClusterPlan) -> (Vec<(&PlanEndpoint, f64)>, bool) {
    let Some(assignment) = &plan.load_assignment else { return (Vec::new(), false) };
    let mut by_priority: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for locality in &assignment.localities {
        by_priority.entry(locality.priority).or_default().push(locality);
    }
    let is =
        |health: &'static [HealthStatus]| move |endpoint: &&PlanEndpoint| health.contains(&endpoint.health);
    let (healthy, degraded) = (is(&[HealthStatus::Healthy]), is(&[HealthStatus::Degraded]));
    let anyone = is(&[HealthStatus::Healthy, HealthStatus::Degraded, HealthStatus::Unhealthy]);
    let percent =
        |part: usize, whole: usize, factor: usize| (factor * part).checked_div(whole).unwrap_or(0).min(100);
    let counts: Vec<_> = by_priority
        .values()
        .map(|localities| {
            let all = || localities.iter().flat_map(|locality| &locality.endpoints);
            (all().filter(healthy).count(), all().filter(degraded).count(), all().filter(anyone).count())
        })
        .collect();
    let available: usize = counts.iter().map(|(h, d, n)| percent(*h, *n, 140) + percent(*d, *n, 140)).sum();
    let available = available.min(100);
    let threshold = usize::from(plan.cluster.healthy_panic_threshold);
    let panics = |(h, d, n): &(usize, usize, usize)| {
        available < 100 && *n > 0 && threshold > 0 && percent(h + d, *n, 100) < threshold
    };
    let hosts: usize = counts.iter().map(|(_, _, n)| n).sum();
    let mut shares = Vec::new();
    let mut rest = 100;
    for sick in [false, true] {
        for (priority, count @ (h, d, n)) in counts.iter().enumerate() {
            let share = match (available, sick) {
                (0, false) if panics(count) => percent(*n, hosts, 100),
                (0, _) => 0,
                (_, false) => percent(*h, *n, 140) * 100 / available,
                (_, true) => percent(*d, *n, 140) * 100 / available,
            };
            let share = share.min(rest);
            rest -= share;
            if share > 0 {
                shares.push((share, priority, sick, panics(count)));
            }
        }
    }
    if let Some(first) = shares.first_mut() {
        first.0 += rest;
    }
    let localities: Vec<_> = by_priority.values().collect();
    let mut chosen = Vec::new();
    let mut lost = false;
    let own = |endpoint: &PlanEndpoint| match plan.cluster.lb_policy {
        cluster::LbPolicy::Random => 1.0,
        _ => f64::from(endpoint.weight),
    };
    for (share, priority, sick, panic) in shares {
        let usable = |endpoint: &&PlanEndpoint| match (panic, sick) {
            (true, _) => anyone(endpoint),
            (false, false) => healthy(endpoint),
            (false, true) => degraded(endpoint),
        };
        #[expect(clippy::cast_precision_loss, reason = "at most 100")]
        let share = share as f64 / 100.0;
        let weights: Vec<f64> = localities[priority]
            .iter()
            .map(|locality| {
                let usable = locality.endpoints.iter().filter(usable).count();
                let all = locality.endpoints.iter().filter(anyone).count();
                #[expect(clippy::cast_precision_loss, reason = "at most 100")]
                let scale = percent(usable, all, 140) as f64;
                f64::from(locality.weight.unwrap_or(0)) * scale
            })
            .collect();
        let total: f64 = weights.iter().sum();
        let groups: Vec<(f64, Vec<&PlanEndpoint>)> = if plan.cluster.locality_weighted {
            let of = localities[priority].iter().zip(weights).filter(|(_, weight)| *weight > 0.0);
            of.map(|(locality, weight)| {
                (share * weight / total, locality.endpoints.iter().filter(usable).collect())
            })
            .collect()
        } else {
            let all = localities[priority].iter().flat_map(|locality| &locality.endpoints);
            vec![(share, all.filter(usable).collect())]
        };
        lost |= groups.is_empty();
        for (share, endpoints) in groups {
            lost |= endpoints.is_empty();
            let sum: f64 = endpoints.iter().map(|endpoint| own(endpoint)).sum();
            chosen.extend(endpoints.into_iter().map(|endpoint| (endpoint, share * own(endpoint) / sum)));
        }
    }
    (chosen, lost)
}

fn balanced(policy: &'static str, shares: impl Iterator<Item = (SocketAddr, f64)>) -> Outcome {
    let mut by_address = BTreeMap::new();
    for (address, share) in shares {
        *by_address.entry(address).or_insert(0.0) += share;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1 million")]
    let millionths = |share: f64| (share * 1e6).round() as u64;
    Outcome::Balanced(policy, by_address.into_iter().map(|(at, share)| (at, millionths(share))).collect())
}

/// A request for `authority` and `path`, or bytes that are no HTTP.
fn through_proxy(
    plans: &Plans,
    destination: SocketAddr,
    request: Option<(&str, &str)>,
    asked: Asked,
    identity: bool,
) -> Outcome {
    let Some(listener) = plans.proxy().outbound.select(destination.ip(), destination.port()) else {
        return Outcome::OriginalDestination;
    };
    let protocols: &[&str] = if request.is_some() { &["http/1.1"] } else { &[] };
    let facts = ConnectionFacts {
        destination,
        source: SocketAddr::from(([10, 0, 0, 1], 40_000)),
        transport: TransportProtocol::RawBuffer,
        application_protocols: protocols,
        server_name: None,
    };
    let Some(chain) = select_chain(listener, &facts) else { return Outcome::Refused };
    match (&chain.terminal, request) {
        (TerminalFilter::TcpProxy(tcp_proxy), _) => match &tcp_proxy.cluster {
            TcpClusterSpecifier::Cluster(name) => through_cluster(plans, name, asked, identity),
            TcpClusterSpecifier::Weighted { .. } => Outcome::Other,
        },
        (TerminalFilter::HttpConnectionManager(manager), Some((authority, path_and_query))) => {
            let RouteSpecifier::Rds(name) = &manager.routes else { return Outcome::Other };
            let headers = HeaderMap::new();
            let head =
                RequestHead { method: "GET", path_and_query, authority, scheme: "http", headers: &headers };
            let Some(selection) = plans.proxy().routes.get(name).unwrap().select(&head, 0) else {
                return Outcome::Other;
            };
            let Action::Route(action) = &selection.route.action else { return Outcome::Other };
            match &action.cluster {
                ClusterSpecifier::Cluster(name) if action.timeout.is_none() || asked == Asked::Forgone => {
                    through_cluster(plans, name, asked, identity)
                }
                _ => Outcome::Other,
            }
        }
        (TerminalFilter::HttpConnectionManager(_), None) => Outcome::Other,
    }
}

#[expect(clippy::cast_precision_loss, reason = "the weights here are small")]
fn by_kernel(set: &BackendSet) -> Outcome {
    let groups = match &set.choice {
        Choice::Weighted => vec![(1, set.backends.len())],
        Choice::LeastConnections { groups, .. } => groups.iter().map(|g| (g.share, g.backends)).collect(),
    };
    let all: u64 = groups.iter().map(|(share, _)| share).sum();
    let mut rest = set.backends.as_slice();
    let mut shares = Vec::new();
    for (share, count) in groups {
        let (these, others) = rest.split_at(count);
        let sum: u64 = these.iter().map(|backend| backend.weight).sum();
        let of = |weight: u64| share as f64 / all as f64 * weight as f64 / sum as f64;
        shares.extend(these.iter().map(|backend| (backend.address, of(backend.weight))));
        rest = others;
    }
    let policy = if set.choice == Choice::Weighted { "weighted" } else { "least" };
    balanced(policy, shares.into_iter())
}

/// What an application may send to a frontend. The host of a request to a service's address is the service's.
fn requests(frontend: Frontend) -> Vec<(SocketAddr, Request)> {
    let paths = ["/", "/api/x", "/other"];
    let anywhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let destination = SocketAddr::new(frontend.addr.unwrap_or(anywhere), frontend.port);
    let hosts = match (frontend.addr, frontend.port) {
        (Some(IpAddr::V4(vip)), 8080) => vec![format!("svc-{}", vip.octets()[3]), vip.to_string()],
        (Some(_), _) => vec!["own".to_owned()],
        (None, _) => vec!["unknown".to_owned()],
    };
    let http = hosts.into_iter().flat_map(|host| paths.map(|path| Some((host.clone(), path))));
    // What is no HTTP goes to the address of a shared listener's service itself, which the kernel may balance instead.
    let raw = (frontend.port != 8080).then_some(None);
    http.chain(raw).map(|request| (destination, request)).collect()
}

type Request = Option<(String, &'static str)>;

/// Everything that the kernel does by itself, with what the proxy would do.
fn judged(plans: &Plans, asked: Asked, identity: bool) -> Vec<(Frontend, Request, Outcome, Outcome)> {
    let mut all = Vec::new();
    for (frontend, action) in &plans.kernel().frontends {
        let by_kernel = match action {
            OutboundAction::Balance(set) => by_kernel(set),
            OutboundAction::Passthrough => Outcome::OriginalDestination,
            OutboundAction::Block => Outcome::Refused,
            OutboundAction::Proxy => continue,
        };
        for (destination, request) in requests(*frontend) {
            let named = request.as_ref().map(|(host, path)| (host.as_str(), *path));
            let proxied = through_proxy(plans, destination, named, asked, identity);
            all.push((*frontend, request, by_kernel.clone(), proxied));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_kernel_does_what_the_proxy_would_do(
        clusters in vec((cluster(), localities()), 3..=3),
        shared in vec(routes(), 0..3),
        allow_any: bool,
        own in vec((to_cluster(), prop::option::of(routes())), 0..3),
        default in select(vec![Mode::OnIntent, Mode::Always]),
        identity: bool,
    ) {
        let mut world = world(&clusters, &shared, allow_any, &own);
        world.facts.l7.default = default;
        world.facts.identity = identity;
        let plans = world.compile(None);
        prop_assert!(plans.ready());
        prop_assert_eq!(&plans.held(), &[]);
        for (frontend, request, kernel, proxy) in judged(&plans, Asked::Counts, identity) {
            prop_assert_eq!(kernel, proxy, "{:?} {:?}", frontend, request);
        }
    }

    /// Of what no other route takes, at least: where routes differ, the last one stands for the service.
    #[test]
    fn with_never_the_kernel_does_what_the_proxy_would_do_but_for_what_is_forgone(
        clusters in vec((cluster(), localities()), 3..=3),
        shared in vec(routes(), 0..3),
        allow_any: bool,
        own in vec((to_cluster(), prop::option::of(routes())), 0..3),
        identity: bool,
    ) {
        let mut world = world(&clusters, &shared, allow_any, &own);
        world.facts.l7.default = Mode::Never;
        world.facts.identity = identity;
        let plans = world.compile(None);
        let taken_by_others = |request: &Option<(String, &str)>| {
            request.as_ref().is_some_and(|(_, path)| path.starts_with("/api"))
        };
        for (frontend, request, kernel, proxy) in judged(&plans, Asked::Forgone, identity) {
            if !taken_by_others(&request) {
                prop_assert_eq!(kernel, proxy, "{:?} {:?}", frontend, request);
            }
        }
    }
}
