//! Where honoured fields are honoured: by message, with exceptions by field.

use super::table::Table;

/// In the kernel where L4 is enough, otherwise in the proxy.
const BOTH: &str = "kernel path and proxy";
const PROXY: &str = "proxy";
/// Which listener, chain, cluster or endpoint there is: what the plans are made of.
const PLAN: &str = "plan";
/// It keeps a destination from the kernel path, and that is all.
const VERDICT: &str = "plan: decides between kernel path and proxy";
const EXPLAIN: &str = "`explain`";

pub(super) fn place(message: &str, field: &str) -> &'static str {
    let name = message.strip_prefix("envoy.").unwrap_or(message);
    let name = name.strip_prefix("config.").unwrap_or(name);
    match (name, field) {
        ("cluster.v3.Cluster", "name" | "type" | "lb_policy" | "load_assignment" | "eds_cluster_config")
        | ("cluster.v3.Cluster.EdsClusterConfig", _)
        | ("listener.v3.Listener", "name" | "default_filter_chain" | "filter_chains" | "traffic_direction")
        | ("route.v3.RouteConfiguration" | "route.v3.VirtualHost", "name") => PLAN,
        ("cluster.v3.Cluster", "metadata") | ("core.v3.Metadata", _) => "plan, proxy and `explain`",
        ("listener.v3.FilterChain" | "route.v3.Route", "name") => EXPLAIN,
        (_, "stat_prefix") => "names of statistics",
        ("endpoint.v3.ClusterLoadAssignment.Policy" | "cluster.v3.Cluster.LeastRequestLbConfig", _)
        | ("endpoint.v3.Endpoint", "hostname") => PROXY,
        ("endpoint.v3.LocalityLbEndpoints", "locality") | ("core.v3.Locality", _) => {
            "kept; istiod makes priorities and weights of it"
        }
        (name, _) if name.starts_with("endpoint.") => BOTH,
        (
            "core.v3.SocketAddress"
            | "core.v3.Address"
            | "core.v3.CidrRange"
            | "listener.v3.Listener"
            | "listener.v3.FilterChain"
            | "listener.v3.FilterChainMatch",
            _,
        ) => BOTH,
        (name, "weighted_clusters" | "cluster" | "clusters" | "weight" | "name")
            if name.starts_with("extensions.filters.network.tcp_proxy.") =>
        {
            BOTH
        }
        (
            "listener.v3.Filter"
            | "extensions.filters.network.http_connection_manager.v3.HttpFilter"
            | "core.v3.TransportSocket"
            | "cluster.v3.Cluster.TransportSocketMatch",
            _,
        )
        | ("cluster.v3.Cluster", "transport_socket" | "transport_socket_matches") => VERDICT,
        (name, _) if name.starts_with("extensions.transport_sockets.tls.") => {
            "refused where a secret is not there"
        }
        ("core.v3.TypedExtensionConfig" | "core.v3.ExtensionConfigSource", _) => "plan",
        ("istio.mesh.v1alpha1.ProxyConfig", _) => {
            "trusted beside the roots of the certificate authority, where the node keeps certificates"
        }
        (name, _) if name.starts_with("istio.networking.nds.") => "names",
        _ => PROXY,
    }
}

impl Table {
    /// Whether a validator looks into messages of this type.
    pub(super) fn is_looked_into(&self, message: &str) -> bool {
        self.order.contains_key(message)
    }
}
