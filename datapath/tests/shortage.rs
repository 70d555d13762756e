//! Maps that are full: what finds no room goes through the proxy until there is some, and what has an entry keeps it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use orlop_datapath::{Applied, Capacities, Datapath};
use orlop_plan::kernel::{InboundAction, KernelPlan, OutboundAction, SourceAction};
use support::Node;
use support::plan::{PlanExt, balance, by_source, nothing};
use support::pod::{Pod, WORLD4, pod_and_world};
use support::process::Process;
use support::proxy::attach_proxy;

const FIRST: &str = "10.96.0.1:80";
const SECOND: &str = "10.96.0.2:80";
const A: &str = "10.77.0.2:8080";
const B: &str = "10.77.0.3:8080";

/// A pod with a proxy, and a process in it and one in the world. Ends in this order.
struct Scene {
    inside: Process,
    world: Process,
    datapath: Datapath,
    pod: Pod,
    _world_pod: Pod,
    _node: Node,
}

impl Scene {
    /// No map grows beyond this.
    async fn new(largest: u32) -> Self {
        let node = Node::new();
        let (pod, world_pod) = pod_and_world();
        let (inside, mut world) = (Process::start(&pod), Process::start(&world_pod));
        world.listen(A, "a");
        world.listen(B, "b");
        let mut config = node.config();
        config.capacities = Capacities {
            workloads: 1,
            frontends: 1,
            backends: 1,
            inbound: 1,
            ways: 16,
            connections: 16,
            attested: 1,
            exclusions: 1,
            sources: 1,
            largest,
        };
        let mut datapath = Datapath::open(config).await.unwrap();
        datapath.enrol(pod.spec()).await.unwrap();
        attach_proxy(&mut datapath, &pod);
        Self { inside, world, datapath, pod, _world_pod: world_pod, _node: node }
    }

    fn apply(&mut self, plan: &KernelPlan) -> Applied {
        self.datapath.apply(&self.pod.name, plan).unwrap()
    }

    fn without_room(&self) -> u64 {
        self.datapath.counters(&self.pod.name).unwrap().without_room
    }
}

#[tokio::test]
async fn endpoints_that_find_no_room_are_the_proxys_until_there_is_some() {
    let mut scene = Scene::new(2).await;
    let wide = balance(&[(A, 1), (B, 1), ("10.77.0.4:8080", 1)]);
    let plan = |second| nothing().frontend(FIRST, balance(&[(A, 1)])).frontend(SECOND, second);

    assert_eq!(scene.apply(&nothing().frontend(FIRST, balance(&[(A, 1)]))).without_room, 0);
    assert_eq!(scene.apply(&plan(wide)).without_room, 1);
    assert_eq!(scene.without_room(), 1);
    assert_eq!(scene.inside.connect(FIRST).greeting, "a", "what has its entry keeps it");
    assert_eq!(scene.inside.connect(SECOND).greeting, "outbound");

    assert_eq!(scene.apply(&plan(balance(&[(B, 1)]))).without_room, 0);
    assert_eq!(scene.inside.connect(SECOND).greeting, "b");
    assert_eq!(scene.without_room(), 0);
}

#[tokio::test]
async fn destinations_that_find_no_room_are_the_proxys_and_refusals_stay() {
    let mut scene = Scene::new(2).await;
    let blocked = "10.96.0.9:80";
    let plan = nothing().frontend(blocked, OutboundAction::Block).frontend(FIRST, balance(&[(A, 1)]));
    assert_eq!(scene.apply(&plan).without_room, 0);

    assert_eq!(scene.apply(&plan.frontend(SECOND, balance(&[(B, 1)]))).without_room, 1);
    assert_eq!(scene.inside.connect(FIRST).greeting, "a");
    assert_eq!(scene.inside.connect(SECOND).greeting, "outbound");
    assert_eq!(scene.inside.refused(blocked).0, "ConnectionRefused");
}

#[tokio::test]
async fn policies_and_ports_that_find_no_room_are_the_proxys_to_judge() {
    let mut scene = Scene::new(2).await;
    scene.inside.listen("[::]:8080", "app");
    let to = "10.77.0.1:8080";
    let nobody = [("0.0.0.0/0", SourceAction::Drop), ("::/0", SourceAction::Drop)];
    let one = format!("{}/32", WORLD4[0]);
    let narrow = [&nobody[..], &[(&*one, SourceAction::Direct)]].concat();

    scene.apply(&nothing().inbound(8080, by_source(&nobody)));
    assert_eq!(scene.world.refused(to).0, "ConnectionRefused");
    assert_eq!(scene.apply(&nothing().inbound(8080, by_source(&narrow))).without_room, 1);
    assert_eq!(scene.world.connect(to).greeting, "inbound");

    let ports = (8080..8083).fold(nothing(), |plan, port| plan.inbound(port, InboundAction::Direct));
    assert_eq!(scene.apply(&ports).without_room, 3);
    assert_eq!(scene.world.connect(to).greeting, "inbound");
    assert_eq!(scene.apply(&nothing().inbound(8080, InboundAction::Direct)).without_room, 0);
    assert_eq!(scene.world.connect(to).greeting, "app");
}
