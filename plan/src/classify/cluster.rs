//! What it means for a connection to be sent to a cluster.

use std::fmt::Write;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::backends::{NotByKernel, TlsOwed, backends, tls_owed};
use super::finding::{Finding, Layer};
use super::{Cause, Path, Reason, Served};
use crate::kernel::{BackendSet, Choice};
use crate::proxy::ClusterPlan;
use crate::resource::FieldPath;
use crate::resource::cluster::{CircuitBreakers, Cluster, ClusterDiscovery};
use crate::resource::endpoint::{ClusterLoadAssignment, LbEndpoint};

/// Envoy's idle timeout of upstream connections where none is asked for.
const DEFAULT_IDLE_TIMEOUT: Option<Duration> = Some(Duration::from_hours(1));

/// What is to be done on the way to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// What it asks for, of connections.
    Tcp,
    /// What it asks for, of requests.
    Http,
    /// Nothing but a choice by weight and what security asks for: the mode is `never`.
    Weights,
}

impl Need {
    fn layer(self) -> Layer {
        match self {
            Self::Tcp => Layer::Tcp,
            Self::Http | Self::Weights => Layer::Http,
        }
    }
}

impl From<Layer> for Need {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::Tcp => Self::Tcp,
            Layer::Http => Self::Http,
        }
    }
}

/// What each need comes to, for one version of a cluster and its endpoints; shared by all who have it.
#[derive(Debug, Default)]
pub(crate) struct Landings {
    with_identity: ByNeed,
    without_identity: ByNeed,
    attested: ByNeed,
}

#[derive(Debug, Default)]
struct ByNeed {
    tcp: OnceLock<Landing>,
    http: OnceLock<Landing>,
    weights: OnceLock<Landing>,
}

#[derive(Debug, Clone)]
struct Landing {
    path: Path,
    backends: Option<Arc<BackendSet>>,
}

/// A landing and its reason.
struct Judged {
    landing: Landing,
    reason: Reason,
}

impl Judged {
    fn new(path: Path, resource: String, field: FieldPath, cause: Cause) -> Self {
        Self { landing: Landing { path, backends: None }, reason: Reason { resource, field, cause } }
    }
}

impl ClusterPlan {
    fn landing(&self, need: Need, proof: Proof) -> &Landing {
        let Landings { with_identity, without_identity, attested } = &self.landings;
        let by_need = match proof {
            Proof::Certificate => with_identity,
            Proof::Nothing => without_identity,
            Proof::Kernel => attested,
        };
        let landing = match need {
            Need::Tcp => &by_need.tcp,
            Need::Http => &by_need.http,
            Need::Weights => &by_need.weights,
        };
        landing.get_or_init(|| judge(self, need, proof).landing)
    }
}

/// By what a workload can show its endpoints who it is, and know that they are who they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Nothing.
    Nothing,
    /// Mutual TLS, which is the proxy's.
    Certificate,
    /// All of them are workloads of the node, and the kernel attests who connects.
    Kernel,
}

/// The proof that makes least of it.
fn proof(served: Served<'_>, plan: &ClusterPlan, need: Need) -> Proof {
    let facts = served.facts;
    if !facts.identity {
        return Proof::Nothing;
    }
    let attested = facts.same_node.as_ref().zip(plan.load_assignment.as_ref()).is_some_and(|(node, all)| {
        let mut endpoints = all.localities.iter().flat_map(|locality| &locality.endpoints).peekable();
        let is_attested = |endpoint: &LbEndpoint| {
            let context = plan.cluster.transport_socket.context(&endpoint.about);
            let principal = node.taken_by(endpoint.address, &facts.addresses);
            context.zip(principal).is_some_and(|(context, principal)| context.is_mesh_to(principal))
        };
        endpoints.peek().is_some() && endpoints.all(is_attested)
    });
    if attested && plan.landing(need, Proof::Kernel).path == Path::Kernel {
        Proof::Kernel
    } else {
        Proof::Certificate
    }
}

/// What happens to a connection or request that is sent to cluster `name`.
pub(super) fn hop<'a>(served: Served<'a>, name: &'a Arc<str>, need: Need) -> Finding<'a> {
    let Some(plan) = served.proxy.clusters.get(name) else {
        let path = if need == Need::Tcp { Path::Blocked } else { Path::L7Proxy };
        let unknown = move || Reason {
            resource: format!("cluster `{name}`"),
            field: FieldPath::root(),
            cause: Cause::UnknownCluster { cluster: Arc::clone(name) },
        };
        return Finding { cluster: Some(name), ..Finding::new(path, unknown) };
    };
    let proof = proof(served, plan, need);
    let landing = plan.landing(need, proof);
    let mut finding = Finding {
        cluster: Some(name),
        backends: landing.backends.clone(),
        ..Finding::new(landing.path, move || judge(plan, need, proof).reason)
    };
    if need == Need::Weights && matches!(landing.path, Path::Kernel | Path::Passthrough) {
        finding.forgone.push(Rc::new(move || {
            let asked = asks_for_proxy(&plan.cluster, Layer::Http).into_iter();
            asked.map(|(field, what)| asks(&plan.cluster, Layer::Http, field, what).reason).collect()
        }));
    }
    finding
}

