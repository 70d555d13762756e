//! The workloads of a node of a cluster: as many as the cluster says, and what it is told in return.

use tokio::sync::oneshot;

use super::Node;
use super::not_carried::NotCarried;
use crate::admin::{Answer, Reply, Starting};
use crate::config::NodeConfig;
use crate::kubernetes::{PodSource, Pods, Trouble, Troubles};

/// The cluster that says which workloads there are.
pub(crate) struct NodePods {
    pub(crate) source: PodSource,
    pub(crate) newest: Pods,
}

impl NodePods {
    /// What keeps the agent from knowing this node's pods, or from labelling them.
    pub(super) fn problems(&self) -> Vec<String> {
        self.newest.problems.iter().cloned().chain(self.source.problems()).collect()
    }
}

/// What the cluster says next; nothing ever, without one.
pub(super) async fn next(pods: Option<&mut NodePods>) -> Pods {
    match pods {
        Some(pods) => pods.source.next().await,
        None => std::future::pending().await,
    }
}

impl Node {
    pub(super) async fn pods_changed(&mut self, pods: Pods) {
        let config = NodeConfig { workloads: pods.workloads.clone(), ..self.config.clone() };
        if let Some(known) = &mut self.pods {
            known.newest = pods;
        }
        if config.workloads != self.config.workloads {
            self.reconcile(config).await;
            self.tell_whom_it_carries();
        }
    }

    /// Where the cluster says which workloads there are, the file says nothing of them.
    pub(super) fn with_pods(&self, config: NodeConfig) -> NodeConfig {
        match &self.pods {
            Some(pods) if config.kubernetes.is_some() => {
                NodeConfig { workloads: pods.newest.workloads.clone(), ..config }
            }
            _ => config,
        }
    }

    /// The pods' labels and events follow, and those that are held for it go on.
    pub(super) fn tell_whom_it_carries(&self) {
        let Some(pods) = &self.pods else { return };
        let carried = self.workloads.iter().filter(|(_, workload)| workload.is_ready());
        let carried = carried.map(|(id, workload)| (id.clone(), workload.spec.netns.clone())).collect();
        let left_alone = pods.newest.not_carried.iter();
        let mut troubles: Troubles = left_alone
            .map(|(id, note)| (id.clone(), Trouble { reason: NotCarried::LEFT_ALONE, note: note.clone() }))
            .collect();
        for (id, workload) in &self.workloads {
            if let Some(why) = workload.not_carried() {
                troubles.insert(id.clone(), Trouble { reason: why.reason(), note: why.to_string() });
            }
        }
        pods.source.carries(carried, troubles);
    }

    /// Pods that start are held from now on, where node.yaml asks for it.
    pub(crate) fn hold_pods(&mut self) {
        if let Some(pods) = &mut self.pods {
            pods.source.hold_pods();
        }
    }

    /// A pod that does not run yet is answered for by the task that knows the pods.
    pub(super) fn starting(&self, pod: Starting, reply: oneshot::Sender<Reply>) {
        match &self.pods {
            Some(pods) => pods.source.starting(pod, reply),
            // The asker may have gone.
            None => drop(reply.send(Reply::Once(Answer::Refused(
                "node.yaml says which workloads there are, not a cluster: nothing is held here".to_owned(),
            )))),
        }
    }
}
