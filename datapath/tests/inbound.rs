//! Connections that arrive at the pod: to the application, to the proxy, or refused.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use orlop_datapath::{Datapath, MARK};
use orlop_plan::kernel::{InboundAction, KernelPlan};
use orlop_podnet::connect_socket;
use support::Node;
use support::plan::{PlanExt, nothing};
use support::pod::{POD6, Pod, WORLD4, pod_and_world};
use support::process::{Process, ip};
use support::proxy::attach_proxy;

const APP: &str = "10.77.0.1:8080";

/// The application greets as `app` on port 8080 of every address of the pod.
fn application(pod: &Pod) -> Process {
    let mut app = Process::start(pod);
    app.listen("[::]:8080", "app");
    app
}

async fn enrolled(node: &Node, pod: &Pod, plan: &KernelPlan) -> Datapath {
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    attach_proxy(&mut datapath, pod);
    datapath.apply(&pod.name, plan).unwrap();
    datapath
}

#[tokio::test]
async fn a_port_of_the_proxys_is_steered_with_its_true_addresses() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let _app = application(&pod);
    let mut client = Process::start(&world);
    let datapath = enrolled(&node, &pod, &nothing().inbound(8080, InboundAction::Proxy)).await;

    let connected = client.connect(APP);
    assert_eq!(connected.greeting, "inbound");
    assert_eq!(connected.accepted_local, APP.parse().unwrap());
    assert_eq!(connected.accepted_peer, connected.local);
    assert_eq!(client.connect(&format!("[{POD6}]:8080")).greeting, "inbound");
    assert_eq!(datapath.counters(&pod.name).unwrap().inbound_proxied, 2);
}

#[tokio::test]
async fn other_ports_follow_the_default() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let _app = application(&pod);
    let mut client = Process::start(&world);
    let mut plan = nothing().inbound(9090, InboundAction::Proxy);
    let mut datapath = enrolled(&node, &pod, &plan).await;

    assert_eq!(client.connect(APP).greeting, "app");
    plan.default_inbound = InboundAction::Proxy;
    datapath.apply(&pod.name, &plan).unwrap();
    assert_eq!(client.connect(APP).greeting, "inbound");
}

#[tokio::test]
async fn a_dropped_port_is_refused_at_once() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let _app = application(&pod);
    let mut client = Process::start(&world);
    let datapath = enrolled(&node, &pod, &nothing().inbound(8080, InboundAction::Drop)).await;

    let (error, after) = client.refused(APP);
    assert_eq!(error, "ConnectionRefused");
    assert!(after.as_millis() < 50, "{after:?}");
    assert_eq!(datapath.counters(&pod.name).unwrap().inbound_dropped, 1);
}

#[tokio::test]
async fn without_a_proxy_an_arrival_that_needs_it_is_refused_even_if_the_pod_fails_open() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let _app = application(&pod);
    let mut client = Process::start(&world);
    let mut datapath = node.open().await;
    let mut spec = pod.spec();
    spec.fail_open = true;
    datapath.enrol(spec).await.unwrap();
    datapath.apply(&pod.name, &nothing().inbound(8080, InboundAction::Proxy)).unwrap();

    assert_eq!(client.refused(APP).0, "ConnectionRefused");
    assert_eq!(datapath.counters(&pod.name).unwrap().inbound_failed_fast, 1);
}

#[tokio::test]
async fn the_pods_connection_to_itself_is_not_steered() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut app = application(&pod);
    let _datapath = enrolled(&node, &pod, &nothing().inbound(8080, InboundAction::Proxy)).await;

    assert_eq!(app.connect(APP).greeting, "app");
    assert_eq!(app.connect("127.0.0.1:8080").greeting, "app");
}

#[tokio::test]
async fn the_application_sees_the_clients_address_through_the_proxy() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let _app = application(&pod);
    let _datapath = enrolled(&node, &pod, &nothing().inbound(8080, InboundAction::Proxy)).await;

    for (app, client) in
        [(APP.to_owned(), WORLD4[1].to_owned()), (format!("[{POD6}]:8080"), "fd77::99".to_owned())]
    {
        let (app, client): (SocketAddr, IpAddr) = (app.parse().unwrap(), client.parse().unwrap());
        let stream = pod.netns.run(|| {
            let socket = connect_socket(app, Some(((client, 0).into(), MARK))).unwrap();
            socket.set_nonblocking(false).unwrap();
            socket.connect_timeout(&app.into(), Duration::from_secs(1)).unwrap();
            TcpStream::from(socket)
        });
        let mut line = String::new();
        BufReader::new(stream.unwrap()).read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[0], "app", "the proxy's own hop is not steered back to it");
        assert_eq!(ip(words[2].parse().unwrap()), client);
    }
}