fn asks(cluster: &Cluster, layer: Layer, field: &str, what: &'static str) -> Judged {
    let name = &cluster.name;
    let cause = Cause::Cluster { cluster: Arc::clone(name), what };
    Judged::new(layer.proxy(), format!("cluster `{name}`"), FieldPath::root().field(field), cause)
}

fn judge(plan: &ClusterPlan, need: Need, proof: Proof) -> Judged {
    let ClusterPlan { cluster, load_assignment, .. } = plan;
    let judged = |path, field: &str, cause| {
        let field = if field.is_empty() { FieldPath::root() } else { FieldPath::root().field(field) };
        Judged::new(path, format!("cluster `{}`", cluster.name), field, cause)
    };
    let name = || Arc::clone(&cluster.name);
    match (&cluster.discovery, load_assignment) {
        (ClusterDiscovery::OriginalDst { .. } | ClusterDiscovery::Dns(_), _)
            if cluster.transport_socket.is_always_tls() =>
        {
            let (path, cause) = tls_to_all(cluster, need, proof);
            judged(path, "transport_socket", cause)
        }
        (ClusterDiscovery::OriginalDst { .. }, _) => asked(cluster, need).unwrap_or_else(|| {
            judged(Path::Passthrough, "type", Cause::OriginalDestination { cluster: name() })
        }),
        (ClusterDiscovery::Dns(_), _) => {
            let what = "resolves the names of its endpoints";
            judged(need.layer().proxy(), "type", Cause::Cluster { cluster: name(), what })
        }
        (ClusterDiscovery::Eds { .. } | ClusterDiscovery::Static(_), None) => {
            judged(Path::Blocked, "", Cause::NoEndpoint { cluster: name() })
        }
        (ClusterDiscovery::Static(_), Some(assignment)) if assignment.localities.is_empty() => {
            judged(Path::Blocked, "load_assignment", Cause::BlackHole { cluster: name() })
        }
        (ClusterDiscovery::Eds { .. } | ClusterDiscovery::Static(_), Some(assignment)) => {
            balanced(cluster, assignment, need, proof)
        }
    }
}

/// Where every endpoint is owed TLS.
fn tls_to_all(cluster: &Cluster, need: Need, proof: Proof) -> (Path, Cause) {
    let cluster = Arc::clone(&cluster.name);
    match proof {
        Proof::Certificate | Proof::Kernel => (need.layer().proxy(), Cause::TlsToAll { cluster }),
        Proof::Nothing => (Path::Blocked, Cause::TlsOwed { cluster }),
    }
}

/// What of a cluster's settings needs a proxy and cannot be forgone.
fn asked(cluster: &Cluster, need: Need) -> Option<Judged> {
    let layer = need.layer();
    let (field, what) = match need {
        Need::Tcp | Need::Http => asks_for_proxy(cluster, layer),
        Need::Weights => leads_elsewhere(cluster),
    }?;
    Some(asks(cluster, layer, field, what))
}

fn balanced(cluster: &Cluster, assignment: &ClusterLoadAssignment, need: Need, proof: Proof) -> Judged {
    let layer = need.layer();
    let name = || Arc::clone(&cluster.name);
    let judged = |path, field, cause| {
        let resource = match &cluster.discovery {
            ClusterDiscovery::Eds { service_name } => format!("load assignment `{service_name}`"),
            _ => format!("cluster `{}`", cluster.name),
        };
        Judged::new(path, resource, field, cause)
    };
    let backends = backends(cluster, assignment, need == Need::Tcp);
    if backends == Err(NotByKernel::NoEndpoint) {
        return judged(Path::Blocked, FieldPath::root(), Cause::NoEndpoint { cluster: name() });
    }
    match tls_owed(cluster, assignment) {
        _ if proof == Proof::Kernel => {}
        TlsOwed::Nobody => {}
        TlsOwed::Everybody(of_endpoints) => {
            let (path, cause) = tls_to_all(cluster, need, proof);
            if let Some(field) = of_endpoints {
                return judged(path, field, cause);
            }
            let resource = format!("cluster `{}`", cluster.name);
            return Judged::new(path, resource, FieldPath::root().field("transport_socket"), cause);
        }
        TlsOwed::Some(field, endpoint) => {
            return judged(layer.proxy(), field, Cause::TlsOwedToSome { cluster: name(), endpoint });
        }
    }
    if let Some(judged) = asked(cluster, need) {
        return judged;
    }
    match backends {
        Ok(backends) => {
            let proofs = vec![
                choice(&backends),
                match proof {
                    Proof::Kernel => "workloads of this node, to whom the kernel attests who connects",
                    Proof::Nothing | Proof::Certificate => "plaintext on the hop",
                }
                .to_owned(),
                match need {
                    Need::Tcp if backends.limit.is_some() => "no outlier detection or connection setting",
                    Need::Tcp | Need::Http => "no outlier detection, finite limit or connection setting",
                    Need::Weights => "the mode is never",
                }
                .to_owned(),
            ];
            let cause = Cause::L4IsEnough { cluster: name(), proofs };
            let mut judged = judged(Path::Kernel, FieldPath::root(), cause);
            judged.landing.backends = Some(Arc::new(backends));
            judged
        }
        Err(NotByKernel::NoEndpoint) => {
            judged(Path::Blocked, FieldPath::root(), Cause::NoEndpoint { cluster: name() })
        }
        Err(NotByKernel::Proxy(field, what)) => {
            judged(layer.proxy(), field, Cause::Cluster { cluster: name(), what })
        }
    }
}

