//! Maps that are too small for a plan grow, and no connect notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up must fail")]

mod support;

use std::fs;
use std::time::Duration;

use orlop_datapath::{Capacities, Datapath, MapName};
use orlop_plan::kernel::{Frontend, InboundAction, KernelPlan, OutboundAction};
use orlop_shared_map::Pool;
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::{POD4, Pod, pod_and_world};
use support::process::Process;

const VIP: &str = "10.96.0.1:80";
const A: &str = "10.77.0.2:8080";

async fn small(node: &Node) -> Datapath {
    let mut config = node.config();
    config.capacities = Capacities { frontends: 4, backends: 4, inbound: 1, ..Capacities::default() };
    Datapath::open(config).await.unwrap()
}

fn capacity(datapath: &Datapath, map: MapName) -> u32 {
    datapath.usage().into_iter().find(|usage| usage.map == map).unwrap().capacity
}

/// So many services, each with an endpoint of its own, beside the one that is connected to.
fn services(count: u16) -> KernelPlan {
    let service = |port: u16| {
        let frontend = Frontend { addr: Some([10, 96, 1, 1].into()), port };
        (frontend, Some(balance(&[(&format!("10.77.0.2:{port}"), 1)])))
    };
    let mut plan = nothing().frontend(VIP, balance(&[(A, 1)]));
    plan.frontends.edit(&mut Pool::new(), (1..=count).map(service));
    plan
}

async fn enrolled(datapath: &mut Datapath, pod: &Pod, plan: &KernelPlan) {
    datapath.enrol(pod.spec()).await.unwrap();
    datapath.apply(&pod.name, plan).unwrap();
}

#[tokio::test]
async fn no_connect_fails_and_no_open_connection_is_forgotten_while_maps_grow() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut server = Process::start(&world);
    server.listen(A, "a");
    let (mut client, mut holder) = (Process::start(&pod), Process::start(&pod));
    let mut datapath = small(&node).await;
    enrolled(&mut datapath, &pod, &services(1)).await;
    holder.hold(VIP, 3);

    client.start_connecting(VIP);
    for count in [10, 100, 1000, 3000] {
        datapath.apply(&pod.name, &services(count)).unwrap();
        assert!(capacity(&datapath, MapName::Frontends) > u32::from(count));
        assert!(capacity(&datapath, MapName::Backends) > u32::from(count));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let greeted = client.stop_connecting();
    assert!(greeted["a"] > 50, "{greeted:?}");
    let open: u64 = support::pod::open_connections(&datapath, &pod).values().sum();
    assert_eq!(open, 3);

    datapath.apply(&pod.name, &nothing().frontend(VIP, OutboundAction::Block)).unwrap();
    assert_eq!(client.refused(VIP).0, "ConnectionRefused", "the new map is the one that counts");
}

#[tokio::test]
async fn what_other_pods_have_is_carried_over() {
    let node = Node::new();
    let (first, first_world) = pod_and_world();
    let (second, _second_world) = pod_and_world();
    let mut server = Process::start(&first_world);
    server.listen(A, "a");
    let mut client = Process::start(&first);
    client.listen(&format!("{POD4}:7000"), "pod");
    let mut datapath = small(&node).await;
    let plan = nothing().frontend(VIP, balance(&[(A, 1)])).inbound(7001, InboundAction::Drop);
    enrolled(&mut datapath, &first, &plan).await;
    let grown = services(200).inbound(1, InboundAction::Drop).inbound(2, InboundAction::Drop);
    enrolled(&mut datapath, &second, &grown).await;

    assert_eq!(client.connect(VIP).greeting, "a");
    assert_eq!(server.refused(&format!("{POD4}:7001")).0, "ConnectionRefused");
    assert_eq!(server.connect(&format!("{POD4}:7000")).greeting, "pod");
    assert_eq!(datapath.counters(&first.name).unwrap().inbound_dropped, 1, "counters go on");
}

#[tokio::test]
async fn a_map_that_was_replaced_is_no_more_pinned_and_the_next_agent_starts_as_usual() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut server = Process::start(&world);
    server.listen(A, "a");
    let mut client = Process::start(&pod);
    let mut datapath = small(&node).await;
    enrolled(&mut datapath, &pod, &services(100)).await;

    let mut pins = Vec::new();
    for entry in fs::read_dir(node.pins()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("gen-") {
            pins.extend(
                fs::read_dir(entry.path())
                    .unwrap()
                    .map(|pin| pin.unwrap().file_name().into_string().unwrap()),
            );
        }
    }
    let frontends: Vec<_> = pins.iter().filter(|pin| pin.starts_with("FRONTENDS")).collect();
    assert_eq!(frontends.len(), 1, "{pins:?}");

    drop(datapath);
    assert_eq!(client.connect(VIP).greeting, "a", "the kernel path works without an agent");
    let mut datapath = node.open().await;
    enrolled(&mut datapath, &pod, &services(100)).await;
    assert_eq!(client.connect(VIP).greeting, "a");
}
