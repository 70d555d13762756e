//! Who is at the other end of a connection that the kernel balanced.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Plans;
use crate::kernel::Frontend;
use crate::resource::cluster::IstioService;
use crate::resource::endpoint::EndpointAbout;

/// What the configuration says of an endpoint and of the service that led there.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// Of the cluster that has the endpoint.
    pub service: Option<&'a IstioService>,
    /// Of the endpoint.
    pub about: &'a Arc<EndpointAbout>,
}

/// The endpoint among those that connections to `frontend` may be led to; `None` once it is none of them.
pub fn peer(plans: &Plans, frontend: Frontend, endpoint: SocketAddr) -> Option<Peer<'_>> {
    let served = plans.served();
    served.clusters(frontend).into_iter().find_map(|name| {
        let plan = served.proxy.clusters.get(name)?;
        let localities = &plan.load_assignment.as_ref()?.localities;
        let mut endpoints = localities.iter().flat_map(|locality| &locality.endpoints);
        let found = endpoints.find(|found| found.address == endpoint)?;
        Some(Peer { service: plan.cluster.service.as_deref(), about: &found.about })
    })
}
