//! What the proxy counted: response flags and refusals by name, and the counters of pods and clusters.
//!
//! Each worker owns one [`PodCounters`] for each pod and is its only writer, so that counting is a plain store without a
//! locked instruction; [`PodStats::merge`] adds up the workers' cells when someone asks.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::telemetry::{Dimensions, Published, SeriesStats};

mod filter;

pub use crate::names::DnsStats;
pub use crate::outlier::{OutlierHost, OutlierStats};
pub(crate) use filter::{FilterStat, LimitStat};

/// Which side of the pod a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The pod connects to something.
    Outbound,
    /// Something connects to the pod.
    Inbound,
}

/// Why a request or connection did not go well: Envoy's `%RESPONSE_FLAGS%`, those that can occur here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResponseFlag {
    /// UH: no healthy upstream host.
    NoHealthyUpstream,
    /// UF: the connection to the upstream failed.
    UpstreamConnectionFailure,
    /// UO: the upstream overflowed (circuit breaker).
    UpstreamOverflow,
    /// NR: no route or no filter chain.
    NoRouteFound,
    /// NC: the cluster is not known.
    NoClusterFound,
    /// URX: the retry or connect attempt limit was reached.
    UpstreamRetryLimitExceeded,
    /// UT: the upstream's answer took longer than the route's timeout.
    UpstreamRequestTimeout,
    /// UC: the upstream closed the connection.
    UpstreamConnectionTermination,
    /// UR: the upstream reset the stream.
    UpstreamRemoteReset,
    /// UPE: the upstream's answer was malformed.
    UpstreamProtocolError,
    /// DC: the downstream closed the connection.
    DownstreamConnectionTermination,
    /// DPE: the downstream's request was malformed.
    DownstreamProtocolError,
    /// LR: reset by the proxy.
    LocalReset,
    /// SI: the stream's idle timeout.
    StreamIdleTimeout,
    /// DT: the connection's or the request's maximum duration.
    DurationTimeout,
    /// UMSDR: the upstream's maximum stream duration.
    UpstreamMaxStreamDurationReached,
    /// DI: the request was delayed by a fault.
    DelayInjected,
    /// FI: the request was answered with a fault.
    FaultInjected,
    /// UAEX: an authorizer did not let the request pass.
    UnauthorizedExternalService,
    /// RL: there were too many requests.
    RateLimited,
}

impl ResponseFlag {
    /// Every flag, in the order of its counter.
    pub const ALL: [Self; 20] = [
        Self::NoHealthyUpstream,
        Self::UpstreamConnectionFailure,
        Self::UpstreamOverflow,
        Self::NoRouteFound,
        Self::NoClusterFound,
        Self::UpstreamRetryLimitExceeded,
        Self::UpstreamRequestTimeout,
        Self::UpstreamConnectionTermination,
        Self::UpstreamRemoteReset,
        Self::UpstreamProtocolError,
        Self::DownstreamConnectionTermination,
        Self::DownstreamProtocolError,
        Self::LocalReset,
        Self::StreamIdleTimeout,
        Self::DurationTimeout,
        Self::UpstreamMaxStreamDurationReached,
        Self::DelayInjected,
        Self::FaultInjected,
        Self::UnauthorizedExternalService,
        Self::RateLimited,
    ];

    /// The short form that Envoy writes.
    pub const fn short(self) -> &'static str {
        match self {
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamOverflow => "UO",
            Self::NoRouteFound => "NR",
            Self::NoClusterFound => "NC",
            Self::UpstreamRetryLimitExceeded => "URX",
            Self::UpstreamRequestTimeout => "UT",
            Self::UpstreamConnectionTermination => "UC",
            Self::UpstreamRemoteReset => "UR",
            Self::UpstreamProtocolError => "UPE",
            Self::DownstreamConnectionTermination => "DC",
            Self::DownstreamProtocolError => "DPE",
            Self::LocalReset => "LR",
            Self::StreamIdleTimeout => "SI",
            Self::DurationTimeout => "DT",
            Self::UpstreamMaxStreamDurationReached => "UMSDR",
            Self::DelayInjected => "DI",
            Self::FaultInjected => "FI",
            Self::UnauthorizedExternalService => "UAEX",
            Self::RateLimited => "RL",
        }
    }
}

