//! `http_connection_manager.v3.HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;
use super::ext_authz::ExtAuthz;
use super::fault::Fault;
use super::jwt_authn::JwtAuthn;
use super::local_rate_limit::LocalRateLimit;
use super::rbac::{Rbac, RbacFilter};
use super::route::RouteConfiguration;
use super::telemetry::{IstioStats, PeerExchange};
use super::tracing::{RequestId, Tracing, TracingProvider};

/// `HttpConnectionManager`.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of Envoy's message")]
pub struct HttpConnectionManager {
    /// For statistics.
    pub stat_prefix: String,
    /// How the protocol is found.
    pub codec: CodecType,
    /// Where routes come from.
    pub routes: RouteSpecifier,
    /// In order, the router last.
    pub http_filters: Vec<HttpFilter>,
    /// `max_request_headers_kb`, in bytes; Envoy's default is 60 KiB.
    pub max_request_headers_bytes: usize,
    /// `common_http_protocol_options.max_headers_count`; Envoy's default is 100.
    pub max_headers_count: usize,
    /// `common_http_protocol_options.idle_timeout` of the connection; `None` is never; Envoy's default is 1 h.
    pub idle_timeout: Option<Duration>,
    /// `stream_idle_timeout`: `None` is never (an explicit 0); Envoy's default is 5 min.
    pub stream_idle_timeout: Option<Duration>,
    /// `request_headers_timeout`; `None` is never.
    pub request_headers_timeout: Option<Duration>,
    /// `http_protocol_options.accept_http_10`.
    pub accept_http_10: bool,
    /// `use_remote_address`: the peer's address is trusted over `x-forwarded-for`.
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`: how many proxies in front are trusted with what they append to `x-forwarded-for`.
    pub xff_num_trusted_hops: u32,
    /// `skip_xff_append`.
    pub skip_xff_append: bool,
    /// `server_name`; Envoy's default is `envoy`, Istio's `istio-envoy`.
    pub server_name: String,
    /// `server_header_transformation`.
    pub server_header: ServerHeader,
    /// `generate_request_id`.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub always_set_request_id_in_response: bool,
    /// `normalize_path`.
    pub normalize_path: bool,
    /// `merge_slashes`.
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`.
    pub escaped_slashes: EscapedSlashes,
    /// `common_http_protocol_options.headers_with_underscores_action`.
    pub underscores: HeadersWithUnderscores,
    /// `forward_client_cert_details`.
    pub forward_client_cert: ForwardClientCert,
    /// `set_current_client_cert_details`.
    pub client_cert_details: ClientCertDetails,
    /// `upgrade_configs` that are enabled, lower-case (`websocket`).
    pub upgrades: Vec<String>,
    /// `strip_matching_host_port`, `strip_any_host_port`.
    pub strip_port: StripPort,
    /// `access_log`: those that are written.
    pub access_logs: Vec<AccessLog>,
    /// `tracing`
    pub tracing: Option<Tracing>,
    /// `request_id_extension`
    pub request_id: RequestId,
}

impl HttpConnectionManager {
    /// What its filter `istio.alpn` has offered to endpoints that speak this protocol, in the place of the TLS context's list.
    pub fn alpn_override(&self, protocol: AlpnProtocol) -> Option<&[String]> {
        let overrides = self.http_filters.iter().filter_map(|filter| match filter {
            HttpFilter::Alpn(overrides) => Some(overrides),
            _ => None,
        });
        let mut of_protocol = overrides.flatten().filter(|alpn| alpn.upstream_protocol == protocol);
        of_protocol.next().map(|alpn| alpn.protocols.as_slice()).filter(|protocols| !protocols.is_empty())
    }

    /// Whether it says whose requests are let in.
    pub fn enforces_policy(&self) -> bool {
        let mut filters = self.http_filters.iter();
        filters.any(|filter| {
            matches!(filter, HttpFilter::Rbac(_) | HttpFilter::JwtAuthn(_) | HttpFilter::ExtAuthz(..))
        })
    }

    /// What its filter `istio.stats` is told; `None` without.
    pub fn stats(&self) -> Option<&Arc<IstioStats>> {
        self.http_filters.iter().find_map(|filter| match filter {
            HttpFilter::Stats(stats) => Some(stats),
            _ => None,
        })
    }

    /// Where spans go; `None` where none are made.
    pub fn tracing_provider(&self) -> Option<&Arc<TracingProvider>> {
        self.tracing.as_ref()?.provider.as_ref()
    }

    /// How the ends of its requests learn about each other.
    pub fn peer_exchange(&self) -> PeerExchange {
        let mut exchanges = self.http_filters.iter().filter_map(|filter| match filter {
            HttpFilter::PeerMetadata(exchange) => Some(*exchange),
            _ => None,
        });
        exchanges.next().unwrap_or_default()
    }

