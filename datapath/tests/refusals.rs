//! What the datapath refuses, and that a refusal changes nothing.

mod support;

use std::path::Path;
use std::sync::Arc;

use orlop_datapath::{Capacities, Datapath, Error, MapName};
use orlop_plan::kernel::{KernelPlan, OutboundAction};
use orlop_podnet::NetNs;
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::pod_and_world;
use support::process::Process;

const VIP: &str = "10.96.0.1:80";
const A: &str = "10.77.0.2:8080";

#[tokio::test]
async fn a_plan_that_does_not_fit_names_the_map_and_leaves_the_last_one_in_force() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "a");
    let mut client = Process::start(&pod);
    let mut config = node.config();
    config.capacities = Capacities {
        workloads: 1,
        frontends: 2,
        backends: 2,
        inbound: 1,
        ways: 2,
        connections: 2,
        attested: 2,
        exclusions: 1,
        sources: 1,
        largest: 2,
    };
    let mut datapath = Datapath::open(config).await.unwrap();
    datapath.enrol(pod.spec()).await.unwrap();
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    // Connections are counted as they come.
    let usage = |datapath: &Datapath| {
        let usage = datapath
            .usage()
            .into_iter()
            .filter(|usage| !matches!(usage.map, MapName::Traffic | MapName::Connections));
        usage.collect::<Vec<_>>()
    };
    let before = usage(&datapath);

    let many = |n: u16| {
        (1..=n).fold(nothing(), |plan, i| plan.frontend(&format!("10.96.1.{i}:80"), OutboundAction::Block))
    };
    let error = datapath.apply(&pod.name, &many(2)).unwrap_err();
    assert!(matches!(error, Error::MapFull { map: MapName::Frontends, .. }), "{error}");
    assert_eq!(client.connect(VIP).greeting, "a");
    assert_eq!(usage(&datapath), before);
}

#[tokio::test]
async fn a_plan_that_the_kernel_cannot_follow_is_refused() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();

    let balanced = KernelPlan { default_outbound: balance(&[(A, 1)]), ..nothing() };
    assert!(matches!(datapath.apply(&pod.name, &balanced), Err(Error::BalancedDefault)));
    let mapped = nothing().frontend("[::ffff:10.96.0.1]:80", OutboundAction::Block);
    assert!(matches!(datapath.apply(&pod.name, &mapped), Err(Error::AmbiguousFrontend(_))));
    assert!(matches!(datapath.apply("nobody", &nothing()), Err(Error::UnknownWorkload(_))));
}

#[tokio::test]
async fn what_is_no_pods_own_cgroup_or_namespace_is_refused_by_name() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut datapath = node.open().await;

    let mut spec = pod.spec();
    spec.netns = Arc::new(NetNs::open(Path::new("/proc/self/ns/net")).unwrap());
    assert!(matches!(datapath.enrol(spec).await, Err(Error::HostNetwork { .. })));
    for path in ["/tmp".into(), pod.cgroup.parent().unwrap().to_owned()] {
        let mut spec = pod.spec();
        spec.cgroup = path;
        assert!(matches!(datapath.enrol(spec).await, Err(Error::NotACgroup { .. })));
    }
    let mut spec = pod.spec();
    spec.cgroup = pod.cgroup.join("gone");
    let error = datapath.enrol(spec).await.unwrap_err();
    assert!(error.to_string().contains(&pod.cgroup.join("gone").display().to_string()), "{error}");
    assert_eq!(std::fs::read_dir(node.pins().join("links")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_deleted_namespace_is_refused_by_name() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut datapath = node.open().await;
    let mut spec = pod.spec();
    spec.cgroup = world.cgroup.clone();
    drop(pod);

    let error = datapath.enrol(spec).await.unwrap_err();
    assert!(
        matches!(&error, Error::NetNsGone { workload, .. } if error.to_string().contains(workload)),
        "{error}"
    );
}

#[tokio::test]
async fn a_workload_is_enrolled_once() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    assert!(matches!(datapath.enrol(pod.spec()).await, Err(Error::AlreadyEnrolled(_))));
}

#[tokio::test]
async fn this_node_has_every_required_feature() {
    let node = Node::new();
    let features = orlop_datapath::probe::probe(&node.config().pin_root).await;
    let missing: Vec<_> = features.iter().filter(|feature| feature.required && !feature.present).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
