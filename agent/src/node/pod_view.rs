//! What a pod's admin pages see of it.

use super::identity::WorkloadIdentity;
use super::workload::{Enrolled, Stage, Workload};
use super::{Node, Parts};
use crate::pod_admin::{Asked, Figures, Question, Resources, ServerState};
use orlop_l7_proxy::stats::PodStats;
use orlop_plan::snapshot::ResourceType;

/// Answers, unless the pod that is asked about is gone: then the question is dropped, which the page notices.
pub(super) fn answer(node: &mut Node, asked: Asked) {
    let Node { workloads, parts, .. } = node;
    let Some(workload) = workloads.get_mut(&asked.workload) else { return };
    let Stage::Enrolled(enrolled) = &workload.stage else { return };
    if enrolled.enrolment() != asked.enrolment {
        return;
    }
    // A client that went away does not want the answer.
    match asked.question {
        Question::State(reply) => drop(reply.send(state(workload, enrolled))),
        Question::Resources(reply) => drop(reply.send(resources(parts, workload, enrolled))),
        Question::Figures(reply) => {
            if let Some(figures) = figures(parts, workload) {
                drop(reply.send(figures));
            }
        }
    }
}

fn state(workload: &Workload, enrolled: &Enrolled) -> ServerState {
    if workload.is_ready() {
        ServerState::Live
    } else if enrolled.snapshot().was_delivered(ResourceType::Cluster) {
        ServerState::Initializing
    } else {
        ServerState::PreInitializing
    }
}

fn figures(parts: &Parts, workload: &mut Workload) -> Option<Figures> {
    let key = workload.key();
    let ways = parts.datapath.traffic(&key).unwrap_or_default();
    let proxy = parts.proxy.stats(&key);
    let istio = workload.metrics(&ways, proxy.as_ref().unwrap_or(&PodStats::default()));
    let Stage::Enrolled(enrolled) = &workload.stage else { return None };
    Some(Figures {
        state: state(workload, enrolled),
        proxy,
        kernel: parts.datapath.counters(&key).ok(),
        istio,
        resources: resources(parts, workload, enrolled),
    })
}

fn resources(parts: &Parts, workload: &Workload, enrolled: &Enrolled) -> Resources {
    let node_secrets = enrolled.identity().map(WorkloadIdentity::secrets).unwrap_or_default();
    let (outliers, dns) = (parts.proxy.outliers(&workload.key()), parts.proxy.names(&workload.key()));
    Resources::new(enrolled.snapshot(), node_secrets, enrolled.plans.held(), enrolled.xds(), outliers, dns)
}