    /// What its RBAC filters enforce, in order.
    pub fn rbac(&self) -> impl Iterator<Item = &Rbac> {
        self.http_filters.iter().filter_map(|filter| match filter {
            HttpFilter::Rbac(filter) => filter.rules.as_ref(),
            _ => None,
        })
    }
}

/// `codec_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodecType {
    /// Sniffed from the first bytes.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// `route_specifier`.
#[derive(Debug, Clone)]
pub enum RouteSpecifier {
    /// By name, through RDS.
    Rds(Arc<str>),
    /// Part of the listener.
    Inline(Arc<RouteConfiguration>),
}

/// An HTTP filter that is understood. Anything else is refused when the listener is validated.
#[derive(Debug, Clone)]
pub enum HttpFilter {
    /// `istio.metadata_exchange` / `peer_metadata`: how the ends of a request learn about each other.
    PeerMetadata(PeerExchange),
    /// `envoy.filters.http.grpc_stats`.
    GrpcStats,
    /// `istio.alpn`: replaces the ALPN that is offered upstream, by what is spoken there.
    Alpn(Vec<AlpnOverride>),
    /// `istio.stats`: Istio's metrics of requests.
    Stats(Arc<IstioStats>),
    /// `envoy.filters.http.fault`, with the faults of requests whose route says nothing.
    Fault(Arc<Fault>),
    /// `envoy.filters.http.cors`; routes have the policies.
    Cors,
    /// `envoy.filters.http.grpc_web`
    GrpcWeb,
    /// `envoy.filters.http.rbac` that enforces or tries something.
    Rbac(Arc<RbacFilter>),
    /// `envoy.filters.http.jwt_authn`
    JwtAuthn(Arc<JwtAuthn>),
    /// `envoy.filters.http.ext_authz`, and the name by which routes know it.
    ExtAuthz(Arc<str>, Arc<ExtAuthz>),
    /// `envoy.filters.http.local_ratelimit`, and the name by which routes know it.
    LocalRateLimit(Arc<str>, Arc<LocalRateLimit>),
    /// Taken by ECDS.
    Discovered(DiscoveredFilter),
    /// `envoy.filters.http.router`; always last.
    Router,
}

/// What `istio.alpn` has offered to endpoints that speak a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlpnOverride {
    /// `upstream_protocol`
    pub upstream_protocol: AlpnProtocol,
    /// `alpn_override`, the preferred first; empty leaves the TLS context's.
    pub protocols: Vec<String>,
}

/// `Protocol` of `istio.alpn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlpnProtocol {
    /// `HTTP10`, which is not spoken to endpoints.
    Http10,
    /// `HTTP11`
    Http11,
    /// `HTTP2`
    Http2,
}

/// `config_discovery` of an HTTP filter.
#[derive(Debug, Clone)]
pub struct DiscoveredFilter {
    /// The extension configuration's name: the filter's own.
    pub name: Arc<str>,
    /// The listener waits until the configuration has come (not `apply_default_config_without_warming`).
    pub waits: bool,
    /// What stands in where the configuration is refused.
    pub default_config: Option<Box<HttpFilter>>,
}

/// `server_header_transformation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replaced.
    Overwrite,
    /// Set where absent.
    AppendIfAbsent,
    /// Left alone.
    PassThrough,
}

/// `PathWithEscapedSlashesAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Left alone (Envoy's default).
    KeepUnchanged,
    /// 400.
    RejectRequest,
    /// Unescaped and redirected with 307.
    UnescapeAndRedirect,
    /// Unescaped and forwarded.
    UnescapeAndForward,
}

/// `HeadersWithUnderscoresAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadersWithUnderscores {
    /// Left alone (Envoy's default).
    Allow,
    /// 400.
    RejectRequest,
    /// The header is dropped.
    DropHeader,
}

/// `ForwardClientCertDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// `x-forwarded-client-cert` is removed.
    Sanitize,
    /// Forwarded on mTLS connections.
    ForwardOnly,
    /// Appended to on mTLS connections.
    AppendForward,
    /// Replaced on mTLS connections.
    SanitizeSet,
    /// Always forwarded.
    AlwaysForwardOnly,
}

/// `SetCurrentClientCertDetails`: what `x-forwarded-client-cert` says of the peer's certificate beside its hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `subject`
    pub subject: bool,
    /// `dns`
    pub dns: bool,
    /// `uri`
    pub uri: bool,
}

/// What happens to the port in `:authority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripPort {
    /// Kept.
    Keep,
    /// Removed where it is the listener's.
    Matching,
    /// Removed.
    Any,
}
