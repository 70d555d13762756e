//! Plans that follow changes are what they would be from scratch, and following costs what the change touches.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use orlop_plan::classify::{Destination, L7Modes, Mode, Path};
use orlop_plan::compile::{Plans, Updated, WorkloadFacts};
use orlop_plan::kernel::OutboundAction;
use orlop_plan::snapshot::{Changes, Outcome, ResourceType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::build::{
    World, assignment, chain, eds_cluster, endpoint, flag, http_chain, http_listener, listener, locality,
    manager, mtls_endpoint, passthrough_cluster, route_configuration, route_to, tcp_proxy, virtual_host,
};
use crate::reference::Reference;

const CLUSTERS: [&str; 3] = ["a", "b", "c"];

/// One delivery.
#[derive(Debug, Clone)]
enum Step {
    Cluster { name: &'static str, ejects: bool, removed: Option<&'static str> },
    NoClusters,
    Endpoints { name: &'static str, host: u8, tls: bool },
    NoEndpoints(&'static str),
    BadEndpoints(&'static str),
    Tcp { index: u8, cluster: &'static str },
    Http { index: u8, routes: &'static str },
    Shared { routes: &'static str, fallback: &'static str },
    NoListener(&'static str),
    BadListener(&'static str),
    Default(&'static str),
    Routes { name: &'static str, clusters: Vec<&'static str>, any: bool },
    NoRoutes(&'static str),
    BadRoutes(&'static str),
}

fn cluster_name() -> impl Strategy<Value = &'static str> {
    select(CLUSTERS.to_vec())
}

fn routes_name() -> impl Strategy<Value = &'static str> {
    select(vec!["8080", "own"])
}

fn listener_name() -> impl Strategy<Value = &'static str> {
    select(vec!["10.96.1.0_80", "10.96.1.1_80", "0.0.0.0_8080", "virtualOutbound"])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (cluster_name(), any::<bool>(), prop::option::weighted(0.2, cluster_name()))
            .prop_map(|(name, ejects, removed)| Step::Cluster { name, ejects, removed }),
        1 => Just(Step::NoClusters),
        4 => (cluster_name(), 1..4_u8, prop::bool::weighted(0.2))
            .prop_map(|(name, host, tls)| Step::Endpoints { name, host, tls }),
        1 => cluster_name().prop_map(Step::NoEndpoints),
        1 => cluster_name().prop_map(Step::BadEndpoints),
        2 => (0..2_u8, cluster_name()).prop_map(|(index, cluster)| Step::Tcp { index, cluster }),
        2 => (0..2_u8, routes_name()).prop_map(|(index, routes)| Step::Http { index, routes }),
        2 => (routes_name(), cluster_name()).prop_map(|(routes, fallback)| Step::Shared { routes, fallback }),
        1 => listener_name().prop_map(Step::NoListener),
        1 => listener_name().prop_map(Step::BadListener),
        1 => cluster_name().prop_map(Step::Default),
        4 => (routes_name(), vec(cluster_name(), 0..3), any::<bool>())
            .prop_map(|(name, clusters, any)| Step::Routes { name, clusters, any }),
        1 => routes_name().prop_map(Step::NoRoutes),
        1 => routes_name().prop_map(Step::BadRoutes),
    ]
}

fn routes(name: &str, clusters: &[&str], any: bool) -> RouteConfiguration {
    let mut hosts: Vec<_> = clusters
        .iter()
        .enumerate()
        .map(|(i, cluster)| {
            // Some have the address of a listener of its own.
            let address = if i == 0 { "10.96.1.0".to_owned() } else { format!("10.96.0.{i}") };
            virtual_host(&format!("svc-{i}"), &[&format!("svc-{i}"), &address], vec![route_to(cluster)])
        })
        .collect();
    if any {
        hosts.push(virtual_host("any", &["*"], vec![route_to("PassthroughCluster")]));
    }
    route_configuration(name, hosts)
}

fn own_listener(
    index: u8,
    chains: Vec<envoy_types::pb::envoy::config::listener::v3::FilterChain>,
) -> Listener {
    listener(&format!("10.96.1.{index}_80"), &format!("10.96.1.{index}:80"), chains)
}

impl Step {
    fn deliver(&self, world: &mut World, just_removed: &mut BTreeSet<String>) -> Outcome {
        match self {
            Self::Cluster { name, ejects, removed } => {
                let removed: Vec<_> = removed.iter().copied().filter(|removed| removed != name).collect();
                *just_removed = removed.iter().map(ToString::to_string).collect();
                let outlier_detection = ejects.then(OutlierDetection::default);
                let cluster = Cluster { outlier_detection, ..eds_cluster(name) };
                world.deliver(&[(name, cluster), ("PassthroughCluster", passthrough_cluster())], &removed)
            }
            Self::NoClusters => {
                just_removed.clear();
                world.deliver::<Cluster>(&[], &[])
            }
            Self::Endpoints { name, host, tls } => {
                let address = format!("10.0.0.{host}:80");
                let endpoint = if *tls { mtls_endpoint(&address) } else { endpoint(&address) };
                world.endpoints(&[assignment(name, vec![locality(vec![endpoint])])])
            }
            Self::NoEndpoints(name) => world.deliver::<ClusterLoadAssignment>(&[], &[name]),
            Self::BadEndpoints(name) => {
                let mut bad = locality(vec![endpoint("10.0.0.1:80")]);
                bad.priority = 1000;
                world.endpoints(&[assignment(name, vec![bad])])
            }
            Self::Tcp { index, cluster } => {
                world.listeners(&[own_listener(*index, vec![chain(vec![tcp_proxy(cluster)])])])
            }
            Self::Http { index, routes } => world
                .listeners(&[own_listener(*index, vec![chain(vec![crate::build::http(&manager(routes))])])]),
            Self::Shared { routes, fallback } => world.listeners(&[Listener {
                filter_chains: vec![http_chain(&manager(routes))],
                default_filter_chain: Some(chain(vec![tcp_proxy(fallback)])),
                ..http_listener(8080)
            }]),
            Self::NoListener(name) => world.deliver::<Listener>(&[], &[name]),
            Self::BadListener(name) => {
                let address = name.replace('_', ":").replace("virtualOutbound", "0.0.0.0:15001");
                let mut bad = listener(name, &address, vec![chain(vec![tcp_proxy("a")])]);
                bad.use_original_dst = flag(*name == "virtualOutbound");
                bad.transparent = flag(true);
                world.listeners(&[bad])
            }
            Self::Default(cluster) => world.listeners(&[Listener {
                use_original_dst: flag(true),
                ..listener("virtualOutbound", "0.0.0.0:15001", vec![chain(vec![tcp_proxy(cluster)])])
            }]),
            Self::Routes { name, clusters, any } => world.routes(&[routes(name, clusters, *any)]),
            Self::NoRoutes(name) => world.deliver::<RouteConfiguration>(&[], &[name]),
            Self::BadRoutes(name) => {
                world.routes(&[route_configuration(name, vec![virtual_host("bad", &[], vec![])])])
            }
        }
    }
}

/// Every destination is what a look at everything finds.
fn assert_classified(world: &mut World, plans: &Plans) {
    let mut anew = plans.clone();
    let other = WorkloadFacts { addresses: vec!["192.0.2.1".parse().unwrap()], ..world.facts.clone() };
    anew.set_facts(&mut world.interner, other);
    anew.set_facts(&mut world.interner, world.facts.clone());
    assert_eq!(anew.kernel(), plans.kernel());
    let told: BTreeMap<_, _> =
        plans.kernel().frontends.iter().map(|(frontend, action)| (*frontend, path_of(action))).collect();
    let verdicts = plans.verdicts().into_iter().filter_map(|(destination, verdict)| match destination {
        Destination::Outbound(frontend) => Some((frontend, kernel_path(verdict.path))),
        _ => None,
    });
    assert_eq!(told, verdicts.collect());
}

fn path_of(action: &OutboundAction) -> Path {
    match action {
        OutboundAction::Balance(_) => Path::Kernel,
        OutboundAction::Proxy => Path::L7Proxy,
        OutboundAction::Passthrough => Path::Passthrough,
        OutboundAction::Block => Path::Blocked,
    }
}

/// The kernel does not know one proxy from the other.
fn kernel_path(path: Path) -> Path {
    if path == Path::TcpProxy { Path::L7Proxy } else { path }
}

fn mode() -> impl Strategy<Value = Mode> {
    select(vec![Mode::OnIntent, Mode::Always, Mode::Never])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn following_changes_leads_to_what_there_is_from_scratch(steps in vec(step(), 1..40), default in mode()) {
        let facts = WorkloadFacts { l7: L7Modes { default, ..L7Modes::default() }, ..WorkloadFacts::default() };
        let mut world = World { facts: facts.clone(), ..World::default() };
        let mut plans = Plans::new(facts);
        let (mut reference, mut just_removed) = (Reference::default(), BTreeSet::new());
        for step in steps {
            let outcome = step.deliver(&mut world, &mut just_removed);
            let before = plans.clone();
            let updated = plans.update(&mut world.interner, &world.snapshot, &outcome.changes);
            reference = reference.after(&world.snapshot, &just_removed);
            reference.assert_is(&plans);
            assert_classified(&mut world, &plans);
            let changed: BTreeSet<_> =
                before.proxy().clusters.diff(&plans.proxy().clusters).iter().map(|c| c.key().to_string()).collect();
            prop_assert!(changed.iter().all(|name| updated.clusters.iter().any(|told| **told == **name)));
        }
    }
}

/// 10 000 services behind one port, in a plan that is in force.
fn many_services() -> (World, Plans) {
    let mut world = World::default();
    let names: Vec<_> = (0..10_000).map(|i| format!("svc-{i}")).collect();
    let mut clusters: Vec<_> = names.iter().map(|name| eds_cluster(name)).collect();
    clusters.push(passthrough_cluster());
    world.clusters(&clusters);
    let assignments: Vec<_> =
        names.iter().map(|name| assignment(name, vec![locality(vec![endpoint("10.0.0.1:80")])])).collect();
    world.endpoints(&assignments);
    world.listeners(&[http_listener(8080)]);
    let hosts = names.iter().enumerate().map(|(i, name)| {
        virtual_host(name, &[name, &format!("10.96.{}.{}", i / 250, i % 250)], vec![route_to(name)])
    });
    world.routes(&[route_configuration("8080", hosts.collect())]);
    let plans = world.compile(None);
    assert!(plans.ready());
    assert_eq!(plans.kernel().frontends.len(), 10_001);
    (world, plans)
}

#[test]
fn one_endpoint_among_ten_thousand_services_touches_one_destination() {
    let (mut world, mut plans) = many_services();
    let before = plans.kernel().clone();
    let outcome = world.endpoints(&[assignment("svc-7", vec![locality(vec![endpoint("10.0.0.2:80")])])]);
    assert_eq!((outcome.validated, outcome.deduplicated), (1, 0));
    let updated = plans.update(&mut world.interner, &world.snapshot, &outcome.changes);
    let clusters = vec!["svc-7".into()];
    assert_eq!(updated, Updated { proxy: true, clusters, reclassified: 1 });
    assert_eq!(before.frontends.diff(&plans.kernel().frontends).len(), 1);
}

#[test]
fn a_host_that_asks_for_the_proxy_touches_the_port_and_the_next_one_does_not() {
    let (mut world, mut plans) = many_services();
    let ejects = |name| Cluster { outlier_detection: Some(OutlierDetection::default()), ..eds_cluster(name) };
    for (name, reclassified) in [("svc-7", 2), ("svc-8", 1)] {
        let outcome = world.clusters(&[ejects(name)]);
        let updated = plans.update(&mut world.interner, &world.snapshot, &outcome.changes);
        assert_eq!(updated.reclassified, reclassified, "{name}");
    }
}

#[test]
fn the_same_content_again_costs_nothing() {
    let (mut world, mut plans) = many_services();
    let before = plans.clone();
    let stored: Vec<_> = world
        .snapshot
        .load_assignments()
        .iter()
        .map(|(name, stored)| orlop_plan::snapshot::Resource {
            name: name.to_string(),
            version: "another".to_owned(),
            body: envoy_types::pb::google::protobuf::Any {
                type_url: ResourceType::ClusterLoadAssignment.type_url().to_owned(),
                value: stored.bytes.bytes(),
            },
        })
        .collect();
    let outcome = world.apply(ResourceType::ClusterLoadAssignment, &stored, &[]);
    assert_eq!((outcome.validated, outcome.deduplicated), (0, 10_000));
    assert!(outcome.changes.is_empty());
    let outcome = world.clusters(&[eds_cluster("svc-1")]);
    let updated = plans.update(&mut world.interner, &world.snapshot, &outcome.changes);
    assert_eq!(updated, Updated::default());
    assert!(plans.proxy().clusters == before.proxy().clusters);
}

#[test]
fn workloads_with_equal_content_share_every_table() {
    let mut world = World::default();
    world.clusters(&[eds_cluster("a")]);
    world.endpoints(&[assignment("a", vec![locality(vec![endpoint("10.0.0.1:80")])])]);
    world.listeners(&[listener("tcp", "10.96.0.1:80", vec![chain(vec![tcp_proxy("a")])])]);
    let one = world.compile(None);
    let mut other = Plans::new(WorkloadFacts::default());
    other.update(&mut world.interner, &world.snapshot, &Changes::all(&world.snapshot));
    assert!(one.kernel() == other.kernel());
    assert!(one.proxy().clusters == other.proxy().clusters);
    assert!(one.proxy().outbound.exact == other.proxy().outbound.exact);
}
