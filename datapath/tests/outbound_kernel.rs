//! Connections that the kernel balances: no proxy, no cost after the connect.

mod support;

use orlop_plan::kernel::OutboundAction;
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::{Pod, WORLD4, pod_and_world};
use support::process::{Ask, Process, Reply, ip};
use support::scene::Scene;

const VIP: &str = "10.96.0.1:80";

/// A world that greets as `a` and `b` on two addresses.
fn two_backends(world: &Pod) -> Process {
    let mut servers = Process::start(world);
    servers.listen("10.77.0.2:8080", "a");
    servers.listen("10.77.0.3:8080", "b");
    servers
}

#[tokio::test]
async fn connects_follow_the_weights() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = two_backends(&world);
    let plan = nothing().frontend(VIP, balance(&[("10.77.0.2:8080", 70), ("10.77.0.3:8080", 30)]));
    datapath.apply(&pod.name, &plan).unwrap();

    let greeted = client.connect_many(VIP, 2000);
    let share = f64::from(greeted["a"]) / 2000.0;
    assert!((share - 0.7).abs() < 0.05, "{greeted:?}");
    assert_eq!(datapath.counters(&pod.name).unwrap().kernel_balanced, 2000);
}

#[tokio::test]
async fn a_socket_of_ipv6_that_talks_ipv4_is_balanced_too() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = two_backends(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[("10.77.0.3:8080", 1)]))).unwrap();

    assert_eq!(client.connect("[::ffff:10.96.0.1]:80").greeting, "b");
}

#[tokio::test]
async fn native_ipv6_is_balanced_too() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let mut servers = Process::start(&world);
    servers.listen("[fd77::2]:8080", "six");
    datapath
        .apply(&pod.name, &nothing().frontend("[fd96::1]:80", balance(&[("[fd77::2]:8080", 1)])))
        .unwrap();

    let connected = client.connect("[fd96::1]:80");
    assert_eq!((connected.greeting.as_str(), ip(connected.peer)), ("six", "fd77::2".parse().unwrap()));
}

#[tokio::test]
async fn an_any_address_frontend_gives_way_to_an_exact_one() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = two_backends(&world);
    let plan = nothing()
        .frontend(VIP, balance(&[("10.77.0.2:8080", 1)]))
        .any_address(80, balance(&[("10.77.0.3:8080", 1)]));
    datapath.apply(&pod.name, &plan).unwrap();

    assert_eq!(client.connect(VIP).greeting, "a");
    assert_eq!(client.connect("10.96.0.99:80").greeting, "b");
}

#[tokio::test]
async fn destinations_without_a_frontend_follow_the_default() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = two_backends(&world);
    client.listen("127.0.0.1:9000", "self");

    assert_eq!(client.connect("10.77.0.2:8080").greeting, "a", "nothing is steered before the first plan");
    let mut plan = nothing();
    plan.default_outbound = OutboundAction::Block;
    datapath.apply(&pod.name, &plan).unwrap();
    assert_eq!(client.refused("10.77.0.2:8080").0, "ConnectionRefused");
    assert_eq!(client.connect("127.0.0.1:9000").greeting, "self", "loopback is none of the mesh's business");
    assert_eq!(datapath.counters(&pod.name).unwrap().blocked, 1);
}

#[tokio::test]
async fn a_blocked_destination_is_refused_at_once() {
    let Scene { node: _node, pod, world: _world, mut client, mut datapath } = Scene::new().await;
    datapath.apply(&pod.name, &nothing().frontend(VIP, OutboundAction::Block)).unwrap();

    let (error, after) = client.refused(VIP);
    assert_eq!(error, "ConnectionRefused");
    assert!(after.as_millis() < 50, "{after:?}");
}

#[tokio::test]
async fn processes_outside_the_cgroup_are_not_touched() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let _servers = two_backends(&world);
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    let mut plan = nothing();
    plan.default_outbound = OutboundAction::Block;
    datapath.apply(&pod.name, &plan).unwrap();

    let to = (WORLD4[0].parse::<std::net::IpAddr>().unwrap(), 8080).into();
    let connected =
        pod.netns.run(|| std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_secs(1)));
    connected.unwrap().unwrap();
}

#[tokio::test]
async fn multipath_tcp_is_balanced_too() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = two_backends(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[("10.77.0.3:8080", 1)]))).unwrap();

    match client.ask(&Ask::ConnectMptcp { to: VIP.parse().unwrap() }) {
        Reply::Connected(connected) => assert_eq!(connected.greeting, "b"),
        other => panic!("{other:?}"),
    }
}
