//! Connections among the workloads of a node: the kernel knows who makes them, from whatever address others come.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::net::IpAddr;

use orlop_datapath::{Datapath, MapName, WorkloadSpec};
use orlop_plan::kernel::{InboundAction, KernelPlan, SourceAction, SourceActions};
use support::Node;
use support::plan::{PlanExt, balance, by_source, nothing};
use support::pod::{POD6, Pod, WORLD4, WORLD6, beside, pod_and_world};
use support::process::{Ask, Process, Reply};

const APP: &str = "10.77.0.1:8080";
const VIP: &str = "10.96.0.1:80";

/// Nobody is let in who is not attested.
const ATTESTED: SourceActions =
    SourceActions { anybody: SourceAction::Drop, attested: Some(SourceAction::Direct) };
/// Not even then.
const NOBODY: SourceActions =
    SourceActions { anybody: SourceAction::Drop, attested: Some(SourceAction::Drop) };

/// Two workloads of a node, of which one lets in whom the kernel attests, and another process on the network of the other.
/// Ends in this order.
struct Neighbours {
    _app: Process,
    client: Process,
    impostor: Process,
    datapath: Datapath,
    server_pod: Pod,
    _impostor_pod: Pod,
    client_pod: Pod,
    _node: Node,
}

impl Neighbours {
    async fn new() -> Self {
        Self::with(true).await
    }

    /// `attested` is whether the kernel vouches for the client.
    async fn with(attested: bool) -> Self {
        let node = Node::new();
        let (server_pod, client_pod) = pod_and_world();
        let mut app = Process::start(&server_pod);
        app.listen("[::]:8080", "app");
        let impostor_pod = beside(&client_pod);
        let (client, impostor) = (Process::start(&client_pod), Process::start(&impostor_pod));
        let mut datapath = node.open().await;
        datapath.enrol(WorkloadSpec { attested: true, ..server_pod.spec() }).await.unwrap();
        datapath.enrol(WorkloadSpec { attested, ..client_spec(&client_pod) }).await.unwrap();
        let plan = nothing().frontend(VIP, balance(&[(APP, 1)]));
        datapath.apply(&client_pod.name, &plan).unwrap();
        let mut this = Self {
            _app: app,
            client,
            impostor,
            datapath,
            server_pod,
            _impostor_pod: impostor_pod,
            client_pod,
            _node: node,
        };
        this.let_in(ATTESTED);
        this
    }

    fn let_in(&mut self, actions: SourceActions) {
        let default_inbound = everywhere(actions);
        let plan = KernelPlan { default_inbound, ..nothing() };
        self.datapath.apply(&self.server_pod.name, &plan).unwrap();
    }

    /// How many connections the kernel remembers the maker of.
    fn remembered(&self) -> u32 {
        self.datapath.usage().iter().find(|usage| usage.map == MapName::Attested).unwrap().used
    }

    fn attested(&self) -> u64 {
        self.datapath.counters(&self.server_pod.name).unwrap().inbound_attested
    }
}

/// The client has the first of the world's addresses of either family for its own.
fn client_spec(pod: &Pod) -> WorkloadSpec {
    let addresses = [WORLD4[0], WORLD6].map(|address| address.parse::<IpAddr>().unwrap()).to_vec();
    WorkloadSpec { addresses, ..pod.spec() }
}

fn everywhere(actions: SourceActions) -> InboundAction {
    by_source(&[("0.0.0.0/0", actions), ("::/0", actions)])
}

#[tokio::test]
async fn a_workload_is_let_in_for_what_the_kernel_saw_and_another_process_on_its_address_is_not() {
    let mut scene = Neighbours::new().await;
    let all = [APP, &format!("[{POD6}]:8080"), "[::ffff:10.77.0.1]:8080"];
    for to in all {
        assert_eq!(scene.client.connect(to).greeting, "app", "{to}");
        assert_eq!(scene.impostor.refused(to).0, "ConnectionRefused", "{to}");
    }
    let counters = scene.datapath.counters(&scene.server_pod.name).unwrap();
    assert_eq!((counters.inbound_attested, counters.inbound_denied, counters.inbound_direct), (3, 3, 0));
}

