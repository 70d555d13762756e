//! What the kernel tells of connections to whoever wants to know, and what it counts for each service anyhow.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up must fail")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use orlop_datapath::{Datapath, Flow, FlowEvent, Flows};
use orlop_plan::kernel::{InboundAction, OutboundAction};
use support::plan::{PlanExt, balance, nothing};
use support::pod::{POD4, Pod};
use support::process::{Ask, Process};
use support::scene::Scene;
use support::traffic_once_closed;

const VIP: &str = "10.96.0.1:80";
const A: &str = "10.77.0.2:8080";
const NOBODY: &str = "10.77.0.2:9999";

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn wanted(datapath: &mut Datapath) -> Flows {
    datapath.want_flows(true).unwrap();
    datapath.flows().unwrap()
}

/// The next flows, this many.
async fn told(flows: &mut Flows, count: usize) -> Vec<Flow> {
    let mut all = Vec::new();
    while all.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(5), flows.next()).await;
        let Ok(next) = next else { panic!("{} of {count} were told", all.len()) };
        all.extend(next.unwrap());
    }
    all
}

fn server(world: &Pod) -> Process {
    let mut server = Process::start(world);
    server.listen(A, "a");
    server
}

#[tokio::test]
async fn the_end_of_a_balanced_connection_is_told_with_what_went_over_it() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _server = server(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    let mut flows = wanted(&mut datapath);

    let connected = client.connect(VIP);
    let greeting = format!("a {} {}\n", connected.accepted_local, connected.accepted_peer).len() as u64;
    let [flow] = told(&mut flows, 1).await[..] else { panic!("one connection, one flow") };
    assert_eq!(datapath.workload_of(&flow), Some(pod.name.as_str()));
    assert_eq!((flow.event, flow.destination, flow.peer), (FlowEvent::Closed, at(VIP), Some(at(A))));
    assert!(flow.at.elapsed().unwrap_or_default() < Duration::from_secs(5), "{:?}", flow.at);
    assert!(flow.at < SystemTime::now() + Duration::from_secs(1), "{:?}", flow.at);
    let ended = flow.ended.unwrap();
    assert_eq!((ended.sent, ended.received, ended.retransmitted), (0, greeting, 0));
    assert!(ended.rtt > Duration::ZERO && ended.duration < Duration::from_secs(5), "{ended:?}");

    let [way] = datapath.traffic(&pod.name).unwrap()[..] else { panic!("one way") };
    assert_eq!((way.frontend.addr, way.frontend.port, way.endpoint), (Some(at(VIP).ip()), 80, at(A)));
    assert_eq!((way.opened, way.closed, way.sent, way.received), (1, 1, 0, greeting));
}

#[tokio::test]
async fn a_backend_that_takes_no_connection_and_one_that_cuts_it_off_are_told_apart() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _server = server(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(NOBODY, 1)]))).unwrap();
    let mut flows = wanted(&mut datapath);

    client.refused(VIP);
    let [flow] = told(&mut flows, 1).await[..] else { panic!("one connection, one flow") };
    assert_eq!((flow.event, flow.peer), (FlowEvent::Unanswered, Some(at(NOBODY))));
    assert_eq!(flow.ended.map(|ended| (ended.sent, ended.received)), Some((0, 0)));

    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    client.hold(VIP, 1);
    pod.cut_off(A);
    let [flow] = told(&mut flows, 1).await[..] else { panic!("one connection, one flow") };
    assert_eq!((flow.event, flow.peer), (FlowEvent::Reset, Some(at(A))));
}

#[tokio::test]
async fn what_is_refused_or_left_alone_is_told_with_where_it_was_going_or_came_from() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let mut peer = server(&world);
    client.listen(&format!("{POD4}:7000"), "pod");
    let plan = nothing()
        .frontend("10.96.0.2:80", OutboundAction::Block)
        .frontend("10.96.0.3:80", OutboundAction::Proxy)
        .inbound(7001, InboundAction::Drop);
    datapath.apply(&pod.name, &plan).unwrap();
    let mut flows = wanted(&mut datapath);

    client.refused("10.96.0.2:80");
    client.refused("10.96.0.3:80");
    client.connect(A);
    let direct = peer.connect(&format!("{POD4}:7000"));
    peer.refused(&format!("{POD4}:7001"));
    let flows: Vec<_> = told(&mut flows, 5).await;
    let seen: Vec<_> = flows.iter().map(|flow| (flow.event, flow.destination)).collect();
    let own = |port: u16| SocketAddr::new(POD4.parse().unwrap(), port);
    let expected = [
        (FlowEvent::Blocked, at("10.96.0.2:80")),
        (FlowEvent::FailedFast, at("10.96.0.3:80")),
        (FlowEvent::Passed, at(A)),
        (FlowEvent::InboundDirect, own(7000)),
        (FlowEvent::InboundDropped, own(7001)),
    ];
    assert_eq!(seen, expected);
    assert!(flows.iter().all(|flow| flow.ended.is_none()));
    assert_eq!(flows[3].peer, Some(direct.local), "who came");
}

#[tokio::test]
async fn nothing_is_told_that_nobody_wants_to_know() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _server = server(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    let mut flows = datapath.flows().unwrap();
    client.connect(VIP);
    assert_eq!(traffic_once_closed(&datapath, &pod.name)[0].closed, 1, "it is counted all the same");
    datapath.want_flows(true).unwrap();
    client.connect(A);

    let told = told(&mut flows, 1).await;
    assert_eq!(told.iter().map(|flow| flow.event).collect::<Vec<_>>(), [FlowEvent::Passed]);
}

#[tokio::test]
async fn what_finds_no_place_because_nobody_takes_it_away_is_counted() {
    const CONNECTS: u32 = 8000;
    let Scene { node: _node, pod, world: _world, mut client, mut datapath } = Scene::new().await;
    datapath.apply(&pod.name, &nothing().frontend(VIP, OutboundAction::Block)).unwrap();
    let mut flows = wanted(&mut datapath);

    client.ask(&Ask::ConnectMany { to: at(VIP), times: CONNECTS });
    let counters = datapath.counters(&pod.name).unwrap();
    assert_eq!(counters.blocked, u64::from(CONNECTS));
    assert!(counters.flows_lost > 0, "{counters:?}");
    let kept = told(&mut flows, 1).await.len() as u64;
    assert_eq!(kept + counters.flows_lost, u64::from(CONNECTS));
}
