//! What most tests begin with: an enrolled pod that nothing is said of yet, the world, and a process in the pod.

use orlop_datapath::Datapath;

use super::Node;
use super::pod::{Pod, pod_and_world};
use super::process::Process;

/// Ends in this order.
pub(crate) struct Scene {
    pub(crate) client: Process,
    pub(crate) datapath: Datapath,
    pub(crate) pod: Pod,
    pub(crate) world: Pod,
    pub(crate) node: Node,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let node = Node::new();
        let (pod, world) = pod_and_world();
        let client = Process::start(&pod);
        let mut datapath = node.open().await;
        datapath.enrol(pod.spec()).await.unwrap();
        Self { client, datapath, pod, world, node }
    }
}
