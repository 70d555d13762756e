//! The mind of the product: validated resources, the classifier, and the plans compiled from them.
//!
//! Pure: no sockets, no clock, no I/O. In: protobuf resources as istiod sent them. Out: per workload one
//! [`kernel::KernelPlan`] for `datapath` and one [`proxy::ProxyPlan`] for `l7-proxy`, and a verdict for each destination.

pub mod balance;
pub mod chain_match;
pub mod classify;
pub mod compile;
pub mod exclusion;
pub mod inspect;
pub mod jwt;
pub mod kernel;
pub mod neighbours;
pub mod proxy;
pub mod rbac;
pub mod resource;
pub mod route_match;
pub mod snapshot;

mod index;
mod validate;
