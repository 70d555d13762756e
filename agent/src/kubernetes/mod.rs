//! Where workloads come from in a cluster: the pods of this node that a label enrols.
//!
//! One task watches this node's pods and the labels of all namespaces, asks the container runtime where each pod that is to
//! be carried lives, and hands on what node.yaml would have said of them; it owns what is known of the pods. What the node
//! says in return, which of them it carries, it writes to the pods' labels, so that peers speak mutual TLS to them.

mod cgroup;
mod labels;
mod membership;
mod pod;
mod runtime;
mod source;

pub(crate) use source::{PodSource, Pods};
