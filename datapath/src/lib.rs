//! Loads, attaches and fills the kernel programs, and prepares pod network namespaces.
//!
//! [`Datapath`] owns everything of Orlop that lives in the kernel: maps, programs, links and their pins, and in each
//! pod's network namespace the rule, the routes and the sysctl that carry a marked connection over loopback. In go
//! workloads and their [`KernelPlan`](orlop_plan::kernel::KernelPlan); out come counters and [`MapUsage`]. It decides nothing:
//! it writes the difference between two plans.
//!
//! Links are pinned and hold their programs, which hold the maps, so a dead agent leaves the kernel path as it was. An
//! agent that starts makes a new generation of maps, fills it, and only then swaps each workload's programs inside the
//! pinned links: a connect sees the old configuration or the new one, never none.

#![deny(unsafe_code)]

mod alias;
mod connections;
mod counters;
mod datapath;
mod drain;
mod error;
mod exclusions;
mod flows;
mod growth;
mod guard;
mod hook;
mod judge;
mod link;
mod listener;
mod maps;
pub mod neighbours;
mod netns;
mod pins;
mod policies;
pub mod probe;
mod prober;
mod program_info;
mod programs;
mod raw;
mod shortage;
mod slices;
mod slots;
mod sock_diag;
mod sys;
mod workload;
mod writer;

pub use connections::WayTraffic;
pub use counters::WorkloadCounters;
pub use datapath::{Datapath, DatapathConfig, Drained};
pub use drain::DEFAULT_DRAIN_TIME;
pub use error::Error;
pub use flows::{Ended, Flow, FlowEvent, Flows};
pub use guard::{Damage, Repair};
pub use hook::Hook;
pub use listener::ListenerRole;
pub use maps::{Capacities, MapName, MapUsage};
pub use orlop_abi::{MARK, ROUTE_TABLE};
pub use prober::cgroups_listening_at;
pub use workload::{Family, WorkloadSpec};
pub use writer::Applied;