/// What went wrong with one request or connection: a set of flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u32);

impl ResponseFlags {
    /// With one more.
    pub(crate) fn insert(&mut self, flag: ResponseFlag) {
        self.0 |= 1 << flag as u32;
    }
}

/// As Envoy writes them.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = ResponseFlag::ALL.into_iter().filter(|flag| self.0 & 1 << *flag as u32 != 0);
        let mut between = "";
        for flag in set {
            write!(f, "{between}{}", flag.short())?;
            between = ",";
        }
        if self.0 == 0 { f.write_str("-") } else { Ok(()) }
    }
}

/// Why the proxy itself refused a connection or a request, where serving it would have been wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The pod has no listener for this direction, or the listener no filter chain for the connection.
    #[error("no filter chain takes the connection")]
    NoFilterChain,
    /// The filter chain terminates TLS, and a secret of it is not there or of no use.
    #[error("the filter chain terminates TLS, for which a secret is missing or of no use")]
    DownstreamTls,
    /// What the client sent is no handshake, or has nothing in common with what is spoken.
    #[error("the client's TLS handshake failed")]
    DownstreamTlsHandshake,
    /// The client's handshake took longer than `transport_socket_connect_timeout`.
    #[error("the client's TLS handshake took too long")]
    DownstreamTlsTimeout,
    /// The filter chain requires a certificate of the client, which shows none.
    #[error("the client shows no certificate")]
    NoClientCertificate,
    /// The client's certificate is of no trusted authority, expired or not yet valid.
    #[error("the client's certificate is refused")]
    ClientCertificate,
    /// The client's certificate is good, and none of its names is expected: another trust domain's.
    #[error("the client's certificate is for nobody who is expected")]
    ClientName,
    /// The endpoint is owed TLS, and a secret for it is not there or of no use; plaintext would be a downgrade.
    #[error("the endpoint is owed TLS, for which a secret is missing or of no use")]
    UpstreamTls,
    /// The endpoint speaks no TLS, has nothing in common with what is spoken, or refuses it.
    #[error("the TLS handshake with the endpoint failed")]
    UpstreamTlsHandshake,
    /// The endpoint's handshake took longer than `connect_timeout`.
    #[error("the TLS handshake with the endpoint took too long")]
    UpstreamTlsTimeout,
    /// The endpoint's certificate is of no trusted authority, expired or not yet valid.
    #[error("the endpoint's certificate is refused")]
    UpstreamTlsCertificate,
    /// The endpoint's certificate is good, and none of its names is the service's.
    #[error("the endpoint's certificate is for somebody else")]
    UpstreamTlsName,
    /// The client said nothing that tells its protocol within `listener_filters_timeout`.
    #[error("listener filter timeout")]
    ListenerFilterTimeout,
    /// The client's first bytes are longer than a listener filter may hold.
    #[error("the client's first message is too long to inspect")]
    ListenerFilterOverflow,
    /// A policy does not let the connection in.
    #[error("a policy does not allow the connection")]
    Policy,
    /// The connection was dialled to the proxy's own listener: forwarding it would loop.
    #[error("dialled to the proxy's own listener")]
    OwnListener,
    /// The request's route asks for what Envoy does and the proxy does not.
    #[error("the route asks for what is not supported")]
    UnsupportedRoute,
    /// The request shows no token where one has to be, or one that is not good.
    #[error("the request's token is missing or not good")]
    Token,
    /// An authorizer does not let the request pass.
    #[error("an authorizer does not allow the request")]
    Authorizer,
    /// An authorizer could not be asked.
    #[error("an authorizer does not answer")]
    NoAuthorizer,
    /// There are too many requests.
    #[error("there are more requests than may be")]
    RateLimit,
}

