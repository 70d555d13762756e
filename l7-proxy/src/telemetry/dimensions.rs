//! What series are kept apart by, beside what the workload is itself.

use std::sync::Arc;

use orlop_plan::resource::cluster::{Cluster, IstioService};
use orlop_plan::resource::endpoint::EndpointAbout;
use orlop_plan::resource::telemetry::IstioStats;

use super::peer_metadata::PeerMetadata;
use crate::stats::{Direction, ResponseFlags};

/// Of a request or connection, with the values of Istio's labels. Equal by content, so that a configuration that comes again
/// goes on with the same series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dimensions {
    /// Outbound, the workload is the source and reports as such.
    pub direction: Direction,
    /// `request_protocol`, and what only that protocol has.
    pub protocol: Protocol,
    /// `response_flags`
    pub flags: ResponseFlags,
    /// `destination_service…`
    pub destination: Destination,
    /// Who is at the other end, apart from its principal.
    pub peer: Peer,
    /// The URI in the certificate of the other end; none in plaintext.
    pub peer_principal: Option<Arc<str>>,
    /// The workload has shown its own certificate.
    pub shown: bool,
    /// What the configuration changes of the labels.
    pub config: Arc<IstioStats>,
}

/// `request_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `http`
    Http {
        /// `response_code`; 0 where there was no response.
        code: u16,
    },
    /// `grpc`
    Grpc {
        /// As above.
        code: u16,
        /// `grpc_response_status`; `None` where none can be told.
        status: Option<u16>,
    },
    /// `tcp`
    Tcp,
}

/// What the workload's configuration, or the request, says of the destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The cluster's service.
    pub service: Option<Arc<IstioService>>,
    /// The request's host, where there is no service and the host may be named.
    pub host: Option<Arc<str>>,
    /// The cluster's own name, where it is one of those that pass through or refuse whatever comes.
    pub catch_all: Option<Arc<str>>,
}

/// Where it is known from who the peer is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Nowhere.
    #[default]
    Unknown,
    /// The peer describes itself.
    Said(Arc<PeerMetadata>),
    /// What istiod says of the endpoint.
    Endpoint(Arc<EndpointAbout>),
}

/// Clusters that take whatever comes; Istio names the destination after them.
const CATCH_ALL: [&str; 5] = [
    "BlackHoleCluster",
    "PassthroughCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

impl Destination {
    /// What is sent to `cluster`. `host` is asked where the cluster is of no service.
    pub(crate) fn of(cluster: &Arc<Cluster>, host: impl FnOnce() -> Option<Arc<str>>) -> Self {
        let catch_all = CATCH_ALL.contains(&&*cluster.name).then(|| Arc::clone(&cluster.name));
        match cluster.service.clone().filter(|_| catch_all.is_none()) {
            service @ Some(_) => Self { service, ..Self::default() },
            None => Self { service: None, host: host(), catch_all },
        }
    }

    /// What a workload may not call.
    pub(crate) fn blocked(host: Option<Arc<str>>) -> Self {
        Self { service: None, host, catch_all: CATCH_ALL.first().map(|name| Arc::from(*name)) }
    }
}

impl Peer {
    /// What istiod says of an endpoint, if anything.
    pub(crate) fn at(about: &Arc<EndpointAbout>) -> Self {
        if about.workload.is_empty() { Self::Unknown } else { Self::Endpoint(Arc::clone(about)) }
    }
}
