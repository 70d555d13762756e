//! The upstream connection of a TCP proxy: cluster, host, dial, and another attempt.

use std::fmt;
use std::sync::Arc;

use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::endpoint::EndpointAbout;
use orlop_plan::resource::tcp_proxy::TcpProxy;
use orlop_plan::resource::telemetry::IstioStats;

use super::log::ConnectionLog;
use super::metrics::Counted;
use crate::dialer::DialError;
use crate::http::hash_of_address;
use crate::outlier::Report;
use crate::pod::ConnectionContext;
use crate::stats::{ClusterCounters, PodCounters, Refusal, ResponseFlag};
use crate::tls::Stream;
use crate::upstream::{ConnectionPermit, OpenError, PickContext, PickError, Picked, open};

/// An open upstream connection.
pub(super) struct Upstream {
    stream: Stream,
    counted: Option<Counted>,
    held: Held,
}

/// Who is at the other end.
pub(super) struct Met {
    /// Of what cluster.
    pub(super) cluster: Arc<Cluster>,
    /// What istiod says of it.
    pub(super) about: Arc<EndpointAbout>,
    /// Who it has shown itself to be.
    pub(super) principal: Option<Arc<str>>,
    /// It was shown the workload's certificate.
    pub(super) shown: bool,
}

/// What counts as in use while the connection is open.
pub(super) struct Held {
    _picked: Picked,
    _permit: ConnectionPermit,
    counters: Arc<ClusterCounters>,
}

/// Why there is no upstream connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// NC: the weighted clusters have no weight.
    NoWeight,
    /// NC.
    NoCluster(Arc<str>),
    /// UO: `max_connections`.
    Overflow(Arc<str>),
    /// UH.
    NoHealthyUpstream(Arc<str>),
    /// Serving it would be wrong.
    Refused(Arc<str>, Refusal),
    /// UF, and URX: no attempt is left.
    Connect(Arc<str>, OpenError),
}

/// Opens a connection to a host of the configured cluster, counts it where `stats` asks for it, and notes what a log tells.
pub(super) async fn connect(
    config: &TcpProxy,
    stats: Option<Arc<IstioStats>>,
    cx: &ConnectionContext,
    mut log: Option<&mut ConnectionLog>,
) -> Result<Upstream, Failure> {
    let opened = dial(config, cx, log.as_deref_mut()).await;
    if let Some(log) = log {
        match &opened {
            Ok((stream, ..)) => log.upstream_local = stream.tcp().local_addr().ok(),
            Err(Failure::Connect(_, error)) => log.transport_failure = error.transport_failure(),
            Err(_) => {}
        }
    }
    let counted = stats.and_then(|stats| match &opened {
        Ok((_, met, _)) => Counted::new(&stats, cx, Some(&met.cluster), Some(met), &[]),
        Err(failure) => {
            let plan = cx.pod.plan();
            let cluster = failure.cluster().and_then(|name| plan.clusters.get(name));
            Counted::new(&stats, cx, cluster.map(|cluster| &cluster.cluster), None, failure.flags())
        }
    });
    let (stream, _, held) = opened?;
    Ok(Upstream { stream, counted, held })
}

