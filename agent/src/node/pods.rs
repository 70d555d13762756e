//! The workloads of a node of a cluster: as many as the cluster says, and what it is told in return.

use super::Node;
use crate::config::NodeConfig;
use crate::kubernetes::{PodSource, Pods};

/// The cluster that says which workloads there are.
pub(crate) struct NodePods {
    pub(crate) source: PodSource,
    pub(crate) newest: Pods,
}

impl NodePods {
    /// What keeps the agent from knowing this node's pods, or from labelling them.
    pub(super) fn problems(&self) -> Vec<String> {
        self.newest.problems.iter().cloned().chain(self.source.label_problem()).collect()
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

    /// The pods' labels follow.
    pub(super) fn tell_whom_it_carries(&self) {
        if let Some(pods) = &self.pods {
            let carried = self.workloads.iter().filter(|(_, workload)| workload.is_ready());
            pods.source.carries(carried.map(|(id, _)| id.clone()).collect());
        }
    }
}
