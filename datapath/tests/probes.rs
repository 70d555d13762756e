//! Probes of the kubelet: what the kernel has seen it connect goes past policies to the application, and nothing else does,
//! from whatever address it comes.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use orlop_datapath::probe::cgroup2_mount;
use orlop_datapath::{Datapath, MapName};
use orlop_plan::exclusion::Exclusions;
use orlop_plan::kernel::{InboundAction, KernelPlan, SourceAction};
use support::Node;
use support::plan::{by_source, nothing};
use support::pod::{POD6, Pod, WORLD4, beside, pod_and_world};
use support::process::{Ask, Process, Reply};
use support::proxy::attach_proxy;

const PROBED: u16 = 8080;
const APP: &str = "10.77.0.1:8080";
const OTHER_PORT: &str = "10.77.0.1:8081";

/// A node's kubelet and another process of the node's network: same addresses, a cgroup each.
struct Host {
    kubelet: Process,
    other: Process,
    kubelet_cgroup: Pod,
    _other_cgroup: Pod,
}

impl Host {
    fn on(world: &Pod) -> Self {
        let (kubelet_cgroup, other_cgroup) = (beside(world), beside(world));
        let (kubelet, other) = (Process::start(&kubelet_cgroup), Process::start(&other_cgroup));
        Self { kubelet, other, kubelet_cgroup, _other_cgroup: other_cgroup }
    }
}

/// An application in a pod that is probed at one port and to which its plan lets nobody, and the node's kubelet. Ends in this order.
struct Probing {
    _app: Process,
    host: Host,
    datapath: Datapath,
    pod: Pod,
    world: Pod,
    node: Node,
}

impl Probing {
    /// Nobody's probes are let in.
    async fn nobody() -> Self {
        Self::new(false).await
    }

    /// The kubelet's are, from before the pod was enrolled.
    async fn by_the_kubelet() -> Self {
        Self::new(true).await
    }

    async fn new(admitted: bool) -> Self {
        let node = Node::new();
        let (pod, world) = pod_and_world();
        let mut app = Process::start(&pod);
        app.listen("[::]:8080", "app");
        app.listen("[::]:8081", "app");
        let host = Host::on(&world);
        let datapath = node.open().await;
        let mut probing = Self { _app: app, host, datapath, pod, world, node };
        if admitted {
            probing.admit();
        }
        enrol(&mut probing.datapath, &probing.pod).await;
        probing
    }

    fn admit(&mut self) {
        self.datapath.admit_probes_of(&self.host.kubelet_cgroup.cgroup).unwrap();
    }

    fn apply(&mut self, default_inbound: InboundAction) {
        self.datapath.apply(&self.pod.name, &everywhere(default_inbound)).unwrap();
    }

    fn probes(&self) -> u64 {
        self.datapath.counters(&self.pod.name).unwrap().inbound_probes
    }
}

async fn enrol(datapath: &mut Datapath, pod: &Pod) {
    let mut spec = pod.spec();
    spec.exclusions = Exclusions::default().with_probes(BTreeSet::from([PROBED]));
    datapath.enrol(spec).await.unwrap();
    datapath.apply(&pod.name, &everywhere(denied())).unwrap();
}

fn everywhere(action: InboundAction) -> KernelPlan {
    KernelPlan { default_inbound: action, ..nothing() }
}

fn denied() -> InboundAction {
    by_source(&[("0.0.0.0/0", SourceAction::Drop), ("::/0", SourceAction::Drop)])
}

#[tokio::test]
async fn the_kubelet_reaches_a_probed_port_past_every_policy_and_no_other_port() {
    let mut probing = Probing::by_the_kubelet().await;
    probing.apply(InboundAction::Drop);
    attach_proxy(&mut probing.datapath, &probing.pod);

    for policy in [InboundAction::Drop, InboundAction::Proxy, denied()] {
        probing.apply(policy);
        for to in [APP, &format!("[{POD6}]:{PROBED}"), "[::ffff:10.77.0.1]:8080"] {
            assert_eq!(probing.host.kubelet.connect(to).greeting, "app", "{to}");
        }
    }
    assert_eq!(probing.probes(), 9);
    assert_eq!(probing.host.kubelet.refused(OTHER_PORT).0, "ConnectionRefused");
}