impl Refusal {
    /// Every reason, in the order of its counter.
    pub const ALL: [Self; 21] = [
        Self::NoFilterChain,
        Self::DownstreamTls,
        Self::DownstreamTlsHandshake,
        Self::DownstreamTlsTimeout,
        Self::NoClientCertificate,
        Self::ClientCertificate,
        Self::ClientName,
        Self::UpstreamTls,
        Self::UpstreamTlsHandshake,
        Self::UpstreamTlsTimeout,
        Self::UpstreamTlsCertificate,
        Self::UpstreamTlsName,
        Self::ListenerFilterTimeout,
        Self::ListenerFilterOverflow,
        Self::Policy,
        Self::OwnListener,
        Self::UnsupportedRoute,
        Self::Token,
        Self::Authorizer,
        Self::NoAuthorizer,
        Self::RateLimit,
    ];

    /// The name in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoFilterChain => "no_filter_chain",
            Self::DownstreamTls => "downstream_tls",
            Self::DownstreamTlsHandshake => "downstream_tls_handshake",
            Self::DownstreamTlsTimeout => "downstream_tls_timeout",
            Self::NoClientCertificate => "no_client_certificate",
            Self::ClientCertificate => "client_certificate",
            Self::ClientName => "client_name",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamTlsHandshake => "upstream_tls_handshake",
            Self::UpstreamTlsTimeout => "upstream_tls_timeout",
            Self::UpstreamTlsCertificate => "upstream_tls_certificate",
            Self::UpstreamTlsName => "upstream_tls_name",
            Self::ListenerFilterTimeout => "listener_filter_timeout",
            Self::ListenerFilterOverflow => "listener_filter_overflow",
            Self::Policy => "policy",
            Self::OwnListener => "own_listener",
            Self::UnsupportedRoute => "unsupported_route",
            Self::Token => "token",
            Self::Authorizer => "authorizer",
            Self::NoAuthorizer => "no_authorizer",
            Self::RateLimit => "rate_limit",
        }
    }
}

/// A number with one writer: the worker whose counters it belongs to. Readers on other threads may be a moment behind.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`. A load and a store, not a locked addition: no one else writes.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes one off a gauge.
    pub(crate) fn dec(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// The value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The counters of one worker for one pod.
#[derive(Debug, Default)]
pub(crate) struct PodCounters {
    accepted_outbound: Counter,
    accepted_inbound: Counter,
    /// Connections that are open now (gauge).
    pub(crate) active: Counter,
    /// Bytes read from downstream connections of the TCP proxy.
    pub(crate) bytes_received: Counter,
    /// Bytes written to downstream connections of the TCP proxy.
    pub(crate) bytes_sent: Counter,
    /// Connections lost to a bug: their task panicked.
    pub(crate) panics: Counter,
    /// Lines of access logs that were queued.
    pub(crate) log_lines: Counter,
    /// Lines of access logs for which there was no room.
    pub(crate) log_lines_lost: Counter,
    /// Spans that a collector has taken.
    pub(crate) spans_sent: Counter,
    /// Spans for which there was no room, or that no collector took.
    pub(crate) spans_dropped: Counter,
    flags: [Counter; ResponseFlag::ALL.len()],
    refusals: [Counter; Refusal::ALL.len()],
    /// Of Istio's metrics.
    pub(crate) series: Arc<Published>,
    /// Locked when a cluster is used for the first time and when statistics are read, never for a request.
    clusters: Mutex<HashMap<Arc<str>, Arc<ClusterCounters>>>,
    /// By `stat_prefix`. Locked when a connection begins and when statistics are read, never for a request.
    http: Mutex<HashMap<String, Arc<HttpCounters>>>,
    /// Of local rate limits, by `stat_prefix`. Locked when a worker meets a limit for the first time and when statistics are read.
    limits: Mutex<HashMap<String, Arc<LimitCounters>>>,
}

/// The counters of one worker for the local rate limits of one pod that share a `stat_prefix`.
#[derive(Debug, Default)]
pub(crate) struct LimitCounters([Counter; LimitStat::ALL.len()]);

impl LimitCounters {
    /// A limit has something to count.
    pub(crate) fn count(&self, stat: LimitStat) {
        if let Some(cell) = self.0.get(stat as usize) {
            cell.inc();
        }
    }
}

/// The counters of one worker for the HTTP connection managers of one pod that share a `stat_prefix`.
#[derive(Debug, Default)]
pub(crate) struct HttpCounters {
    /// Downstream connections that spoke HTTP.
    pub(crate) connections: Counter,
    /// Requests that arrived, malformed ones as well.
    pub(crate) requests: Counter,
    /// By the hundreds of the status, 1xx to 5xx.
    answers: [Counter; 5],
    filters: [Counter; FilterStat::ALL.len()],
}

impl HttpCounters {
    /// A request was answered with `status`.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        let hundreds = usize::from(status.as_u16() / 100);
        if let Some(cell) = hundreds.checked_sub(1).and_then(|class| self.answers.get(class)) {
            cell.inc();
        }
    }

    /// A filter has something to count.
    pub(crate) fn filter(&self, stat: FilterStat) {
        if let Some(cell) = self.filters.get(stat as usize) {
            cell.inc();
        }
    }
}

