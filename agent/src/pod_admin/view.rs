//! What the pages ask of the node task, and what they get: numbers, or pointers to what it holds.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use orlop_datapath::WorkloadCounters;
use orlop_l7_proxy::stats::{DnsStats, OutlierHost, OutlierStats, PodStats};
use orlop_plan::compile::Held;
use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::endpoint::ClusterLoadAssignment;
use orlop_plan::resource::extension_config::ExtensionConfig;
use orlop_plan::resource::listener::Listener;
use orlop_plan::resource::route::RouteConfiguration;
use orlop_plan::resource::secret::Secret;
use orlop_plan::snapshot::{Packed, ResourceType, Snapshot, Store};
use orlop_xds_client::StreamStatus;
use tokio::sync::oneshot;

use super::secrets::NodeSecret;
use crate::config::WorkloadId;
use crate::node::proxy_metrics::Metrics;

/// A question about one pod on its way to the node task, which drops what is for a pod that is gone.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) workload: WorkloadId,
    /// Which enrolment of that name.
    pub(crate) enrolment: u64,
    pub(crate) question: Question,
}

/// What can be asked, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Question {
    /// Is it carried?
    State(oneshot::Sender<ServerState>),
    /// What was counted for it?
    Figures(oneshot::Sender<Figures>),
    /// Everything that it was given.
    Resources(oneshot::Sender<Resources>),
}

/// `envoy.admin.v3.ServerInfo.State`, as far as a pod can be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// No clusters yet.
    PreInitializing,
    /// Clusters, but not yet all that they and the listeners name.
    Initializing,
    /// Carried by the newest plan.
    Live,
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
            Self::Live => "LIVE",
        })
    }
}

/// What was counted, and what the counters are named after.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) state: ServerState,
    pub(crate) proxy: Option<PodStats>,
    pub(crate) kernel: Option<WorkloadCounters>,
    pub(crate) istio: Metrics,
    pub(crate) resources: Resources,
}

/// The pod's snapshot at one moment, shared with the node task. Sorted by name.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) clusters: Vec<StoredResource<Cluster>>,
    pub(crate) load_assignments: Vec<StoredResource<ClusterLoadAssignment>>,
    pub(crate) listeners: Vec<StoredResource<Listener>>,
    pub(crate) routes: Vec<StoredResource<RouteConfiguration>>,
    pub(crate) secrets: Vec<StoredResource<Secret>>,
    /// Those that the node itself provides.
    pub(crate) node_secrets: Vec<NodeSecret>,
    pub(crate) extensions: Vec<StoredResource<ExtensionConfig>>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) held: Vec<Held>,
    pub(crate) stream: StreamStatus,
    /// By cluster.
    pub(crate) outliers: BTreeMap<String, OutlierStats>,
    /// By cluster.
    pub(crate) dns: BTreeMap<String, DnsStats>,
}

/// One accepted resource.
#[derive(Debug)]
pub(crate) struct StoredResource<T> {
    pub(crate) name: Arc<str>,
    pub(crate) resource: Arc<T>,
    pub(crate) source: Source,
}

/// What the control plane sent.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) bytes: Packed,
    pub(crate) version: String,
    pub(crate) last_updated: Option<SystemTime>,
}

/// A resource whose newest version was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) resource_type: ResourceType,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) reason: String,
}

impl Resources {
    pub(crate) fn new(
        snapshot: &Snapshot,
        node_secrets: Vec<NodeSecret>,
        held: Vec<Held>,
        stream: StreamStatus,
        outliers: BTreeMap<String, OutlierStats>,
        dns: BTreeMap<String, DnsStats>,
    ) -> Self {
        let refused = snapshot.rejections().iter().map(|((resource_type, name), rejection)| Refused {
            resource_type: *resource_type,
            name: name.clone(),
            version: rejection.version.clone(),
            reason: rejection.error.to_string(),
        });
        Self {
            clusters: sorted(snapshot.clusters()),
            load_assignments: sorted(snapshot.load_assignments()),
            listeners: sorted(snapshot.listeners()),
            routes: sorted(snapshot.routes()),
            secrets: sorted(snapshot.secrets()),
            node_secrets,
            extensions: sorted(snapshot.extensions()),
            refused: refused.collect(),
            held,
            stream,
            outliers,
            dns,
        }
    }

    /// The endpoints that a cluster's names have.
    pub(crate) fn resolved(&self, cluster: &str) -> Option<&ClusterLoadAssignment> {
        self.dns.get(cluster)?.endpoints.as_deref()
    }

    /// What outlier detection knows of an endpoint; `None` where there is none.
    pub(crate) fn outlier(&self, cluster: &str, endpoint: SocketAddr) -> Option<OutlierHost> {
        self.outliers.get(cluster)?.hosts.get(&endpoint).copied()
    }

    /// Why the newest version of a resource was refused.
    pub(crate) fn refused(&self, resource_type: ResourceType, name: &str) -> Option<&Refused> {
        self.refused.iter().find(|refused| refused.resource_type == resource_type && refused.name == name)
    }

    /// Whether an accepted resource waits for others.
    pub(crate) fn is_held(&self, resource_type: ResourceType, name: &str) -> bool {
        self.held.iter().any(|held| held.resource_type == resource_type && held.name == name)
    }

    /// The cluster of this name.
    pub(crate) fn cluster(&self, name: &str) -> Option<&StoredResource<Cluster>> {
        let found = self.clusters.binary_search_by(|stored| (*stored.name).cmp(name)).ok()?;
        self.clusters.get(found)
    }

    /// The endpoints that EDS gave under this name.
    pub(crate) fn load_assignment(&self, name: &str) -> Option<&StoredResource<ClusterLoadAssignment>> {
        let found = self.load_assignments.binary_search_by(|stored| (*stored.name).cmp(name)).ok()?;
        self.load_assignments.get(found)
    }
}

fn sorted<T>(store: &Store<T>) -> Vec<StoredResource<T>> {
    let mut all: Vec<_> = store
        .iter()
        .map(|(name, stored)| StoredResource {
            name: Arc::clone(name),
            resource: Arc::clone(&stored.resource),
            source: Source {
                bytes: stored.bytes.clone(),
                version: stored.version.to_string(),
                last_updated: Some(stored.last_updated),
            },
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
