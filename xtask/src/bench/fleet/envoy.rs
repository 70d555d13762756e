//! Two Envoys, as two sidecars stand in the path, with the REDIRECT rules that Istio installs.
//!
//! They do less than sidecars under istiod do: a static configuration of one service, without Istio's own filters,
//! without mTLS. Statistics are on, as they are by default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use orlop_integration::Pod;
use orlop_integration::tools::{ENVOY_ENV, prepared};
use serde_json::{Value, json};

use super::xds::{no_limits, routes, socket_address, tcp_proxy};
use super::{BACKEND_PORT as HTTP_BACKEND_PORT, L4_PORT, L7_PORT};
use crate::bench::placement::{Placement, Seat};

/// The group that the rules spare, as Istio's do.
const GID: u32 = 1337;
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;

/// A second backend in the server's pod, so that the inbound side, too, can tell requests from connections by the port.
pub(super) const TCP_BACKEND_PORT: u16 = 9090;

/// Which of the two.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    /// Beside the client: captures what the pod sends, and knows the server's address.
    Client(IpAddr),
    /// Beside the server: captures what the pod receives.
    Server,
}

impl Side {
    /// A command that starts the Envoy of this side in the pod.
    pub(super) fn command(self, pod: &Pod, placement: Placement, dir: &Path) -> Result<Command> {
        let file = dir.join(format!("{}-envoy.json", pod.name()));
        std::fs::write(&file, serde_json::to_vec_pretty(&self.bootstrap())?)?;
        let mut command = placement.command_in_group(GID, pod, Seat::Between, prepared(ENVOY_ENV)?)?;
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c"]).arg(file);
        Ok(command)
    }

    /// Installs the rules of this side in the pod.
    pub(super) fn redirect(self, pod: &Pod) -> Result<()> {
        let rules = match self {
            Self::Client(_) => vec![
                format!("OUTPUT -m owner --gid-owner {GID} -j RETURN"),
                "OUTPUT -d 127.0.0.0/8 -j RETURN".to_owned(),
                format!("OUTPUT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}"),
            ],
            Self::Server => vec![format!("PREROUTING -p tcp -j REDIRECT --to-ports {INBOUND_PORT}")],
        };
        for rule in rules {
            pod.run(&format!("iptables -w -t nat -A {rule}"))?;
        }
        Ok(())
    }

    fn bootstrap(self) -> Value {
        let (port, requests, connections) = match self {
            Self::Client(web) => (
                OUTBOUND_PORT,
                Service { port: L7_PORT, upstream: (web, HTTP_BACKEND_PORT).into() },
                Service { port: L4_PORT, upstream: (web, TCP_BACKEND_PORT).into() },
            ),
            Self::Server => (
                INBOUND_PORT,
                Service {
                    port: HTTP_BACKEND_PORT,
                    upstream: (Ipv4Addr::LOCALHOST, HTTP_BACKEND_PORT).into(),
                },
                Service { port: TCP_BACKEND_PORT, upstream: (Ipv4Addr::LOCALHOST, TCP_BACKEND_PORT).into() },
            ),
        };
        json!({"static_resources": {
            "listeners": [{
                "name": "captured",
                "address": socket_address((Ipv4Addr::UNSPECIFIED, port).into()),
                "listener_filters": [{
                    "name": "envoy.filters.listener.original_dst",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
                    },
                }],
                "filter_chains": [
                    {"filter_chain_match": {"destination_port": requests.port}, "filters": [connection_manager()]},
                    {"filter_chain_match": {"destination_port": connections.port}, "filters": [tcp_proxy("tcp")]},
                ],
            }],
            "clusters": [cluster("http", requests.upstream), cluster("tcp", connections.upstream)],
        }})
    }
}

/// What one filter chain serves.
struct Service {
    /// The port that the client asked for.
    port: u16,
    upstream: SocketAddr,
}

fn connection_manager() -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "route_config": {"virtual_hosts": [{
                "name": "service",
                "domains": ["*"],
                "routes": routes("http"),
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    })
}

fn cluster(name: &str, upstream: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": no_limits(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(upstream)}}]}],
        },
    })
}
