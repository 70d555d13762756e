//! `orlop check` names the programs of others on the hooks that Orlop uses, and never Orlop's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::fs;

use aya::EbpfLoader;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use orlop_datapath::neighbours::{Neighbour, neighbours};
use support::Node;
use support::pod::{Pod, pod_and_world};

/// Those of the pod's cgroup and below; other tests have theirs.
fn of_pod(node: &Node, pod: &Pod) -> Vec<Neighbour> {
    let mut found = neighbours(node.pins().parent().unwrap()).unwrap();
    found.retain(|neighbour| neighbour.cgroup.starts_with(&pod.cgroup));
    found
}

#[tokio::test]
async fn programs_of_others_are_told_from_orlops_own() {
    let node = Node::new();
    let (pod, _world) = pod_and_world();
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    assert_eq!(of_pod(&node, &pod), [], "its own");

    // Any program will do; that it hangs on no pin of Orlop's makes it somebody else's.
    let mut somebody = EbpfLoader::new().load_file("src/orlop.bpf.o").unwrap();
    let program: &mut CgroupSockAddr = somebody.program_mut("connect6").unwrap().try_into().unwrap();
    program.load().unwrap();
    let container = pod.cgroup.join("container");
    fs::create_dir(&container).unwrap();
    let link = program.attach(fs::File::open(&container).unwrap(), CgroupAttachMode::Single).unwrap();

    let found = of_pod(&node, &pod);
    program.detach(link).unwrap();
    fs::remove_dir(&container).unwrap();
    let [neighbour] = &found[..] else { panic!("{found:?}") };
    assert_eq!((neighbour.hook, neighbour.program.as_str()), ("connect6", "connect6"));
    assert_eq!(neighbour.cgroup, container);
    assert!(neighbour.inside_a_pod);
    assert_eq!(of_pod(&node, &pod), []);
}

#[tokio::test]
async fn a_program_above_the_pods_is_one_that_runs_after_orlops() {
    let node = Node::new();
    let (pod, world) = pod_and_world();
    let mut datapath = node.open().await;
    datapath.enrol(pod.spec()).await.unwrap();
    let mut somebody = EbpfLoader::new().load_file("src/orlop.bpf.o").unwrap();
    let program: &mut CgroupSockAddr = somebody.program_mut("connect4").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.attach(fs::File::open(&world.cgroup).unwrap(), CgroupAttachMode::Single).unwrap();

    let [neighbour] = &of_pod(&node, &world)[..] else { panic!() };
    assert!(!neighbour.inside_a_pod);
}
