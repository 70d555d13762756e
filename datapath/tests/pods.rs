//! Every kind of pod and of socket that an application may have.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up must fail")]

mod support;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use orlop_datapath::{Datapath, MapName, MapUsage};
use orlop_plan::kernel::{KernelPlan, OutboundAction};
use support::plan::{PlanExt, balance, nothing};
use support::pod::{POD4, Pod, lonely_pod, pod_and_world};
use support::process::{Ask, Connected, Process, Reply};
use support::scene::Scene;
use support::{Node, traffic_once_closed};

const VIP: &str = "10.96.0.1:80";
const A: &str = "10.77.0.2:8080";
const B: &str = "10.77.0.3:8080";

fn server(world: &Pod, at: &str, greeting: &str) -> Process {
    let mut server = Process::start(world);
    server.listen(at, greeting);
    server
}

fn connected(reply: Reply) -> Connected {
    match reply {
        Reply::Connected(connected) => connected,
        other => panic!("{other:?}"),
    }
}

async fn carry(datapath: &mut Datapath, pod: &Pod, plan: &KernelPlan) {
    datapath.enrol(pod.spec()).await.unwrap();
    datapath.apply(&pod.name, plan).unwrap();
}

#[tokio::test]
async fn a_connect_by_io_uring_is_carried() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _server = server(&world, A, "a");
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();

    let connected = connected(client.ask(&Ask::ConnectByRing { to: VIP.parse().unwrap() }));
    assert_eq!((connected.greeting.as_str(), connected.accepted_local), ("a", A.parse().unwrap()));
    assert_eq!(datapath.counters(&pod.name).unwrap().kernel_balanced, 1);

    datapath.apply(&pod.name, &nothing().frontend(VIP, OutboundAction::Block)).unwrap();
    let refused = client.ask(&Ask::ConnectByRing { to: VIP.parse().unwrap() });
    assert!(matches!(&refused, Reply::Refused { error, .. } if error == "ConnectionRefused"), "{refused:?}");
}

#[tokio::test]
async fn icmp_passes_whatever_is_said_of_the_address() {
    let Scene { node: _node, pod, world: _world, mut client, mut datapath } = Scene::new().await;
    let plan = KernelPlan { default_outbound: OutboundAction::Block, ..nothing() };
    datapath.apply(&pod.name, &plan).unwrap();

    let to: SocketAddr = A.parse().unwrap();
    let reply = client.ask(&Ask::Ping { to: to.ip() });
    assert!(matches!(reply, Reply::Answered { from, .. } if from.ip() == to.ip()), "{reply:?}");
}

#[tokio::test]
async fn the_same_four_tuple_in_two_pods_is_two_connections() {
    let node = Node::new();
    let mut datapath = node.open().await;
    let (first, first_world) = pod_and_world();
    let (second, second_world) = pod_and_world();
    let _servers = [server(&first_world, A, "first"), server(&second_world, A, "second")];
    let plan = nothing().frontend(VIP, balance(&[(A, 1)]));
    let (from, to) = (format!("{POD4}:50000").parse().unwrap(), VIP.parse().unwrap());
    for pod in [&first, &second] {
        carry(&mut datapath, pod, &plan).await;
    }

    let mut clients = [Process::start(&first), Process::start(&second)];
    let reached = clients.each_mut().map(|client| connected(client.ask(&Ask::ConnectFrom { from, to })));
    assert_eq!(reached.each_ref().map(|reached| reached.greeting.as_str()), ["first", "second"]);
    assert_eq!(reached[0].accepted_peer, reached[1].accepted_peer, "the tuple is the same");
    for pod in [&first, &second] {
        let [way] = traffic_once_closed(&datapath, &pod.name)[..] else { panic!("one way each") };
        assert_eq!((way.opened, way.closed), (1, 1));
    }
}

#[tokio::test]
async fn a_pod_without_ipv6_is_carried_by_ipv4() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let off = |path| fs::write(path, "1").unwrap();
    pod.netns.run(|| off("/proc/sys/net/ipv6/conf/all/disable_ipv6")).unwrap();
    let _server = server(&world, A, "a");
    let mut client = Process::start(&pod);
    let mut datapath = node.open().await;
    let mut spec = pod.spec();
    spec.addresses.retain(IpAddr::is_ipv4);
    datapath.enrol(spec).await.unwrap();
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();

    assert_eq!(client.connect(VIP).greeting, "a");
    datapath.release(&pod.name).await.unwrap();
    assert_eq!(pod.ip(&["rule"]).lines().count(), 3, "the kernel's own rules");
}

#[tokio::test]
async fn a_container_in_a_cgroup_below_the_pods_is_the_pods() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _server = server(&world, A, "a");
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    let container = pod.cgroup.join("container").join("nested");
    fs::create_dir_all(&container).unwrap();
    fs::write(container.join("cgroup.procs"), client.id().to_string()).unwrap();

    assert_eq!(client.connect(VIP).greeting, "a");
    assert_eq!(datapath.counters(&pod.name).unwrap().kernel_balanced, 1);
    drop(client);
    fs::remove_dir(&container).unwrap();
    fs::remove_dir(pod.cgroup.join("container")).unwrap();
}

async fn come_and_go(datapath: &mut Datapath) {
    let pod = lonely_pod();
    carry(datapath, &pod, &nothing().frontend(VIP, balance(&[(A, 1), (B, 1)]))).await;
    datapath.release(&pod.name).await.unwrap();
    assert_eq!(pod.ip(&["rule"]).lines().count(), 3, "the kernel's own rules");
}

#[tokio::test]
async fn a_thousand_pods_that_come_and_go_leave_nothing() {
    const PODS: usize = 1000;
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let node = Node::new();
    let mut datapath = node.open().await;
    let open = descriptors();

    for _ in 0..PODS {
        come_and_go(&mut datapath).await;
    }

    // Slots that a hook might still have been reading are given back when somebody needs some, a second later.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    come_and_go(&mut datapath).await;
    for MapUsage { map, used, .. } in datapath.usage() {
        let last = if map == MapName::Backends { 2 } else { 0 };
        assert!(used <= last, "{map}: {used} entries");
    }
    assert_eq!(fs::read_dir(node.pins().join("links")).unwrap().count(), 0);
    // Other tests of this process open some of their own; a leak would be of a thousand.
    assert!(descriptors() < open + PODS / 5, "{} descriptors, {open} before", descriptors());
}
