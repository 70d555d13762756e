//! What a worker holds for one pod and for one connection: the contexts that every later stage reads.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use orlop_plan::chain_match::{ConnectionFacts, select_chain};
use orlop_plan::proxy::ProxyPlan;
use orlop_plan::rbac;
use orlop_plan::resource::listener::{FilterChain, Listener, TerminalFilter, TransportProtocol};
use orlop_plan::resource::tracing::TracingProvider;
use tokio::sync::{Notify, watch};

use crate::access_log::PodLog;
use crate::collect::Exporters;
use crate::dialer::Dialer;
use crate::http::{Mirrors, WorkerBuckets};
use crate::stats::{Direction, PodCounters};
use crate::tcp::BufferPool;
use crate::telemetry::{PeerExchange, Series};
use crate::tls::{Certificate, ServerContexts};
use crate::upstream::Upstreams;

/// One pod, as one worker sees it. The worker is its only owner.
pub(crate) struct PodContext {
    /// The name that it was enrolled by.
    pub(crate) name: Arc<str>,
    /// The newest plan; shared with the control side, which replaces it.
    pub(crate) plan: Arc<ArcSwap<ProxyPlan>>,
    /// Opens sockets in the pod's network namespace.
    pub(crate) dialer: Dialer,
    /// The worker's balancer state and connection pools for this pod's clusters.
    pub(crate) upstreams: Upstreams,
    /// What filter chains terminate TLS with.
    pub(crate) server_contexts: ServerContexts,
    /// Copies of requests that are under way.
    pub(crate) mirrors: Mirrors,
    /// Its buckets of local rate limits.
    pub(crate) limits: WorkerBuckets,
    /// The worker's buffers for bytes in flight.
    pub(crate) buffers: Rc<BufferPool>,
    /// Written by this worker only.
    pub(crate) counters: Arc<PodCounters>,
    /// Istio's metrics of its requests and connections.
    pub(crate) series: Series,
    /// Its access logs.
    pub(crate) log: PodLog,
    /// Its spans on their way to collectors.
    pub(crate) spans: Exporters<TracingProvider>,
    /// How it and its peers learn about each other.
    pub(crate) peers: PeerExchange,
    /// When the pod is released or the proxy goes.
    pub(crate) drain: Drain,
    /// Notified when connections to the pod may meet other policies than before.
    pub(crate) inbound_changed: Notify,
}

impl PodContext {
    /// The newest plan. Taken once for each request, so that one request sees one plan.
    pub(crate) fn plan(&self) -> Arc<ProxyPlan> {
        self.plan.load_full()
    }
}

/// One accepted connection.
pub(crate) struct ConnectionContext {
    /// Whose it is.
    pub(crate) pod: Rc<PodContext>,
    /// Which side of the pod it is on.
    pub(crate) direction: Direction,
    /// The client.
    pub(crate) peer: SocketAddr,
    /// The original destination: what the client dialled.
    pub(crate) local: SocketAddr,
    /// What the listener filters found, once they have.
    pub(crate) inspected: OnceCell<Inspected>,
    /// Set by the handshake; none is plaintext.
    pub(crate) tls: OnceCell<Box<TlsInfo>>,
}

/// What listener filters find out about a connection, beside its addresses.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// `RawBuffer` where no `ClientHello` was found.
    pub(crate) transport: TransportProtocol,
    /// SNI, lower-case.
    pub(crate) server_name: Option<String>,
    /// ALPN, or what the HTTP inspector found.
    pub(crate) application_protocols: Vec<String>,
}

/// What a handshake has shown.
pub(crate) struct TlsInfo {
    /// Who the client is; `None` where nobody has verified it.
    pub(crate) peer: Option<Certificate>,
    /// What the client was shown.
    pub(crate) own: Rc<Certificate>,
}