/// How the kernel chooses, in words.
fn choice(set: &BackendSet) -> String {
    let mut text = match (set.backends.len(), &set.choice) {
        (1, _) => "one endpoint".to_owned(),
        (count, Choice::Weighted) => format!("{count} endpoints by weight"),
        (count, Choice::LeastConnections { choices, groups }) => {
            let groups = match groups.len() {
                1 => String::new(),
                groups => format!(" in {groups} priorities and localities"),
            };
            format!("{count} endpoints{groups}, the one with fewest open connections of {choices} drawn")
        }
    };
    if let Some(limit) = &set.limit {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {} connections at most", limit.connections);
    }
    text
}

/// What would send a connection to another place than the kernel does.
fn leads_elsewhere(cluster: &Cluster) -> Option<(&'static str, &'static str)> {
    if let ClusterDiscovery::OriginalDst { port_override: Some(_), .. } = cluster.discovery {
        return Some(("lb_config.upstream_port_override", "changes the destination's port"));
    }
    cluster.lb_policy.is_by_hash().then_some(("lb_policy", "chooses endpoints by a hash"))
}

/// The first field of a cluster that asks for something which only a proxy does.
fn asks_for_proxy(cluster: &Cluster, layer: Layer) -> Option<(&'static str, &'static str)> {
    let Cluster {
        name: _,
        discovery,
        // The application's own connect is subject to the kernel's timeout.
        connect_timeout: _,
        lb_policy,
        slow_start,
        // HTTP/2 has a mode of its own.
        protocol: _,
        // Judged by endpoint.
        transport_socket: _,
        // Of hops with TLS, which are the proxy's.
        server_name: _,
        alpn_override: _,
        circuit_breakers,
        outlier_detection,
        idle_timeout,
        max_requests_per_connection,
        tcp_keepalive,
        // Judged with the endpoints.
        healthy_panic_threshold: _,
        locality_weighted: _,
        service: _,
        told_of_peers: _,
    } = cluster;
    let passthrough = matches!(discovery, ClusterDiscovery::OriginalDst { .. });
    if outlier_detection.is_some() {
        return Some(("outlier_detection", "ejects endpoints that fail"));
    }
    if is_finite(circuit_breakers, layer) {
        return Some(("circuit_breakers", "limits connections or requests"));
    }
    if lb_policy.is_by_hash() {
        return Some(("lb_policy", "chooses endpoints by a hash"));
    }
    if slow_start.is_some() {
        return Some(("lb_config.slow_start_config", "warms up endpoints that are new"));
    }
    if let ClusterDiscovery::OriginalDst { use_http_header, port_override } = discovery {
        if port_override.is_some() {
            return Some(("lb_config.upstream_port_override", "changes the destination's port"));
        }
        if *use_http_header && layer == Layer::Http {
            return Some(("lb_config.use_http_header", "takes the destination from a header"));
        }
    }
    if tcp_keepalive.is_some() {
        return Some(("upstream_connection_options.tcp_keepalive", "asks for keepalive probes"));
    }
    if layer == Layer::Http && !passthrough {
        if max_requests_per_connection.is_some() {
            return Some(("max_requests_per_connection", "limits the requests of a connection"));
        }
        if *idle_timeout != DEFAULT_IDLE_TIMEOUT {
            return Some(("common_http_protocol_options.idle_timeout", "closes idle connections"));
        }
    }
    None
}

/// Whether there is a limit that the kernel does not keep. Of connections it keeps `max_connections`, and there are no
/// requests and retries in them.
fn is_finite(limits: &CircuitBreakers, layer: Layer) -> bool {
    let CircuitBreakers { max_connections, max_pending_requests, max_requests, max_retries } = *limits;
    let is_finite = |limit| limit != u32::MAX;
    is_finite(max_pending_requests)
        || (layer == Layer::Http && [max_connections, max_requests, max_retries].into_iter().any(is_finite))
}
