//! Every kind of socket that an application may use, and what is none of the datapath's business.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up must fail")]

mod support;

use orlop_datapath::Datapath;
use orlop_plan::kernel::{KernelPlan, OutboundAction};
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::{POD4, Pod, pod_and_world};
use support::process::{Ask, Connected, Process, Reply};
use support::proxy::attach_proxy;

const VIP: &str = "10.96.0.1:80";
const PROXIED: &str = "10.96.0.2:80";
const A: &str = "10.77.0.2:8080";

/// `VIP` leads to `a` by the kernel, `PROXIED` to the proxy.
async fn scene(node: &Node) -> (Pod, Process, [Process; 1], Pod, Datapath) {
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "a");
    let client = Process::start(&pod);
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    attach_proxy(&mut datapath, &pod);
    datapath.apply(&pod.name, &plan()).unwrap();
    (pod, client, [servers], world, datapath)
}

fn plan() -> KernelPlan {
    nothing().frontend(VIP, balance(&[(A, 1)])).frontend(PROXIED, OutboundAction::Proxy)
}

fn connected(client: &mut Process, ask: &Ask) -> Connected {
    match client.ask(ask) {
        Reply::Connected(connected) => connected,
        other => panic!("{other:?}"),
    }
}

/// Both ends of a balanced connection see what `ss` sees, and of a proxied one too.
fn carried(connected: &Connected, greeting: &str, peer: &str) {
    assert_eq!((connected.greeting.as_str(), connected.peer), (greeting, peer.parse().unwrap()));
    assert_eq!(connected.accepted_local, connected.peer);
    assert_eq!(connected.accepted_peer, connected.local);
}

#[tokio::test]
async fn a_connect_that_does_not_block_is_carried() {
    let node = Node::new();
    let (_pod, mut client, _servers, _world, _datapath) = scene(&node).await;
    let ask = |to: &str| Ask::ConnectNonblocking { to: to.parse().unwrap() };
    carried(&connected(&mut client, &ask(VIP)), "a", A);
    carried(&connected(&mut client, &ask(PROXIED)), "outbound", PROXIED);
}

#[tokio::test]
async fn fast_open_is_carried_and_counted() {
    let node = Node::new();
    let (pod, mut client, _servers, _world, datapath) = scene(&node).await;
    let ask = |to: &str| Ask::ConnectFastOpen { to: to.parse().unwrap() };
    carried(&connected(&mut client, &ask(VIP)), "a", A);
    carried(&connected(&mut client, &ask(PROXIED)), "outbound", PROXIED);
    let counters = datapath.counters(&pod.name).unwrap();
    assert_eq!((counters.kernel_balanced, counters.proxied, counters.untracked), (1, 1, 0));
}

/// QUIC and the rest of UDP: also at the ports of HTTP, which are the proxy's or blocked for TCP.
#[tokio::test]
async fn datagrams_pass_untouched_whatever_is_said_of_the_address() {
    const PORTS: [&str; 4] = [A, "[fd77::2]:8080", "10.77.0.2:443", "[fd77::2]:8443"];
    let node = Node::new();
    let (pod, mut client, mut servers, _world, mut datapath) = scene(&node).await;
    for at in PORTS {
        let listen = Ask::ListenUdp { at: at.parse().unwrap(), greeting: "datagram".to_owned() };
        assert!(matches!(servers[0].ask(&listen), Reply::Listening));
    }
    let mut blocked = plan().frontend(A, OutboundAction::Block).any_address(443, OutboundAction::Proxy);
    blocked.default_outbound = OutboundAction::Block;
    datapath.apply(&pod.name, &blocked).unwrap();

    for at in PORTS {
        for connected in [false, true] {
            match client.ask(&Ask::Udp { to: at.parse().unwrap(), connected }) {
                Reply::Answered { by, from } => {
                    assert_eq!((by.as_str(), from), ("datagram", at.parse().unwrap()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(datapath.counters(&pod.name).unwrap().blocked, 0);
}

#[tokio::test]
async fn a_pod_reaches_itself_through_its_own_service() {
    let node = Node::new();
    let (pod, mut client, _servers, _world, mut datapath) = scene(&node).await;
    client.listen(&format!("{POD4}:9090"), "self");
    let hairpin = nothing().frontend(VIP, balance(&[(&format!("{POD4}:9090"), 1)]));
    datapath.apply(&pod.name, &hairpin).unwrap();

    assert_eq!(client.connect(VIP).greeting, "self");
}

#[tokio::test]
async fn a_pods_own_address_is_left_alone_beside_the_service_that_has_it() {
    let node = Node::new();
    let (pod, mut client, _servers, _world, datapath) = scene(&node).await;
    carried(&client.connect(A), "a", A);
    let counters = datapath.counters(&pod.name).unwrap();
    assert_eq!((counters.passthrough, counters.kernel_balanced), (1, 0));
    assert_eq!(datapath.traffic(&pod.name).unwrap(), []);
}

#[tokio::test]
async fn a_service_may_have_any_number_of_ports_and_endpoints() {
    let node = Node::new();
    let (pod, mut client, mut servers, _world, mut datapath) = scene(&node).await;
    let endpoints: Vec<_> = (20_000..20_100_u16).map(|port| format!("10.77.0.2:{port}")).collect();
    for endpoint in &endpoints {
        servers[0].listen(endpoint, endpoint);
    }
    let set: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.as_str(), 1)).collect();
    let many =
        (1..=40).fold(nothing(), |plan, port| plan.frontend(&format!("10.96.0.1:{port}"), balance(&set)));
    datapath.apply(&pod.name, &many).unwrap();

    let greeted = client.connect_many("10.96.0.1:40", 1500);
    assert!(greeted.len() > 95, "of 100 endpoints hardly one is missed: {}", greeted.len());
    assert!(client.connect("10.96.0.1:1").greeting.starts_with("10.77.0.2:20"));
}