impl ConnectionContext {
    /// For what the pod itself asks, also where it is about a connection between these.
    pub(crate) fn of_the_pod(pod: Rc<PodContext>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            pod,
            direction: Direction::Outbound,
            peer,
            local,
            inspected: OnceCell::new(),
            tls: OnceCell::new(),
        }
    }

    /// As policies see it.
    pub(crate) fn facts(&self) -> rbac::Connection<'_> {
        let peer = self.tls.get().and_then(|tls| tls.peer.as_ref()).map(Certificate::names);
        let server_name = self.inspected.get().and_then(|inspected| inspected.server_name.as_deref());
        rbac::Connection {
            source: self.peer,
            destination: self.local,
            peer,
            server_name: server_name.unwrap_or_default(),
        }
    }

    /// The chain of a listener that takes it, once it was inspected.
    pub(crate) fn select_chain<'l>(&self, listener: &'l Listener) -> Option<&'l Arc<FilterChain>> {
        let Inspected { transport, server_name, application_protocols } = self.inspected.get()?;
        let protocols: Vec<&str> = application_protocols.iter().map(String::as_str).collect();
        let facts = ConnectionFacts {
            destination: self.local,
            source: self.peer,
            transport: *transport,
            application_protocols: &protocols,
            server_name: server_name.as_deref(),
        };
        select_chain(listener, &facts)
    }

    /// Returns when the policies of the newest plan would not let this connection of a client to the pod be carried byte for
    /// byte any more.
    pub(crate) async fn denied(&self) {
        loop {
            // Before the look: what changes meanwhile is not missed.
            let changed = self.pod.inbound_changed.notified();
            let plan = self.pod.plan();
            let chain = plan.inbound.as_ref().and_then(|listener| self.select_chain(listener));
            let is_let_in = chain.is_some_and(|chain| {
                matches!(chain.terminal, TerminalFilter::TcpProxy(_))
                    && rbac::decide(chain.network_rbac(), &self.facts()).allowed == rbac::Answer::Yes
            });
            drop(plan);
            if !is_let_in {
                return;
            }
            changed.await;
        }
    }

    /// Who the client has shown itself to be, and whether it was shown the workload's certificate.
    pub(crate) fn principals(&self) -> (Option<Arc<str>>, bool) {
        let Some(tls) = self.tls.get() else { return (None, false) };
        (tls.peer.as_ref().and_then(|peer| peer.principal.clone()), tls.own.principal.is_some())
    }

    /// The address that upstream connections of this connection come from: `None` is the pod's own; inbound it is the
    /// client's, so that the application sees who calls. Connections may only be pooled by this.
    pub(crate) fn upstream_source(&self) -> Option<IpAddr> {
        match self.direction {
            Direction::Outbound => None,
            Direction::Inbound => Some(self.peer.ip()),
        }
    }
}

/// How far a pod is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not at all.
    Serving,
    /// Another process accepts in this one's place: what comes on open connections is answered, and their clients are told
    /// to go on with a new one (`Connection: close`, GOAWAY).
    Parting,
    /// What was asked is answered, nothing new is taken.
    Leaving,
}

/// Tells the connections of a pod to finish. Cloned into each of them.
#[derive(Debug, Clone)]
pub(crate) struct Drain(watch::Receiver<Phase>);

impl Drain {
    /// A drain that has not started, and what starts it.
    pub(crate) fn new() -> (watch::Sender<Phase>, Self) {
        let (start, drain) = watch::channel(Phase::Serving);
        (start, Self(drain))
    }

    /// Whether clients are to be told to go elsewhere.
    pub(crate) fn is_draining(&self) -> bool {
        *self.0.borrow() > Phase::Serving
    }

    /// Returns once clients are to be told to go elsewhere.
    pub(crate) async fn started(&self) {
        self.reached(Phase::Parting).await;
    }

    /// Returns once connections that idle are to be closed.
    pub(crate) async fn leaving(&self) {
        self.reached(Phase::Leaving).await;
    }

    async fn reached(&self, phase: Phase) {
        // An error says that the owner is gone, which ends everything as well.
        let mut drain = self.0.clone();
        let _ended = drain.wait_for(|now| *now >= phase).await;
    }
}
