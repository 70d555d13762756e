//! Connections that go by the proxy: marked at connect, looped, steered, with nothing rewritten.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use orlop_datapath::{Datapath, ListenerRole};
use orlop_plan::kernel::OutboundAction;
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::{POD4, POD6, Pod, pod_and_world};
use support::process::{Ask, Process, Reply, ip};
use support::proxy::{attach_proxy, listen};

const VIP: &str = "10.96.0.2:80";
const VIP6: &str = "[fd96::2]:80";

async fn proxied(node: &Node, pod: &Pod) -> Datapath {
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    let plan = nothing().frontend(VIP, OutboundAction::Proxy).frontend(VIP6, OutboundAction::Proxy);
    datapath.apply(&pod.name, &plan).unwrap();
    datapath
}

#[tokio::test]
async fn both_ends_see_the_true_addresses() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut client = Process::start(&pod);
    let mut datapath = proxied(&node, &pod).await;
    attach_proxy(&mut datapath, &pod);

    let connected = client.connect(VIP);
    assert_eq!(connected.greeting, "outbound");
    assert_eq!(
        connected.accepted_local,
        VIP.parse().unwrap(),
        "the proxy's socket is the original destination"
    );
    assert_eq!(ip(connected.accepted_peer), POD4.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(connected.peer, VIP.parse().unwrap(), "the application sees the address it asked for");
    assert_eq!(connected.local, connected.accepted_peer, "ss agrees on both ends");
    assert_eq!(datapath.counters(&pod.name).unwrap().proxied, 1);
}

#[tokio::test]
async fn ipv6_and_ipv4_mapped_destinations_are_carried_likewise() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut client = Process::start(&pod);
    let mut datapath = proxied(&node, &pod).await;
    attach_proxy(&mut datapath, &pod);

    let connected = client.connect(VIP6);
    assert_eq!((connected.greeting.as_str(), connected.accepted_local), ("outbound", VIP6.parse().unwrap()));
    assert_eq!(ip(connected.accepted_peer), POD6.parse::<std::net::IpAddr>().unwrap());
    let connected = client.connect("[::ffff:10.96.0.2]:80");
    assert_eq!((connected.greeting.as_str(), connected.accepted_local), ("outbound", VIP.parse().unwrap()));
}

#[tokio::test]
async fn without_a_proxy_the_connect_is_refused_at_once() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut client = Process::start(&pod);
    let mut datapath = proxied(&node, &pod).await;
    let listener = listen(&pod, "127.0.0.1:15001");
    datapath.set_listener(&pod.name, ListenerRole::Outbound, &listener).unwrap();
    drop(listener);

    let (error, after) = client.refused(VIP);
    assert_eq!(error, "ConnectionRefused");
    assert!(after.as_millis() < 50, "{after:?}");
    assert_eq!(datapath.counters(&pod.name).unwrap().failed_fast, 1);
}

#[tokio::test]
async fn a_process_of_the_pod_that_binds_the_proxys_port_is_not_taken_for_it() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut client = Process::start(&pod);
    let datapath = proxied(&node, &pod).await;
    client.listen("127.0.0.1:15001", "impostor");

    assert_eq!(client.refused(VIP).0, "ConnectionRefused");
    assert_eq!(datapath.counters(&pod.name).unwrap().proxied, 0);
}

#[tokio::test]
async fn a_proxy_without_an_ipv6_listener_refuses_ipv6_and_says_so() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut client = Process::start(&pod);
    let mut datapath = proxied(&node, &pod).await;
    let listener = listen(&pod, "127.0.0.1:15001");
    datapath.set_listener(&pod.name, ListenerRole::Outbound, &listener).unwrap();

    assert_eq!(client.refused(VIP6).0, "ConnectionRefused");
    assert_eq!(datapath.counters(&pod.name).unwrap().failed_fast, 1);
}

#[tokio::test]
async fn fail_open_goes_directly_when_the_proxy_is_not_there() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut server = Process::start(&world);
    server.listen("10.77.0.2:8080", "direct");
    let mut client = Process::start(&pod);
    let mut datapath = node.open().await;
    let mut spec = pod.spec();
    spec.fail_open = true;
    datapath.enrol(spec).await.unwrap();
    datapath.apply(&pod.name, &nothing().frontend("10.77.0.2:8080", OutboundAction::Proxy)).unwrap();

    assert_eq!(client.connect("10.77.0.2:8080").greeting, "direct");
    assert_eq!(datapath.counters(&pod.name).unwrap().failed_open, 1);
}

#[tokio::test]
async fn a_socket_that_went_by_the_proxy_once_may_go_elsewhere_next() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut server = Process::start(&world);
    server.listen("10.77.0.2:8080", "direct");
    let mut client = Process::start(&pod);
    let mut datapath = proxied(&node, &pod).await;
    attach_proxy(&mut datapath, &pod);

    let ask = Ask::Reconnect { first: VIP.parse().unwrap(), then: "10.77.0.2:8080".parse().unwrap() };
    match client.ask(&ask) {
        Reply::Connected(connected) => assert_eq!(connected.greeting, "direct"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_edit_of_the_plan_moves_new_connections_between_the_paths() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut server = Process::start(&world);
    server.listen("10.77.0.2:8080", "kernel");
    let mut client = Process::start(&pod);
    let mut datapath = proxied(&node, &pod).await;
    attach_proxy(&mut datapath, &pod);

    assert_eq!(client.connect(VIP).greeting, "outbound");
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[("10.77.0.2:8080", 1)]))).unwrap();
    assert_eq!(client.connect(VIP).greeting, "kernel");
}

#[tokio::test]
async fn multipath_tcp_is_carried_by_plain_tcp() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut client = Process::start(&pod);
    let mut datapath = proxied(&node, &pod).await;
    attach_proxy(&mut datapath, &pod);

    match client.ask(&Ask::ConnectMptcp { to: VIP.parse().unwrap() }) {
        Reply::Connected(connected) => assert_eq!(connected.greeting, "outbound"),
        other => panic!("{other:?}"),
    }
}
