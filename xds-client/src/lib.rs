//! The ADS client: gets the configuration of local workloads from a control plane, and tells it what became
//! of that configuration.
//!
//! For each workload `protocol` owns what is subscribed, held and unanswered, without any I/O; `grpc` connects
//! it to an xDS server such as istiod in either protocol, `directory` to a folder of files. In go nodes, verdicts and names to
//! subscribe to; out come deliveries of resources that are not validated yet.

mod client;
mod consumer;
mod delivery;
mod directory;
#[cfg(fuzzing)]
pub mod fuzz;
mod grpc;
mod node;
mod protocol;
mod resource;
mod shared;
mod status;

pub use client::{Client, ClientError, ControlPlane};
pub use consumer::Stream;
pub use delivery::{Delivery, Reply};
pub use grpc::{BackoffBounds, Credentials, GrpcOptions, KeptCertificate, RenewalWindow};
pub use node::{Node, WorkloadNode};
pub use orlop_proto::{Resource, ResourceType};
pub use protocol::Protocol;
pub use resource::{Names, Restored, Subscriptions, names};
pub use status::{FileProblem, StreamStatus, TypeStatus};