/// The counters of one worker for one cluster of one pod.
#[derive(Debug, Default)]
pub(crate) struct ClusterCounters {
    /// Connections that were opened.
    pub(crate) connections: Counter,
    /// Connections that could not be opened.
    pub(crate) connect_failures: Counter,
    /// Requests that were sent, each attempt counted.
    pub(crate) requests: Counter,
    /// Requests that ended in a 5xx of the upstream or without an answer.
    pub(crate) failures: Counter,
    /// Connections that are open now (gauge).
    pub(crate) active: Counter,
}

impl PodCounters {
    /// A connection was accepted.
    pub(crate) fn accepted(&self, direction: Direction) {
        match direction {
            Direction::Outbound => self.accepted_outbound.inc(),
            Direction::Inbound => self.accepted_inbound.inc(),
        }
    }

    /// A request or connection ended with `flag`.
    pub(crate) fn flag(&self, flag: ResponseFlag) {
        if let Some(cell) = self.flags.get(flag as usize) {
            cell.inc();
        }
    }

    /// A request or connection was refused.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        if let Some(cell) = self.refusals.get(refusal as usize) {
            cell.inc();
        }
    }

    /// The counters of a cluster, to be kept by whoever uses the cluster.
    pub(crate) fn cluster(&self, name: &Arc<str>) -> Arc<ClusterCounters> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(clusters.entry(Arc::clone(name)).or_default())
    }

    /// The counters of the connection managers with this `stat_prefix`, to be kept by the connection.
    pub(crate) fn http(&self, stat_prefix: &str) -> Arc<HttpCounters> {
        by_prefix(&self.http, stat_prefix)
    }

    /// The counters of the local rate limits with this `stat_prefix`, to be kept with the bucket.
    pub(crate) fn limit(&self, stat_prefix: &str) -> Arc<LimitCounters> {
        by_prefix(&self.limits, stat_prefix)
    }
}

fn by_prefix<C: Default>(counters: &Mutex<HashMap<String, Arc<C>>>, stat_prefix: &str) -> Arc<C> {
    let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = counters.get(stat_prefix) {
        return Arc::clone(known);
    }
    Arc::clone(counters.entry(stat_prefix.to_owned()).or_default())
}

/// What was counted for one pod, or for all (see [`Proxy::totals`](crate::Proxy::totals)).
#[derive(Debug, Default, Clone, Serialize)]
pub struct PodStats {
    /// Connections accepted from the pod.
    pub accepted_outbound: u64,
    /// Connections accepted towards the pod.
    pub accepted_inbound: u64,
    /// Downstream connections that are open now.
    pub active: u64,
    /// Bytes that the TCP proxy read from downstream connections.
    pub bytes_received: u64,
    /// Bytes that the TCP proxy wrote to downstream connections.
    pub bytes_sent: u64,
    /// Connections lost to a bug of the proxy.
    pub panics: u64,
    /// Lines of access logs.
    pub access_log_lines: u64,
    /// Lines of access logs that were lost: the agent's output is not read as fast as they come, or is closed.
    pub access_log_lines_lost: u64,
    /// Spans that a collector has taken.
    pub spans_sent: u64,
    /// Spans that were lost: collectors do not take them, or not as fast as they come.
    pub spans_dropped: u64,
    /// Answered requests by class, `2xx`.
    pub requests: BTreeMap<&'static str, u64>,
    /// Envoy's response flags that occurred, by their short form.
    pub response_flags: BTreeMap<&'static str, u64>,
    /// Refusals that occurred, by [`Refusal::name`].
    pub refused: BTreeMap<&'static str, u64>,
    /// Clusters that were used.
    pub clusters: BTreeMap<String, ClusterStats>,
    /// HTTP connection managers that were used, by `stat_prefix`.
    pub http: BTreeMap<String, HttpStats>,
    /// What local rate limits counted, by `stat_prefix` and Envoy's names.
    pub local_rate_limits: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Clusters that detect outliers; of one pod alone.
    pub outliers: BTreeMap<String, OutlierStats>,
    /// Clusters whose endpoints have names; of one pod alone.
    pub dns: BTreeMap<String, DnsStats>,
    /// Requests and connections that are in none of Istio's metrics, because there were too many series.
    pub series_lost: u64,
    /// Istio's metrics.
    #[serde(skip)]
    pub series: HashMap<Dimensions, SeriesStats>,
}

