//! What a pod's admin pages see of it.

use super::Node;
use super::identity::WorkloadIdentity;
use super::workload::{Enrolled, Stage, Workload};
use crate::pod_admin::{Asked, Figures, Question, Resources, ServerState};
use orlop_plan::snapshot::ResourceType;

/// Answers, unless the pod that is asked about is gone: then the question is dropped, which the page notices.
pub(super) fn answer(node: &Node, asked: Asked) {
    let Some(workload) = node.workloads.get(&asked.workload) else { return };
    let Stage::Enrolled(enrolled) = &workload.stage else { return };
    if enrolled.enrolment() != asked.enrolment {
        return;
    }
    // A client that went away does not want the answer.
    match asked.question {
        Question::State(reply) => drop(reply.send(state(workload, enrolled))),
        Question::Figures(reply) => drop(reply.send(figures(node, workload, enrolled))),
        Question::Resources(reply) => drop(reply.send(resources(enrolled))),
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

fn figures(node: &Node, workload: &Workload, enrolled: &Enrolled) -> Figures {
    let key = workload.key();
    Figures {
        state: state(workload, enrolled),
        proxy: node.parts.proxy.stats(&key),
        kernel: node.parts.datapath.counters(&key).ok(),
        resources: resources(enrolled),
    }
}

fn resources(enrolled: &Enrolled) -> Resources {
    let node_secrets = enrolled.identity().map(WorkloadIdentity::secrets).unwrap_or_default();
    Resources::new(enrolled.snapshot(), node_secrets, enrolled.plans.held(), enrolled.xds())
}
