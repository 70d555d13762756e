//! Edits, releases and restarts while connections go on.

mod support;

use std::task::Poll;
use std::time::Duration;

use orlop_datapath::{Applied, Datapath, Error, WorkloadSpec};
use orlop_plan::kernel::{InboundAction, OutboundAction};
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::pod_and_world;
use support::process::Process;
use support::proxy::attach_proxy;
use support::scene::Scene;

const VIP: &str = "10.96.0.1:80";
const A: &str = "10.77.0.2:8080";
const B: &str = "10.77.0.3:8080";

#[tokio::test]
async fn endpoints_flip_under_load_without_a_failed_connect() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let mut servers = Process::start(&world);
    servers.listen(A, "a");
    servers.listen(B, "b");
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();

    client.start_connecting(VIP);
    for round in 0..500 {
        let backends = [&[(A, 1)][..], &[(B, 1)], &[(A, 3), (B, 1)]][round % 3];
        let applied = datapath.apply(&pod.name, &nothing().frontend(VIP, balance(backends))).unwrap();
        assert_eq!(applied.updated, usize::from(round > 0));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let greeted = client.stop_connecting();
    assert!(greeted["a"] > 50 && greeted["b"] > 50, "{greeted:?}");

    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(B, 1)]))).unwrap();
    assert_eq!(
        client.connect_many(VIP, 200).keys().collect::<Vec<_>>(),
        ["b"],
        "an edit holds from the next connect on"
    );
}

#[tokio::test]
async fn a_restart_after_a_crash_is_never_seen_by_connects() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "a");
    servers.listen(B, "b");
    let mut client = Process::start(&pod);
    let start = async |backend| {
        let mut datapath = node.open().await;
        datapath.enrol(pod.spec()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(backend, 1)]))).unwrap();
        datapath
    };
    let crash = |datapath: Datapath| drop(datapath);

    crash(start(A).await);
    assert_eq!(client.connect(VIP).greeting, "a", "the kernel path works without an agent");
    client.start_connecting(VIP);
    for backend in [B, A, B, A, B] {
        crash(start(backend).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let greeted = client.stop_connecting();
    assert!(greeted["a"] > 5 && greeted["b"] > 5, "{greeted:?}");
    assert_eq!(client.connect(VIP).greeting, "b", "the last plan holds");
    let generations = std::fs::read_dir(node.pins()).unwrap();
    let what = "one generation, whose the attachments are, what is known of sockets, and the links";
    assert_eq!(generations.count(), 4, "{what}");
}

#[tokio::test]
async fn an_equal_plan_changes_nothing_and_a_difference_is_counted() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    let plan = nothing().frontend(VIP, balance(&[(A, 1)])).inbound(80, InboundAction::Drop);

    let applied = datapath.apply(&pod.name, &plan).unwrap();
    assert_eq!(applied, Applied { inserted: 2, updated: 0, removed: 0, without_room: 0 });
    assert_eq!(datapath.apply(&pod.name, &plan).unwrap(), Applied::default());
    let other = nothing().frontend(VIP, OutboundAction::Block);
    let applied = datapath.apply(&pod.name, &other).unwrap();
    assert_eq!(applied, Applied { inserted: 0, updated: 1, removed: 1, without_room: 0 });
}

#[tokio::test]
async fn a_release_puts_everything_back() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "direct");
    let mut client = Process::start(&pod);
    let state = || {
        ["rule", "-6 rule", "route show table all", "-6 route show table all"]
            .map(|args| pod.ip(&args.split(' ').collect::<Vec<_>>()))
    };
    let (before, sysctl) = (state(), pod.fwmark_accept());

    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    attach_proxy(&mut datapath, &pod);
    datapath.apply(&pod.name, &nothing().frontend(A, OutboundAction::Proxy)).unwrap();
    assert_eq!(client.connect(A).greeting, "outbound");
    assert_ne!(state(), before);
    datapath.release(&pod.name).await.unwrap();

    assert_eq!(state(), before);
    assert_eq!(pod.fwmark_accept(), sysctl);
    assert_eq!(client.connect(A).greeting, "direct");
    assert_eq!(std::fs::read_dir(node.pins().join("links")).unwrap().count(), 0);
    assert!(datapath.usage().iter().all(|map| map.used == 0));
    assert!(matches!(datapath.release(&pod.name).await, Err(Error::UnknownWorkload(_))));
}

#[tokio::test]
async fn a_pod_that_vanishes_half_way_through_its_enrolment_leaves_nothing() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let state = || {
        ["rule", "-6 rule", "route show table all"].map(|args| pod.ip(&args.split(' ').collect::<Vec<_>>()))
    };
    let (before, sysctl) = (state(), pod.fwmark_accept());
    let mut datapath = node.open().await;
    let spec = || WorkloadSpec { attested: true, ..pod.spec() };

    let mut enrolling = Box::pin(datapath.enrol(spec()));
    let begun = std::future::poll_fn(|cx| Poll::Ready(enrolling.as_mut().poll(cx))).await;
    assert!(begun.is_pending(), "it waits for the kernel's word on the routes");
    assert_ne!(pod.fwmark_accept(), sysctl, "something was done");
    std::fs::remove_dir(&pod.cgroup).unwrap();
    enrolling.await.unwrap_err();

    assert_eq!((state(), pod.fwmark_accept()), (before, sysctl));
    assert_eq!(std::fs::read_dir(node.pins().join("links")).unwrap().count(), 0);
    assert!(datapath.usage().iter().all(|map| map.used == 0), "{:?}", datapath.usage());
    std::fs::create_dir(&pod.cgroup).unwrap();
    datapath.enrol(spec()).await.unwrap();
}

#[tokio::test]
async fn what_a_dead_agent_left_of_a_removed_workload_is_put_back() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "direct");
    let mut client = Process::start(&pod);
    let (rules, sysctl) = (pod.ip(&["rule"]), pod.fwmark_accept());
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    datapath.apply(&pod.name, &nothing().frontend(A, OutboundAction::Block)).unwrap();
    drop(datapath);

    let mut datapath = node.open().await;
    datapath.forget_stale(&[&pod.name]).await.unwrap();
    assert_eq!(client.refused(A).0, "ConnectionRefused", "a workload that is still wanted is not touched");
    datapath.forget_stale(&[]).await.unwrap();
    assert_eq!(client.connect(A).greeting, "direct");
    assert_eq!((pod.ip(&["rule"]), pod.fwmark_accept()), (rules, sysctl));
}

#[tokio::test]
async fn a_namesake_in_another_namespace_does_not_inherit_the_old_links() {
    let node = Node::new();
    let (old, _old_world) = pod_and_world();
    let (new, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "a");
    let mut client = Process::start(&new);
    let mut datapath = node.open().await;
    datapath.enrol(old.spec()).await.unwrap();
    drop(datapath);

    let mut datapath = node.open().await;
    let mut spec = new.spec();
    spec.name = old.name.clone();
    datapath.enrol(spec).await.unwrap();
    datapath.apply(&old.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    assert_eq!(client.connect(VIP).greeting, "a");
}

#[tokio::test]
async fn a_shutdown_without_keep_leaves_nothing() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let rules = pod.ip(&["rule"]);
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();

    datapath.shutdown(false).await.unwrap();
    assert!(!node.pins().exists());
    assert_eq!(pod.ip(&["rule"]), rules);
}
