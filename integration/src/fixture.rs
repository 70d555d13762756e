//! The mesh that most tests need: a client that the agent carries, and a service with two versions behind it.

use std::net::SocketAddr;

use anyhow::Result;

use crate::agent::Agent;
use crate::bed::Bed;
use crate::istio::Service;
use crate::istiod::Istiod;
use crate::pod::Pod;

/// A running mesh. Fields are dropped in order: whoever uses something ends before it.
#[derive(Debug)]
pub struct Mesh {
    /// Carries `client` only.
    pub agent: Agent,
    /// What the agent gets its configuration from.
    pub istiod: Istiod,
    /// The pod that requests are sent from.
    pub client: Pod,
    /// Answers as version `v1`.
    pub v1: Pod,
    /// Answers as version `v2`.
    pub v2: Pod,
    /// Both versions, HTTP at port 8080 and TCP at port 9000.
    pub web: Service,
    /// Everything else of the run.
    pub bed: Bed,
}

impl Mesh {
    /// Where the service serves HTTP.
    pub const WEB: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 20)), 8080);
    /// Where the service serves TCP.
    pub const TCP: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 20)), 9000);

    /// Starts everything. `routing` is more Istio configuration for the service, in the file `routing.yaml`.
    pub fn start(routing: impl FnOnce(&Service) -> String) -> Result<Self> {
        let bed = Bed::new()?;
        let client = bed.pod("client").label("app", "client").start()?;
        let (v1, v2) = (server(&bed, "v1")?, server(&bed, "v2")?);
        let web = Self::describe_web().endpoint(&v1).endpoint(&v2);
        let istiod =
            Istiod::start(&bed, &[("services.yaml", &web.yaml()), ("routing.yaml", &routing(&web))])?;
        let agent = Agent::start(&bed, &istiod, &[&client])?;
        Ok(Self { agent, istiod, client, v1, v2, web, bed })
    }

    /// Starts everything with the service alone.
    pub fn plain() -> Result<Self> {
        Self::start(|_| String::new())
    }

    /// The service without its endpoints.
    pub fn describe_web() -> Service {
        Service::new("web", "10.96.0.20").http(Self::WEB.port(), 8080).tcp(Self::TCP.port(), 9000)
    }
}

/// A pod that answers HTTP at 8080 and TCP at 9000 and bears its name as its version.
pub fn server(bed: &Bed, version: &str) -> Result<Pod> {
    let pod = bed.pod(version).label("app", "web").label("version", version).start()?;
    pod.serve_http(8080)?;
    pod.serve_tcp(9000)?;
    Ok(pod)
}
