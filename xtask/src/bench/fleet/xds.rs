//! The configuration of the agents under test, in the form that istiod gives it: one listener and one cluster a service,
//! endpoints and routes by reference.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{HOST, L4_PORT, L7_PORT, VIP};

/// The header that the L7 service's first route asks for. No request of the load carries it: it is there to be looked for.
const CANARY_HEADER: &str = "x-canary";

const PASSTHROUGH: &str = "PassthroughCluster";

/// The address of the first of many services; the others follow it.
pub(super) const FIRST_VIP: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

/// Writes `lds.json`, `cds.json`, `eds.json` and `rds.json` for the two services at [`VIP`] and `crowd` more L4 services,
/// all with the one endpoint `backend`.
pub(super) fn write(dir: &Path, backend: SocketAddr, crowd: u32) -> Result<()> {
    let crowd = (0..crowd).map(|n| Service {
        address: (IpAddr::from(Ipv4Addr::from_bits(FIRST_VIP.to_bits() + n)), L4_PORT).into(),
        host: format!("crowd-{n}.default.svc.cluster.local"),
    });
    let mut tcp = vec![Service { address: (VIP, L4_PORT).into(), host: HOST.to_owned() }];
    tcp.extend(crowd);
    let http = Service { address: (VIP, L7_PORT).into(), host: HOST.to_owned() };

    let all = || tcp.iter().chain([&http]);
    fs::create_dir_all(dir)?;
    publish(dir, "eds", all().map(|service| service.load_assignment(backend)))?;
    publish(dir, "cds", all().map(Service::cluster).chain([passthrough_cluster()]))?;
    publish(dir, "rds", [http.route_configuration()])?;
    let listeners = tcp.iter().map(Service::tcp_listener).chain([http.http_listener(), virtual_outbound()]);
    publish(dir, "lds", listeners)
}

fn publish(dir: &Path, kind: &str, resources: impl IntoIterator<Item = Value>) -> Result<()> {
    let file = dir.join(format!("{kind}.json"));
    let resources: Vec<_> = resources.into_iter().collect();
    fs::write(&file, serde_json::to_vec(&json!({"version_info": "1", "resources": resources}))?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// A service as istiod names it.
struct Service {
    address: SocketAddr,
    host: String,
}

impl Service {
    fn cluster_name(&self) -> String {
        format!("outbound|{}||{}", self.address.port(), self.host)
    }

    fn cluster(&self) -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "name": self.cluster_name(),
            "type": "EDS",
            "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}},
            "connect_timeout": "10s",
            "lb_policy": "LEAST_REQUEST",
            "circuit_breakers": no_limits(),
        })
    }

    fn load_assignment(&self, backend: SocketAddr) -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": self.cluster_name(),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(backend)}}]}],
        })
    }

    fn tcp_listener(&self) -> Value {
        listener(self.address, &tcp_proxy(&self.cluster_name()))
    }

    fn http_listener(&self) -> Value {
        // One for all HTTP services of the port: the host decides.
        let address = (Ipv4Addr::UNSPECIFIED, self.address.port()).into();
        let manager = json!({
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": self.cluster_name(),
                "rds": {
                    "config_source": {"ads": {}, "resource_api_version": "V3"},
                    "route_config_name": self.route_name(),
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        });
        listener(address, &manager)
    }

    fn route_name(&self) -> String {
        self.address.port().to_string()
    }

    fn route_configuration(&self) -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": self.route_name(),
            "virtual_hosts": [{
                "name": format!("{}:{}", self.host, self.address.port()),
                "domains": [self.host, self.address.ip()],
                "routes": routes(&self.cluster_name()),
            }],
        })
    }
}

/// A listener that is reached by way of `virtualOutbound`.
fn listener(address: SocketAddr, filter: &Value) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": format!("{}_{}", address.ip(), address.port()),
        "address": socket_address(address),
        "bind_to_port": false,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [filter]}],
    })
}

/// What takes every connection and lets those pass that no other listener fits.
fn virtual_outbound() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "virtualOutbound",
        "address": socket_address((Ipv4Addr::UNSPECIFIED, 15001).into()),
        "use_original_dst": true,
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [tcp_proxy(PASSTHROUGH)]}],
    })
}

fn passthrough_cluster() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": PASSTHROUGH,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
    })
}

/// A `tcp_proxy` filter to one cluster.
pub(super) fn tcp_proxy(cluster: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": cluster,
            "cluster": cluster,
        },
    })
}

/// The routes of the L7 service, the same for everybody who routes by them.
pub(super) fn routes(cluster: &str) -> Value {
    json!([
        {
            "match": {"prefix": "/", "headers": [{"name": CANARY_HEADER, "present_match": true}]},
            "direct_response": {"status": 404},
        },
        {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}},
    ])
}

/// The circuit breakers that istiod sends when nobody asked for any: Envoy's own defaults are limits.
pub(super) fn no_limits() -> Value {
    json!({"thresholds": [{
        "max_connections": u32::MAX,
        "max_pending_requests": u32::MAX,
        "max_requests": u32::MAX,
        "max_retries": u32::MAX,
    }]})
}

/// An `envoy.config.core.v3.Address`.
pub(super) fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}
