//! Where workloads come from in a cluster: the pods of this node that a label enrols.
//!
//! One task watches this node's pods and the labels of all namespaces, asks the container runtime where each pod that is to
//! be carried lives, and hands on what node.yaml would have said of them; it owns what is known of the pods. What the node
//! says in return, which of them it carries, it writes to the pods' labels, so that peers speak mutual TLS to them; what is wrong with
//! one, to an event on it. A pod that the CNI plug-in holds is handed on before the API server knows its address.

mod cgroup;
mod chaining;
mod events;
mod held;
mod kubelet;
mod labels;
mod membership;
mod owner;
mod pod;
mod pod_token;
mod probes;
mod runtime;
mod source;

pub(crate) use events::{Trouble, Troubles};
pub(crate) use kubelet::Kubelet;
pub(crate) use pod_token::PodTokens;
pub(crate) use source::{PodSource, Pods};