/// What was counted for the HTTP connection managers of one `stat_prefix`.
#[derive(Debug, Default, Clone, Serialize)]
pub struct HttpStats {
    /// Downstream connections that spoke HTTP.
    pub connections: u64,
    /// Requests that arrived, malformed ones as well.
    pub requests: u64,
    /// Answers by class, `2xx`.
    pub answers: BTreeMap<&'static str, u64>,
    /// What filters counted, by Envoy's names (`rbac.denied`).
    pub filters: BTreeMap<&'static str, u64>,
}

/// What was counted for one cluster.
#[derive(Debug, Default, Clone, Serialize)]
pub struct ClusterStats {
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// Requests that were sent, each attempt counted.
    pub requests: u64,
    /// Requests that ended in a 5xx of the upstream or without an answer.
    pub failures: u64,
    /// Connections that are open now.
    pub active: u64,
}

impl PodStats {
    /// Adds what one worker counted.
    pub(crate) fn merge(&mut self, counters: &PodCounters) {
        const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
        self.accepted_outbound += counters.accepted_outbound.get();
        self.accepted_inbound += counters.accepted_inbound.get();
        self.active += counters.active.get();
        self.bytes_received += counters.bytes_received.get();
        self.bytes_sent += counters.bytes_sent.get();
        self.panics += counters.panics.get();
        self.access_log_lines += counters.log_lines.get();
        self.access_log_lines_lost += counters.log_lines_lost.get();
        self.spans_sent += counters.spans_sent.get();
        self.spans_dropped += counters.spans_dropped.get();
        add(&mut self.response_flags, ResponseFlag::ALL.map(ResponseFlag::short), &counters.flags);
        add(&mut self.refused, Refusal::ALL.map(Refusal::name), &counters.refusals);
        self.series_lost += counters.series.lost.get();
        counters.series.merge_into(&mut self.series);
        let clusters = counters.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, cluster) in clusters.iter() {
            let stats = self.clusters.entry(name.to_string()).or_default();
            stats.connections += cluster.connections.get();
            stats.connect_failures += cluster.connect_failures.get();
            stats.requests += cluster.requests.get();
            stats.failures += cluster.failures.get();
            stats.active += cluster.active.get();
        }
        let http = counters.http.lock().unwrap_or_else(PoisonError::into_inner);
        for (stat_prefix, manager) in http.iter() {
            let stats = self.http.entry(stat_prefix.clone()).or_default();
            stats.connections += manager.connections.get();
            stats.requests += manager.requests.get();
            add(&mut stats.answers, CLASSES, &manager.answers);
            add(&mut stats.filters, FilterStat::ALL.map(FilterStat::name), &manager.filters);
            add(&mut self.requests, CLASSES, &manager.answers);
        }
        let limits = counters.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for (stat_prefix, limit) in limits.iter() {
            let stats = self.local_rate_limits.entry(stat_prefix.clone()).or_default();
            add(stats, LimitStat::ALL.map(LimitStat::name), &limit.0);
        }
    }
}

/// Adds the cells that are not zero under their names.
fn add<const N: usize>(to: &mut BTreeMap<&'static str, u64>, names: [&'static str; N], cells: &[Counter; N]) {
    for (name, cell) in names.into_iter().zip(cells) {
        if cell.get() > 0 {
            *to.entry(name).or_default() += cell.get();
        }
    }
}
