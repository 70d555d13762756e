//! The kernel's own count of open connections is what `ss` sees, however connections begin and end.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use orlop_datapath::{Datapath, MapName};
use orlop_plan::kernel::{BackendSet, Choice, ConnectionLimit, Group, OutboundAction};
use support::plan::{PlanExt, balance, nothing};
use support::pod::{Pod, open_connections};
use support::process::{Ask, Process, Reply};
use support::scene::Scene;

const VIP: &str = "10.96.0.1:80";
const VIP6: &str = "[fd96::1]:80";
const A: &str = "10.77.0.2:8080";
const B: &str = "10.77.0.3:8080";
const SIX: &str = "[fd77::2]:8080";
const NO_ROUTE: &str = "198.51.100.1:8080";
const NOBODY: &str = "10.77.0.4:8080";

fn servers(world: &Pod) -> Process {
    let mut servers = Process::start(world);
    for (at, greeting) in [(A, "a"), (B, "b"), (SIX, "six")] {
        servers.listen(at, greeting);
    }
    servers
}

fn counted(datapath: &Datapath, pod: &Pod) -> BTreeMap<SocketAddr, u64> {
    let mut open = open_connections(datapath, pod);
    open.retain(|_, count| *count > 0);
    open
}

fn used(datapath: &Datapath, map: MapName) -> u32 {
    datapath.usage().into_iter().find(|usage| usage.map == map).unwrap().used
}

/// Waits for the last acknowledgements; what the two see then is the same.
fn agree(datapath: &Datapath, pod: &Pod) -> BTreeMap<SocketAddr, u64> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (counted, seen) = (counted(datapath, pod), pod.ss());
        if counted == seen {
            return counted;
        }
        assert!(Instant::now() < deadline, "counted {counted:?}, ss sees {seen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn least(set: &OutboundAction) -> OutboundAction {
    let OutboundAction::Balance(set) = set else { unreachable!() };
    let groups = vec![Group { share: 1, backends: set.backends.len() }];
    let choice = Choice::LeastConnections { choices: 2, groups };
    OutboundAction::Balance(BackendSet { choice, ..(**set).clone() }.into())
}

#[tokio::test]
async fn the_count_is_what_ss_sees_after_every_kind_of_beginning_and_end() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = servers(&world);
    let plan = nothing()
        .frontend(VIP, least(&balance(&[(A, 1), (B, 1), (NOBODY, 1)])))
        .frontend(VIP6, balance(&[(SIX, 1)]));
    datapath.apply(&pod.name, &plan).unwrap();

    client.churn(&[VIP, VIP6, "[::ffff:10.96.0.1]:80"], 600);
    let open = agree(&datapath, &pod);
    assert!(open.values().sum::<u64>() >= 40, "some are kept: {open:?}");
    client.let_go();
    assert_eq!(agree(&datapath, &pod), BTreeMap::new());
    assert_eq!(datapath.counters(&pod.name).unwrap().untracked, 0);
}

#[tokio::test]
async fn a_connection_of_multipath_tcp_counts_too() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = servers(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();

    let reply = client.ask(&Ask::ConnectMptcp { to: VIP.parse().unwrap() });
    assert!(matches!(reply, Reply::Connected(_)));
    assert_eq!(used(&datapath, MapName::Traffic), 1, "it was counted");
    assert_eq!(agree(&datapath, &pod), BTreeMap::new());
}

#[tokio::test]
async fn a_connect_that_fails_before_its_syn_is_forgotten() {
    let Scene { node: _node, pod, world: _world, mut client, mut datapath } = Scene::new().await;
    pod.ip(&["route", "add", "unreachable", "198.51.100.1/32"]);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(NO_ROUTE, 1)]))).unwrap();

    let (error, _) = client.refused(VIP);
    assert_eq!(error, "HostUnreachable");
    assert_eq!(used(&datapath, MapName::Connections), 1, "no event tells of its end");
    let deadline = Instant::now() + Duration::from_secs(10);
    while used(&datapath, MapName::Connections) > 0 {
        assert!(Instant::now() < deadline, "it is still known");
        tokio::time::sleep(Duration::from_millis(100)).await;
        datapath.close_drained().unwrap();
    }
    assert_eq!(used(&datapath, MapName::Traffic), 0);
}

#[tokio::test]
async fn the_endpoint_with_fewer_open_connections_is_chosen() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = servers(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, balance(&[(A, 1)]))).unwrap();
    client.hold(VIP, 100);

    datapath.apply(&pod.name, &nothing().frontend(VIP, least(&balance(&[(A, 1), (B, 1)])))).unwrap();
    client.hold(VIP, 400);
    let open = agree(&datapath, &pod);
    let (a, b) = (open[&A.parse().unwrap()], open[&B.parse().unwrap()]);
    // Two draws of two endpoints are the same one every other time: the lead shrinks, and never grows again.
    assert_eq!(a + b, 500);
    assert!(a.abs_diff(b) <= 20, "{open:?}");
}

#[tokio::test]
async fn weights_count_in_the_choice_by_open_connections() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = servers(&world);
    datapath.apply(&pod.name, &nothing().frontend(VIP, least(&balance(&[(A, 3), (B, 1)])))).unwrap();

    client.hold(VIP, 400);
    let open = agree(&datapath, &pod);
    let a = open[&A.parse().unwrap()];
    assert!(a.abs_diff(300) <= 20, "three quarters are due: {open:?}");
}

#[tokio::test]
async fn a_cluster_takes_no_more_connections_than_its_limit_and_says_so() {
    let Scene { node: _node, pod, world, mut client, mut datapath } = Scene::new().await;
    let _servers = servers(&world);
    let OutboundAction::Balance(set) = least(&balance(&[(A, 1), (B, 1)])) else { unreachable!() };
    let limit = Some(ConnectionLimit { cluster: "web".into(), connections: 10 });
    let limited = OutboundAction::Balance(BackendSet { limit, ..(*set).clone() }.into());
    datapath
        .apply(&pod.name, &nothing().frontend(VIP, limited.clone()).frontend("10.96.0.2:80", limited))
        .unwrap();

    client.hold(VIP, 5);
    client.hold("10.96.0.2:80", 5);
    let (error, after) = client.refused(VIP);
    assert_eq!(error, "ConnectionRefused");
    assert!(after.as_millis() < 50, "{after:?}");
    assert_eq!(datapath.counters(&pod.name).unwrap().overflowed, 1);

    client.let_go();
    agree(&datapath, &pod);
    client.connect(VIP);
}
