//! The test bed: pods as network namespaces with their own cgroups, the agent, a real istiod and a real Envoy.
//!
//! A [`Bed`] owns everything that it makes on the machine and removes it when dropped, also when the test panics. What
//! a killed run left behind is swept by the next one. Traffic flows only inside the namespaces of the bed. Programs
//! inside a pod are run by the helper `bed-pod`, which enters the pod's cgroup and namespace before it becomes them.

pub mod agent;
pub mod authority;
pub mod bed;
pub mod cgroup;
pub mod cluster;
pub mod dns;
pub mod envoy;
pub mod fidelity;
pub mod fixture;
pub mod flow_watch;
pub mod http_get;
pub mod istio;
pub mod istiod;
pub mod metrics;
pub mod net;
pub mod oci;
pub mod pod;
pub mod process;
pub mod secure_mesh;
pub mod tools;
pub mod traffic;
pub mod wait;

pub use agent::{Agent, ControlPlane};
pub use authority::{Authority, Issued};
pub use bed::Bed;
pub use cluster::Cluster;
pub use envoy::Envoy;
pub use fixture::Mesh;
pub use flow_watch::FlowWatch;
pub use istio::Service;
pub use istiod::Istiod;
pub use pod::Pod;
pub use secure_mesh::SecureMesh;
pub use traffic::{Call, Http, Load, LoadReport, Reply, Tcp, tally};
pub use wait::until;
