//! Whatever somebody takes away of Orlop's in a pod is put back, counted, and nobody else's business.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::time::Duration;

use orlop_datapath::{Damage, Datapath, Hook, Repair};
use orlop_plan::kernel::OutboundAction;
use support::Node;
use support::plan::{PlanExt, balance, nothing};
use support::pod::{Pod, pod_and_world};
use support::process::Process;
use support::proxy::attach_proxy;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const PROXIED: &str = "10.96.0.2:80";
const BALANCED: &str = "10.96.0.1:80";
const A: &str = "10.77.0.2:8080";
/// In so many turns every workload was looked at.
const ROUND: usize = 5;

/// A datapath that is told of disturbances, with one pod, a service by the proxy and one by the kernel.
async fn guarded(node: &Node, pod: &Pod) -> (Datapath, Receiver<String>) {
    let mut datapath = node.open().await;
    let disturbed = datapath.watch_routing();
    datapath.enrol(pod.spec()).await.unwrap();
    let plan = nothing().frontend(PROXIED, OutboundAction::Proxy).frontend(BALANCED, balance(&[(A, 1)]));
    datapath.apply(&pod.name, &plan).unwrap();
    attach_proxy(&mut datapath, pod);
    (datapath, disturbed)
}

/// Puts routing back each time it is disturbed, until nobody disturbs it. How often that was.
async fn repair_routing(datapath: &mut Datapath, disturbed: &mut Receiver<String>) -> usize {
    let mut times = 0;
    while let Ok(Some(name)) = timeout(Duration::from_millis(500), disturbed.recv()).await {
        let repair = datapath.repair_routing(&name).await.unwrap();
        assert!(repair.outcome.is_ok(), "{repair:?}");
        times += 1;
    }
    times
}

/// A whole round of inspections.
async fn inspect(datapath: &mut Datapath) -> Vec<Damage> {
    let mut damages = Vec::new();
    for _ in 0..ROUND {
        for Repair { damage, outcome, .. } in datapath.inspect().await {
            outcome.unwrap();
            damages.push(damage);
        }
    }
    damages
}

/// Every rule, and the routes that Orlop's lead to.
fn routing(pod: &Pod) -> Vec<String> {
    let table = &orlop_datapath::ROUTE_TABLE.to_string();
    let said = [
        &["rule"][..],
        &["-6", "rule"],
        &["route", "show", "table", table],
        &["-6", "route", "show", "table", table],
    ]
    .map(|args| pod.ip(args))
    .concat();
    let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
    // Rules of one priority come in the order in which they were made.
    lines.sort();
    lines
}

#[tokio::test]
async fn nothing_is_repaired_where_nothing_is_missing() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let (mut datapath, mut disturbed) = guarded(&node, &pod).await;
    pod.ip(&["route", "add", "198.51.100.0/24", "dev", "lo", "table", "77"]);
    pod.ip(&["rule", "add", "fwmark", "7", "lookup", "77"]);
    pod.ip(&["rule", "del", "fwmark", "7", "lookup", "77"]);
    assert_eq!(repair_routing(&mut datapath, &mut disturbed).await, 0);
    assert_eq!(inspect(&mut datapath).await, []);
    assert_eq!(datapath.counters(&pod.name).unwrap().repaired, 0);
}

#[tokio::test]
async fn deleted_and_changed_rules_and_routes_are_put_back() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut client = Process::start(&pod);
    let (mut datapath, mut disturbed) = guarded(&node, &pod).await;
    let before = routing(&pod);
    let table = &orlop_datapath::ROUTE_TABLE.to_string();
    for damage in [
        &["rule", "del", "fwmark", "0x6f72", "lookup", table][..],
        &["-6", "rule", "del", "fwmark", "0x6f72", "lookup", table],
        &["route", "flush", "table", table],
        &["-6", "route", "flush", "table", table],
        &["route", "replace", "local", "default", "dev", "eth0", "table", table],
    ] {
        pod.ip(damage);
        assert!(repair_routing(&mut datapath, &mut disturbed).await > 0, "{damage:?} was not noticed");
        assert_eq!(routing(&pod), before, "after {damage:?}");
        assert_eq!(client.connect(PROXIED).greeting, "outbound");
    }
    assert!(datapath.counters(&pod.name).unwrap().repaired >= 5);
}

#[tokio::test]
async fn a_sysctl_that_was_changed_is_set_again() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let (mut datapath, _disturbed) = guarded(&node, &pod).await;
    pod.netns.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_fwmark_accept", "0")).unwrap().unwrap();
    assert_eq!(inspect(&mut datapath).await, [Damage::Sysctl]);
    assert_eq!(pod.fwmark_accept().trim(), "1");
    datapath.release(&pod.name).await.unwrap();
    assert_eq!(pod.fwmark_accept().trim(), "0", "as it was found");
}

#[tokio::test]
async fn programs_that_were_detached_are_attached_again() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "a");
    let mut client = Process::start(&pod);
    let (mut datapath, _disturbed) = guarded(&node, &pod).await;
    let links = node.pins().join("links").join(&pod.name);
    // The pin is all that holds a link.
    std::fs::remove_file(links.join("connect4")).unwrap();
    assert_eq!(inspect(&mut datapath).await, [Damage::Link(Hook::Connect4)]);
    assert_eq!(client.connect(BALANCED).greeting, "a");

    std::fs::remove_dir_all(&links).unwrap();
    assert_eq!(inspect(&mut datapath).await.len(), 1);
    assert_eq!(client.connect(BALANCED).greeting, "a");
    assert_eq!(client.connect(PROXIED).greeting, "outbound");
    assert_eq!(datapath.counters(&pod.name).unwrap().repaired, 2);

    datapath.release(&pod.name).await.unwrap();
    assert!(!links.exists());
    assert_eq!(pod.fwmark_accept().trim(), "0", "as it was found");
}

#[tokio::test]
async fn a_pod_that_is_not_enrolled_is_left_alone() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let (bystander, _elsewhere) = pod_and_world();
    let (mut datapath, mut disturbed) = guarded(&node, &pod).await;
    let before = bystander.ip(&["rule"]);
    bystander.ip(&["rule", "add", "fwmark", "0x6f72", "lookup", &orlop_datapath::ROUTE_TABLE.to_string()]);
    bystander.ip(&["rule", "del", "fwmark", "0x6f72", "lookup", &orlop_datapath::ROUTE_TABLE.to_string()]);
    assert_eq!(repair_routing(&mut datapath, &mut disturbed).await, 0);
    assert_eq!(bystander.ip(&["rule"]), before);
}

#[tokio::test]
async fn a_socket_that_bears_our_mark_goes_where_the_plan_says() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut servers = Process::start(&world);
    servers.listen(A, "a");
    let mut client = Process::start(&pod);
    let (_datapath, _disturbed) = guarded(&node, &pod).await;
    assert_eq!(client.connect_marked(BALANCED).greeting, "a");
    assert_eq!(client.connect_marked(PROXIED).greeting, "outbound");
    assert_eq!(client.connect_marked(A).greeting, "a", "what no plan names passes, without the mark");
}