#[tokio::test]
async fn another_process_with_the_kubelets_address_is_treated_as_anybody() {
    let mut probing = Probing::by_the_kubelet().await;
    attach_proxy(&mut probing.datapath, &probing.pod);

    assert_eq!(probing.host.kubelet.connect(APP).greeting, "app");
    for to in [APP, &format!("[{POD6}]:{PROBED}"), OTHER_PORT] {
        assert_eq!(probing.host.other.refused(to).0, "ConnectionRefused", "{to}");
    }
    probing.apply(InboundAction::Proxy);
    assert_eq!(probing.host.other.connect(APP).greeting, "inbound");
    assert_eq!(probing.probes(), 1);
}

#[tokio::test]
async fn the_four_numbers_of_a_probe_that_is_over_open_nothing() {
    let mut probing = Probing::by_the_kubelet().await;

    // The application closes first and keeps the TIME_WAIT, so the port is free when the probe is over.
    let from = format!("{}:40123", WORLD4[0]).parse().unwrap();
    let connect = Ask::ConnectFrom { from, to: APP.parse().unwrap() };
    assert!(matches!(probing.host.kubelet.ask(&connect), Reply::Connected(_)));
    let Reply::Refused { error, .. } = probing.host.other.ask(&connect) else { panic!("it was let in") };
    assert_eq!(error, "ConnectionRefused");
    let mut usage = probing.datapath.usage().into_iter();
    let attested = usage.find(|usage| usage.map == MapName::Attested).unwrap();
    assert_eq!(attested.used, 0, "what is over is forgotten");
}

#[tokio::test]
async fn without_a_kubelet_and_after_it_is_gone_probes_are_anybodys() {
    let mut probing = Probing::nobody().await;

    assert_eq!(probing.host.kubelet.refused(APP).0, "ConnectionRefused");
    probing.admit();
    assert_eq!(probing.host.kubelet.connect(APP).greeting, "app");
    probing.datapath.admit_no_probes().unwrap();
    assert_eq!(probing.host.kubelet.refused(APP).0, "ConnectionRefused");
}

#[tokio::test]
async fn probes_go_on_without_an_agent_and_with_the_next_one() {
    let Probing { _app, mut host, datapath, pod, node, world: _world } = Probing::by_the_kubelet().await;

    drop(datapath);
    assert_eq!(host.kubelet.connect(APP).greeting, "app", "the agent is dead");
    let mut datapath = node.open().await;
    assert_eq!(host.kubelet.connect(APP).greeting, "app", "the next one has not come so far");
    datapath.admit_probes_of(&host.kubelet_cgroup.cgroup).unwrap();
    enrol(&mut datapath, &pod).await;
    assert_eq!(host.kubelet.connect(APP).greeting, "app");
    assert_eq!(host.other.refused(APP).0, "ConnectionRefused");
    datapath.shutdown(false).await.unwrap();
    assert!(!node.pins().exists());
}

#[tokio::test]
async fn a_kubelet_that_is_started_anew_is_known_by_its_new_cgroup() {
    let mut probing = Probing::nobody().await;
    for _ in 0..2 {
        probing.host = Host::on(&probing.world);
        probing.admit();
        assert_eq!(probing.host.kubelet.connect(APP).greeting, "app");
        assert_eq!(probing.host.other.refused(APP).0, "ConnectionRefused");
    }
}

#[tokio::test]
async fn the_root_cgroup_is_no_kubelet() {
    let node = Node::new();
    let mut datapath = node.open().await;
    let error = datapath.admit_probes_of(&cgroup2_mount().unwrap()).unwrap_err();
    assert!(error.to_string().contains("is not a cgroup v2 of what probes the pods alone"), "{error}");
}

#[tokio::test]
async fn who_listens_at_a_port_is_known_by_its_cgroup() {
    use std::os::unix::fs::MetadataExt;
    let (_pod, world) = pod_and_world();
    let mut host = Host::on(&world);
    host.kubelet.listen("[::]:10250", "kubelet");
    let inode = fs::metadata(&host.kubelet_cgroup.cgroup).unwrap().ino();
    let at = |port| orlop_datapath::cgroups_listening_at(&world.netns, port).unwrap();
    assert_eq!((at(10250), at(10251)), (BTreeSet::from([inode]), BTreeSet::new()));
}