async fn dial(
    config: &TcpProxy,
    cx: &ConnectionContext,
    mut log: Option<&mut ConnectionLog>,
) -> Result<(Stream, Met, Held), Failure> {
    let name = config.cluster.pick(fastrand::u64(..)).ok_or(Failure::NoWeight)?;
    if let Some(log) = &mut log {
        log.cluster = Some(Arc::clone(name));
    }
    let plan = cx.pod.plan();
    let cluster = cx.pod.upstreams.cluster(&plan, name);
    let cluster = cluster.ok_or_else(|| Failure::NoCluster(Arc::clone(name)))?;
    cluster.resolved().await;
    let permit = cluster.try_connection().ok_or_else(|| Failure::Overflow(Arc::clone(name)))?;
    let counters = cluster.counters();
    let hash = config.hash_source_ip.then(|| hash_of_address(cx.peer.ip()));
    let mut attempts_left = config.max_connect_attempts.max(1);
    loop {
        let picked =
            cluster.pick(&PickContext::first(cx.local, hash, &plan.secrets)).map_err(
                |error| match error {
                    PickError::NoHealthyUpstream => Failure::NoHealthyUpstream(Arc::clone(name)),
                    PickError::Refused(refusal) => Failure::Refused(Arc::clone(name), refusal),
                },
            )?;
        attempts_left -= 1;
        if let Some(log) = &mut log {
            log.tries(picked.address());
        }
        let opened = open(&cluster, &picked, cx, None).await;
        if let Some(report) = outlier_report(&opened) {
            picked.report(report);
        }
        match opened {
            Ok(stream) => {
                counters.connections.inc();
                counters.active.inc();
                let met = Met {
                    cluster: Arc::clone(cluster.cluster()),
                    about: Arc::clone(&picked.host().endpoint().about),
                    principal: stream.principal_of_endpoint(),
                    shown: picked.shows_certificate(),
                };
                let held = Held { _picked: picked, _permit: permit, counters: Arc::clone(counters) };
                return Ok((stream, met, held));
            }
            Err(error) if attempts_left == 0 => return Err(Failure::Connect(Arc::clone(name), error)),
            Err(_) => {}
        }
    }
}

/// What a connect says of its host, as Envoy's TCP proxy reports it. What is wrong on this side says nothing.
fn outlier_report(opened: &Result<Stream, OpenError>) -> Option<Report> {
    match opened {
        Ok(_) => Some(Report::Established),
        Err(OpenError::Dial(DialError::Timeout { .. }) | OpenError::TlsTimeout) => Some(Report::TimedOut),
        Err(OpenError::Dial(DialError::Connect { .. }) | OpenError::Tls(_)) => Some(Report::Failed),
        Err(OpenError::Dial(DialError::Namespace(_) | DialError::Socket { .. })) => None,
    }
}

impl Upstream {
    /// The connection, its place in the metrics, and what is to be held until it is closed.
    pub(super) fn into_parts(self) -> (Stream, Option<Counted>, Held) {
        (self.stream, self.counted, self.held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.active.dec();
    }
}

impl Failure {
    /// Counts it.
    pub(super) fn count(&self, counters: &PodCounters) {
        if let Self::Refused(_, refusal) = self {
            counters.refuse(*refusal);
        }
        self.flags().iter().for_each(|flag| counters.flag(*flag));
    }

    /// As Envoy's TCP proxy flags it.
    pub(super) fn flags(&self) -> &'static [ResponseFlag] {
        match self {
            Self::NoWeight | Self::NoCluster(_) => &[ResponseFlag::NoClusterFound],
            Self::Overflow(_) => &[ResponseFlag::UpstreamOverflow],
            Self::NoHealthyUpstream(_) => &[ResponseFlag::NoHealthyUpstream],
            Self::Refused(..) => &[],
            Self::Connect(..) => {
                &[ResponseFlag::UpstreamConnectionFailure, ResponseFlag::UpstreamRetryLimitExceeded]
            }
        }
    }

    /// The cluster that the connection was for.
    pub(super) fn cluster(&self) -> Option<&Arc<str>> {
        match self {
            Self::NoWeight => None,
            Self::NoCluster(name)
            | Self::Overflow(name)
            | Self::NoHealthyUpstream(name)
            | Self::Refused(name, _)
            | Self::Connect(name, _) => Some(name),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWeight => f.write_str("no cluster has a weight"),
            Self::NoCluster(name) => write!(f, "cluster {name} is not known"),
            Self::Overflow(name) => write!(f, "cluster {name} has as many connections as it may"),
            Self::NoHealthyUpstream(name) => write!(f, "cluster {name} has no healthy host"),
            Self::Refused(name, refusal) => write!(f, "cluster {name}: {refusal}"),
            Self::Connect(_, error) => error.fmt(f),
        }
    }
}
