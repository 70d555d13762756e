//! `cluster.v3.Cluster`.

use std::sync::Arc;
use std::time::Duration;

use super::dns_discovery::DnsDiscovery;
use super::endpoint::{ClusterLoadAssignment, EndpointAbout};
use super::outlier_detection::OutlierDetection;
use super::tls::UpstreamTlsContext;

/// `Cluster`.
#[derive(Debug)]
pub struct Cluster {
    /// The name that CDS knows it by, e.g. `outbound|8080||backend.default.svc.cluster.local`.
    pub name: Arc<str>,
    /// Where endpoints come from.
    pub discovery: ClusterDiscovery,
    /// `connect_timeout`; Envoy's default is 5 s.
    pub connect_timeout: Duration,
    /// `lb_policy`.
    pub lb_policy: LbPolicy,
    /// What is spoken to the endpoints.
    pub protocol: UpstreamProtocol,
    /// TLS by endpoint metadata, or for all.
    pub transport_socket: UpstreamTransportSocket,
    /// Whose name TLS asks for.
    pub server_name: ServerNameSource,
    /// The filter `istio.alpn` may replace the ALPN of the TLS context (no `alpn_override: "false"` in Istio's metadata).
    pub alpn_override: bool,
    /// `circuit_breakers.thresholds` of the default priority.
    pub circuit_breakers: CircuitBreakers,
    /// `outlier_detection`
    pub outlier_detection: Option<OutlierDetection>,
    /// `common_http_protocol_options.idle_timeout` of upstream connections; `None` is never; Envoy's default is 1 h.
    pub idle_timeout: Option<Duration>,
    /// `max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `upstream_connection_options.tcp_keepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `common_lb_config.healthy_panic_threshold` in percent; Envoy's default is 50; 0 is off.
    pub healthy_panic_threshold: u8,
    /// `slow_start_config` of the policy: endpoints that are new get less at first.
    pub slow_start: Option<SlowStart>,
    /// `lb_policy` takes locality weights into account (`locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// `metadata.filter_metadata["istio"]["services"][0]`: the service this cluster is for.
    pub service: Option<Arc<IstioService>>,
    /// Whether its endpoints are told who calls (`metadata.filter_metadata["istio"]`).
    pub told_of_peers: ToldOfPeers,
}

/// Who of a cluster's endpoints is told who calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToldOfPeers {
    /// All.
    #[default]
    Always,
    /// `external`: they are outside of the mesh, and told unless the filter skips them.
    External,
    /// `disable_mx`: nobody.
    Never,
}

/// An entry of Istio's cluster metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IstioService {
    /// Fully qualified.
    pub host: String,
    /// Short name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
}

/// `cluster_discovery_type`.
#[derive(Debug)]
pub enum ClusterDiscovery {
    /// By EDS under this name.
    Eds {
        /// `eds_cluster_config.service_name`, or the cluster's own name.
        service_name: Arc<str>,
    },
    /// Endpoints are part of the cluster.
    Static(Arc<ClusterLoadAssignment>),
    /// By names.
    Dns(Arc<DnsDiscovery>),
    /// To the connection's original destination.
    OriginalDst {
        /// `use_http_header`: `x-envoy-original-dst-host` may name it.
        use_http_header: bool,
        /// `upstream_port_override`.
        port_override: Option<u16>,
    },
}

/// `lb_policy`. Others are refused when validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LbPolicy {
    /// `LEAST_REQUEST` with `choice_count` samples (Envoy's default is 2).
    LeastRequest {
        /// Samples.
        choice_count: u32,
    },
    /// `ROUND_ROBIN`
    RoundRobin,
    /// `RANDOM`
    Random,
    /// `CLUSTER_PROVIDED`: original destination.
    ClusterProvided,
    /// `RING_HASH`
    RingHash {
        /// `minimum_ring_size`; Envoy's default is 1024.
        minimum: u64,
        /// `maximum_ring_size`; Envoy's default is 8 Mi.
        maximum: u64,
    },
    /// `MAGLEV`
    Maglev {
        /// `table_size`, a prime; Envoy's default is 65537.
        table_size: u64,
    },
}

/// `SlowStartConfig`: how the weight of an endpoint grows while it is new.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// `slow_start_window`, above 0: for how long it grows.
    pub window: Duration,
    /// `aggression`, above 0: 1 is linearly, more is faster at first.
    pub aggression: f64,
    /// `min_weight_percent` as a fraction: the least part of its weight that it gets.
    pub min_weight: f64,
}

impl SlowStart {
    /// The part of its weight that an endpoint has at this age.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let grown = age.max(Duration::from_millis(1)).div_duration_f64(self.window);
        grown.powf(self.aggression.recip()).clamp(self.min_weight, 1.0)
    }
}

impl LbPolicy {
    /// Whether a request's hash chooses the endpoint.
    pub fn is_by_hash(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }
}

/// What the endpoints speak (`HttpProtocolOptions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 with prior knowledge
    Http2,
    /// As the downstream connection speaks (`use_downstream_protocol_config`)
    Downstream,
}

/// Where the SNI and the name to verify come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerNameSource {
    /// The TLS context says it.
    Context,
    /// It is the request's host (`auto_sni`, `auto_san_validation`). Understood, not yet served: hops with TLS are refused.
    Request,
}

/// The transport socket towards endpoints.
#[derive(Debug, Clone, PartialEq)]
pub enum UpstreamTransportSocket {
    /// Plaintext.
    RawBuffer,
    /// TLS to every endpoint.
    Tls(Arc<UpstreamTlsContext>),
    /// TLS to endpoints whose metadata `envoy.transport_socket_match` holds this pair.
    TlsForEndpointsWith {
        /// Metadata key, `tlsMode`.
        key: String,
        /// Metadata value, `istio`.
        value: String,
        /// Towards these endpoints.
        context: Arc<UpstreamTlsContext>,
        /// Towards the others; `None` is plaintext.
        others: Option<Arc<UpstreamTlsContext>>,
    },
}

impl UpstreamTransportSocket {
    /// The TLS context for an endpoint; `None` is plaintext.
    pub fn context(&self, about: &EndpointAbout) -> Option<&Arc<UpstreamTlsContext>> {
        match self {
            Self::RawBuffer => None,
            Self::Tls(context) => Some(context),
            Self::TlsForEndpointsWith { key, value, context, others } => {
                if about.matches_socket(key, value) {
                    Some(context)
                } else {
                    others.as_ref()
                }
            }
        }
    }

    /// Whether no endpoint at all is spoken to in plaintext.
    pub(crate) fn is_always_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsForEndpointsWith { others: Some(_), .. })
    }

    /// Every TLS context that an endpoint may meet.
    pub fn contexts(&self) -> impl Iterator<Item = &Arc<UpstreamTlsContext>> {
        let (one, other) = match self {
            Self::RawBuffer => (None, None),
            Self::Tls(context) => (Some(context), None),
            Self::TlsForEndpointsWith { context, others, .. } => (Some(context), others.as_ref()),
        };
        one.into_iter().chain(other)
    }
}

/// `CircuitBreakers.Thresholds`; `u32::MAX` is "without limit", as istiod writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreakers {
    /// Envoy's default is 1024.
    pub max_connections: u32,
    /// Envoy's default is 1024.
    pub max_pending_requests: u32,
    /// Envoy's default is 1024.
    pub max_requests: u32,
    /// Envoy's default is 3.
    pub max_retries: u32,
}

/// `core.v3.TcpKeepalive`; `None` is the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}
