//! Endpoints that go: nobody is sent there, what is open may end by itself, and what does not is closed.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use orlop_datapath::Datapath;
use orlop_plan::kernel::OutboundAction;
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::{Pod, open_connections, pod_and_world};
use support::process::Process;

const VIP: &str = "10.96.0.1:80";
const OTHER: &str = "10.96.0.2:80";
const A: &str = "10.77.0.2:8080";
const B: &str = "10.77.0.3:8080";
const SIX: &str = "[fd77::2]:8080";
const DRAIN: Duration = Duration::from_millis(200);

async fn open(node: &Node) -> Datapath {
    let mut config = node.config();
    config.drain_time = DRAIN;
    Datapath::open(config).await.unwrap()
}

/// A pod that is enrolled, and servers at all three addresses.
async fn scene(node: &Node) -> (Pod, Process, [Process; 1], Pod, Datapath) {
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    for (at, greeting) in [(A, "a"), (B, "b"), (SIX, "six")] {
        servers.listen(at, greeting);
    }
    let client = Process::start(&pod);
    let mut datapath = open(node).await;
    datapath.enrol(pod.spec()).await.unwrap();
    (pod, client, [servers], world, datapath)
}

fn held(client: &mut Process, at: &str) -> u32 {
    client.held().get(&at.parse::<SocketAddr>().unwrap()).copied().unwrap_or_default()
}

#[tokio::test]
async fn connections_to_a_removed_endpoint_drain_and_are_then_closed() {
    let node = Node::new();
    let (pod, mut client, _servers, _world, mut datapath) = scene(&node).await;
    let both = nothing().frontend(OTHER, balance(&[(B, 1)]));
    datapath.apply(&pod.name, &both.clone().frontend(VIP, balance(&[(B, 1)]))).unwrap();
    client.hold(VIP, 5);
    client.hold(OTHER, 2);
    client.hold(B, 1);

    datapath.apply(&pod.name, &both.frontend(VIP, balance(&[(A, 1)]))).unwrap();
    assert_eq!(client.connect(VIP).greeting, "a", "nobody is sent there any more");
    assert_eq!(datapath.close_drained().unwrap().closed, 0);
    assert_eq!(held(&mut client, B), 8, "they may end by themselves");

    tokio::time::sleep(DRAIN).await;
    assert_eq!(datapath.close_drained().unwrap().closed, 5);
    assert_eq!(held(&mut client, B), 3, "another service's and the application's own are not meant");
    assert_eq!(datapath.close_drained().unwrap().closed, 0);
    assert_eq!(datapath.counters(&pod.name).unwrap().drained, 5);
}

#[tokio::test]
async fn an_endpoint_that_is_back_in_time_keeps_its_connections() {
    let node = Node::new();
    let (pod, mut client, _servers, _world, mut datapath) = scene(&node).await;
    let with = nothing().frontend(VIP, balance(&[(B, 1)]));
    datapath.apply(&pod.name, &with).unwrap();
    client.hold(VIP, 3);

    datapath.apply(&pod.name, &nothing().frontend(VIP, OutboundAction::Block)).unwrap();
    datapath.apply(&pod.name, &with).unwrap();
    tokio::time::sleep(DRAIN).await;
    assert_eq!(datapath.close_drained().unwrap().closed, 0);
    assert_eq!(held(&mut client, B), 3);
}

#[tokio::test]
async fn a_removed_service_ends_likewise_for_ipv6_and_ipv4_mapped_sockets() {
    let node = Node::new();
    let (pod, mut client, _servers, _world, mut datapath) = scene(&node).await;
    let plan = nothing().frontend("[fd96::1]:80", balance(&[(SIX, 1)])).frontend(VIP, balance(&[(A, 1)]));
    datapath.apply(&pod.name, &plan).unwrap();
    client.hold("[fd96::1]:80", 2);
    client.hold("[::ffff:10.96.0.1]:80", 2);

    datapath.apply(&pod.name, &nothing()).unwrap();
    tokio::time::sleep(DRAIN).await;
    assert_eq!(datapath.close_drained().unwrap().closed, 4);
    assert_eq!(client.held().len(), 0);
}

#[tokio::test]
async fn what_an_endpoint_lost_while_no_agent_ran_is_closed_by_the_next_one() {
    let node = Node::new();
    let (pod, mut client, _servers, _world, mut datapath) = scene(&node).await;
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(B, 1)]))).unwrap();
    client.hold(VIP, 3);
    drop(datapath);

    let mut datapath = open(&node).await;
    datapath.enrol(pod.spec()).await.unwrap();
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    assert_eq!(open_connections(&datapath, &pod), [(B.parse().unwrap(), 3)].into());
    tokio::time::sleep(DRAIN).await;
    assert_eq!(datapath.close_drained().unwrap().closed, 3);
    assert_eq!(
        datapath.traffic(&pod.name).unwrap(),
        [],
        "nothing is left of a way that nobody is led any more"
    );
}
