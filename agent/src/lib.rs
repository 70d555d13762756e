//! The node agent: the binary `orlop`.
//!
//! `node` is the one task that owns every workload's state and tells the proxy and the kernel what to do; `config` and
//! `watch` feed it from node.yaml, `kubernetes` from a cluster, `last_good` keeps what it was told for the next start, `admin` answers questions about it,
//! `cli` asks them; `cni` holds pods until they are carried; `privilege` keeps every thread to what its part needs; `takeover` hands everything to the agent that comes next; `pod_admin` answers inside each pod what Istio's tools ask of a sidecar.

pub mod admin;
pub mod annotations;
pub mod cli;
pub mod config;
pub mod last_good;
pub mod lock;
pub mod node;
pub mod watch;

mod canonical;
mod cni;
mod code_pages;
mod kubernetes;
mod pod_admin;
mod privilege;
mod run_file;
mod takeover;
