//! What it means for a connection to be sent to a cluster.

use std::sync::Arc;
use std::time::Duration;

use super::backends::{NotByWeight, TlsOwed, backends, tls_owed};
use super::finding::{Finding, Layer};
use super::{Cause, Path};
use crate::proxy::{ClusterPlan, ProxyPlan};
use crate::resource::FieldPath;
use crate::resource::cluster::{
    CircuitBreakers, Cluster, ClusterDiscovery, LbPolicy, UpstreamProtocol, UpstreamTransportSocket,
};
use crate::resource::endpoint::ClusterLoadAssignment;

/// Envoy's idle timeout of upstream connections where none is asked for.
const DEFAULT_IDLE_TIMEOUT: Option<Duration> = Some(Duration::from_hours(1));

/// What happens to a connection or request that is sent to cluster `name`.
pub(super) fn hop(proxy: &ProxyPlan, name: &Arc<str>, layer: Layer) -> Finding {
    let resource = format!("cluster `{name}`");
    let finding = |path, field: &str, cause| {
        let field = if field.is_empty() { FieldPath::root() } else { FieldPath::root().field(field) };
        Finding::new(path, &resource, field, cause).of_cluster(name)
    };
    let cluster_name = Arc::clone(name);
    let Some(ClusterPlan { cluster, load_assignment }) = proxy.clusters.get(name) else {
        let path = if layer == Layer::Http { Path::L7Proxy } else { Path::Blocked };
        return finding(path, "", Cause::UnknownCluster { cluster: cluster_name });
    };
    let asks = || {
        let (field, what) = asks_for_proxy(cluster, layer)?;
        Some(finding(layer.proxy(), field, Cause::Cluster { cluster: Arc::clone(name), what }))
    };
    match (&cluster.discovery, load_assignment) {
        (ClusterDiscovery::OriginalDst { .. }, _)
            if cluster.transport_socket == UpstreamTransportSocket::Tls =>
        {
            finding(Path::Blocked, "transport_socket", Cause::TlsOwed { cluster: cluster_name })
        }
        (ClusterDiscovery::OriginalDst { .. }, _) => asks().unwrap_or_else(|| {
            finding(Path::Passthrough, "type", Cause::OriginalDestination { cluster: cluster_name })
        }),
        (ClusterDiscovery::Dns { .. }, _) => {
            finding(Path::Blocked, "type", Cause::DnsCluster { cluster: cluster_name })
        }
        (ClusterDiscovery::Eds { .. } | ClusterDiscovery::Static(_), None) => {
            finding(Path::Blocked, "", Cause::NoEndpoint { cluster: cluster_name })
        }
        (ClusterDiscovery::Static(_), Some(assignment)) if assignment.localities.is_empty() => {
            finding(Path::Blocked, "load_assignment", Cause::BlackHole { cluster: cluster_name })
        }
        (ClusterDiscovery::Eds { .. } | ClusterDiscovery::Static(_), Some(assignment)) => {
            balanced(name, cluster, assignment, layer, asks)
        }
    }
}

fn balanced(
    name: &Arc<str>,
    cluster: &Cluster,
    assignment: &ClusterLoadAssignment,
    layer: Layer,
    asks: impl FnOnce() -> Option<Finding>,
) -> Finding {
    let resource = match &cluster.discovery {
        ClusterDiscovery::Eds { service_name } => format!("load assignment `{service_name}`"),
        _ => format!("cluster `{name}`"),
    };
    let finding = |path, field, cause| Finding::new(path, &resource, field, cause).of_cluster(name);
    let cluster_name = Arc::clone(name);
    let owed = tls_owed(cluster, assignment);
    if owed == TlsOwed::Everybody {
        return finding(Path::Blocked, FieldPath::root(), Cause::TlsOwed { cluster: cluster_name });
    }
    let backends = backends(cluster, assignment);
    if backends == Err(NotByWeight::NoEndpoint) {
        return finding(Path::Blocked, FieldPath::root(), Cause::NoEndpoint { cluster: cluster_name });
    }
    if let TlsOwed::Some(field, endpoint) = owed {
        return finding(layer.proxy(), field, Cause::TlsOwedToSome { cluster: cluster_name, endpoint });
    }
    if let Some(finding) = asks() {
        return finding;
    }
    match backends {
        Ok(backends) => {
            let proofs = vec![
                match backends.backends.len() {
                    1 => "one healthy endpoint".to_owned(),
                    count => format!("{count} healthy endpoints of one priority"),
                },
                "plaintext on the hop".to_owned(),
                "no outlier detection, finite limit or connection setting".to_owned(),
            ];
            let cause = Cause::L4IsEnough { cluster: cluster_name, proofs };
            let mut finding = finding(Path::Kernel, FieldPath::root(), cause);
            finding.backends = Some(Arc::new(backends));
            finding
        }
        Err(NotByWeight::NoEndpoint) => {
            finding(Path::Blocked, FieldPath::root(), Cause::NoEndpoint { cluster: cluster_name })
        }
        Err(NotByWeight::Proxy(field, what)) => {
            finding(layer.proxy(), field, Cause::Cluster { cluster: cluster_name, what })
        }
    }
}

/// The first field of a cluster that asks for something which only a proxy does.
pub(super) fn asks_for_proxy(cluster: &Cluster, layer: Layer) -> Option<(&'static str, &'static str)> {
    let Cluster {
        name: _,
        discovery,
        // The application's own connect is subject to the kernel's timeout.
        connect_timeout: _,
        lb_policy,
        protocol,
        // Judged by endpoint.
        transport_socket: _,
        circuit_breakers,
        outlier_detection,
        idle_timeout,
        max_requests_per_connection,
        tcp_keepalive,
        // Judged with the endpoints.
        healthy_panic_threshold: _,
        locality_weighted: _,
        service: _,
    } = cluster;
    let passthrough = matches!(discovery, ClusterDiscovery::OriginalDst { .. });
    if *outlier_detection {
        return Some(("outlier_detection", "ejects endpoints that fail"));
    }
    if is_finite(circuit_breakers) {
        return Some(("circuit_breakers", "limits connections or requests"));
    }
    if *lb_policy == LbPolicy::Hash {
        return Some(("lb_policy", "chooses endpoints by a hash"));
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
        if *protocol == UpstreamProtocol::Http2 {
            return Some(("typed_extension_protocol_options", "speaks HTTP/2, which is balanced by request"));
        }
        if max_requests_per_connection.is_some() {
            return Some(("max_requests_per_connection", "limits the requests of a connection"));
        }
        if *idle_timeout != DEFAULT_IDLE_TIMEOUT {
            return Some(("common_http_protocol_options.idle_timeout", "closes idle connections"));
        }
    }
    None
}

fn is_finite(limits: &CircuitBreakers) -> bool {
    let CircuitBreakers { max_connections, max_pending_requests, max_requests, max_retries } = *limits;
    [max_connections, max_pending_requests, max_requests, max_retries].iter().any(|limit| *limit != u32::MAX)
}
