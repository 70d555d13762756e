//! What one filter chain does with a connection.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::hop;
use super::finding::{Finding, Layer};
use super::http::http_finding;
use super::{Cause, Reason, Scope, Served};
use crate::resource::FieldPath;
use crate::resource::http_connection_manager::{HttpConnectionManager, RouteSpecifier};
use crate::resource::listener::{DownstreamTransportSocket, FilterChain, Listener, TerminalFilter};
use crate::resource::route::RouteConfiguration;
use crate::resource::tcp_proxy::{TcpClusterSpecifier, TcpProxy};
use crate::resource::tls::DownstreamTlsContext;

/// Envoy's idle timeout of a TCP proxy where none is asked for.
const DEFAULT_IDLE_TIMEOUT: Option<Duration> = Some(Duration::from_hours(1));

/// A chain, and where it stands, for reasons.
#[derive(Clone, Copy)]
pub(super) struct ChainAt<'a> {
    pub(super) chain: &'a FilterChain,
    pub(super) listener: &'a Listener,
    /// Among the listener's chains; `None` is the default one.
    pub(super) position: Option<usize>,
}

impl<'a> ChainAt<'a> {
    pub(super) fn layer(self) -> Layer {
        match self.chain.terminal {
            TerminalFilter::HttpConnectionManager(_) => Layer::Http,
            TerminalFilter::TcpProxy(_) => Layer::Tcp,
        }
    }

    pub(super) fn terminates_tls(self) -> bool {
        self.tls().is_some()
    }

    /// What it terminates TLS with.
    pub(super) fn tls(self) -> Option<&'a DownstreamTlsContext> {
        match &self.chain.transport_socket {
            DownstreamTransportSocket::Tls(context) => Some(context),
            DownstreamTransportSocket::RawBuffer => None,
        }
    }

    pub(super) fn resource(self) -> String {
        format!("listener `{}`", self.listener.name)
    }

    pub(super) fn field(self) -> FieldPath {
        match self.position {
            Some(position) => FieldPath::root().field("filter_chains").index(position),
            None => FieldPath::root().field("default_filter_chain"),
        }
    }

    pub(super) fn reason(self, field: &str, what: &'static str) -> Reason {
        let name = &self.chain.name;
        let chain = if name.is_empty() { self.field().to_string() } else { name.clone() };
        Reason {
            resource: self.resource(),
            field: self.field().field(field),
            cause: Cause::FilterChain { chain, what },
        }
    }

    fn asks(self, field: &'static str, what: &'static str) -> Finding<'a> {
        Finding::new(self.layer().proxy(), move || self.reason(field, what))
    }
}

/// The routes of a connection manager, if they are there.
pub(super) fn routes<'a>(
    served: Served<'a>,
    manager: &'a HttpConnectionManager,
) -> Option<&'a RouteConfiguration> {
    match &manager.routes {
        RouteSpecifier::Rds(name) => served.proxy.routes.get(name).map(Arc::as_ref),
        RouteSpecifier::Inline(routes) => Some(routes),
    }
}

/// Where a chain leads. `scope` picks the virtual hosts that count.
pub(super) fn chain_finding<'a>(served: Served<'a>, at: ChainAt<'a>, scope: Scope<'a>) -> Finding<'a> {
    if at.terminates_tls() {
        return at.asks("transport_socket", "terminates TLS");
    }
    behind_tls(served, at, scope)
}

/// The same of what is inside of TLS, if it is terminated.
pub(super) fn behind_tls<'a>(served: Served<'a>, at: ChainAt<'a>, scope: Scope<'a>) -> Finding<'a> {
    match &at.chain.terminal {
        TerminalFilter::TcpProxy(tcp_proxy) => tcp_finding(served, at, tcp_proxy),
        TerminalFilter::HttpConnectionManager(manager) => match routes(served, manager) {
            Some(routes) => http_finding(served, at, manager, routes, &scope.hosts(routes)),
            None => at.asks("rds", "names routes that have not come or were refused"),
        },
    }
}

fn tcp_finding<'a>(served: Served<'a>, at: ChainAt<'a>, tcp_proxy: &'a TcpProxy) -> Finding<'a> {
    let TcpProxy {
        cluster,
        idle_timeout,
        max_connect_attempts,
        max_downstream_connection_duration,
        // Of clusters that balance by hash, which are the proxy's.
        hash_source_ip: _,
        access_logs,
    } = tcp_proxy;
    if !access_logs.is_empty() {
        return at.asks("access_log", "writes an access log of connections");
    }
    if *idle_timeout != DEFAULT_IDLE_TIMEOUT {
        return at.asks("idle_timeout", "closes idle connections");
    }
    if *max_connect_attempts > 1 {
        return at.asks("max_connect_attempts", "connects again after a failure");
    }
    if max_downstream_connection_duration.is_some() {
        return at.asks("max_downstream_connection_duration", "limits a connection's duration");
    }
    match cluster {
        TcpClusterSpecifier::Cluster(name) => hop(served, name, Layer::Tcp.into()),
        TcpClusterSpecifier::Weighted { .. } => at.asks("weighted_clusters", "draws among weighted clusters"),
    }
}