#[tokio::test]
async fn it_is_known_behind_the_address_of_a_service_and_by_every_way_to_connect() {
    let mut scene = Neighbours::new().await;
    assert_eq!(scene.client.connect(VIP).greeting, "app");
    let to = APP.parse().unwrap();
    for ask in [
        Ask::ConnectNonblocking { to },
        Ask::ConnectFastOpen { to },
        Ask::ConnectByRing { to },
        Ask::ConnectMptcp { to },
        Ask::Reconnect { first: VIP.parse().unwrap(), then: to },
    ] {
        match scene.client.ask(&ask) {
            Reply::Connected(connected) => assert_eq!(connected.greeting, "app"),
            refused => panic!("{refused:?}"),
        }
    }
    assert_eq!(scene.client.connect_many(VIP, 500), [("app".to_owned(), 500)].into());
    assert_eq!(scene.attested(), 507);
}

#[tokio::test]
async fn from_an_address_that_is_not_its_own_it_is_anybody() {
    let mut scene = Neighbours::new().await;
    let from = format!("{}:0", WORLD4[1]).parse().unwrap();
    let ask = Ask::ConnectFrom { from, to: APP.parse().unwrap() };
    let Reply::Refused { error, .. } = scene.client.ask(&ask) else { panic!("it was let in") };
    assert_eq!(error, "ConnectionRefused");
}

#[tokio::test]
async fn the_four_numbers_of_a_connection_that_is_over_open_nothing() {
    let mut scene = Neighbours::new().await;
    // The application closes first and keeps the TIME_WAIT, so the port is free when the connection is over.
    let from = format!("{}:40123", WORLD4[0]).parse().unwrap();
    let ask = Ask::ConnectFrom { from, to: APP.parse().unwrap() };
    assert!(matches!(scene.client.ask(&ask), Reply::Connected(_)));
    assert_eq!(scene.remembered(), 0, "what is over is forgotten");
    let Reply::Refused { error, .. } = scene.impostor.ask(&ask) else { panic!("it was let in") };
    assert_eq!(error, "ConnectionRefused");
}

#[tokio::test]
async fn a_policy_that_changes_closes_what_was_let_in_for_it() {
    let mut scene = Neighbours::new().await;
    scene.client.hold(APP, 2);
    let app = APP.parse().unwrap();
    scene.let_in(ATTESTED);
    assert_eq!(scene.client.held(), [(app, 2)].into());

    // As where a policy comes that only the proxy can judge: what goes past it ends.
    for stricter in [NOBODY, SourceAction::Proxy.into()] {
        scene.let_in(ATTESTED);
        scene.client.let_go();
        scene.client.hold(APP, 2);
        assert_eq!(scene.client.held(), [(app, 2)].into());
        scene.let_in(stricter);
        assert_eq!(scene.client.held(), [].into(), "{stricter:?}");
    }
}

#[tokio::test]
async fn nobody_vouches_for_a_workload_of_which_it_was_not_asked_or_that_was_released() {
    let mut scene = Neighbours::with(false).await;
    assert_eq!(scene.client.refused(APP).0, "ConnectionRefused");

    scene.datapath.release(&scene.client_pod.name).await.unwrap();
    scene.datapath.enrol(WorkloadSpec { attested: true, ..client_spec(&scene.client_pod) }).await.unwrap();
    scene.datapath.apply(&scene.client_pod.name, &nothing()).unwrap();
    scene.client.hold(APP, 3);
    assert_eq!(scene.remembered(), 3);

    scene.datapath.release(&scene.client_pod.name).await.unwrap();
    assert_eq!(scene.remembered(), 0, "nobody would tell when they end");
    assert_eq!(scene.client.refused(APP).0, "ConnectionRefused");
}
