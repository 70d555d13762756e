//! One pod on one worker: accepts, spawns connections, and sees them off when the pod is released.
//!
//! Owns every connection task of the pod on this worker, so that none outlives it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout_at};

use crate::collect::Exporters;
use crate::dialer::Dialer;
use crate::http::{Mirrors, WorkerBuckets};
use crate::listener::{Accepted, Acceptor, pause_after, serve};
use crate::pod::{Drain, Phase, PodContext};
use crate::proxy::PodListeners;
use crate::telemetry::{PeerExchange, Series};
use crate::tls::ServerContexts;
use crate::upstream::Upstreams;

use super::{Enrolment, Own, PodShared};

/// How often pooled upstream connections are looked at: those idle for too long or closed by the peer go.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What a pod's task is told.
#[derive(Debug)]
pub(super) enum Mail {
    /// A connection to carry, accepted elsewhere.
    Connection(Accepted<std::net::TcpStream>),
    /// There is a new plan.
    PlanChanged {
        /// What is not what it was.
        clusters: Arc<[Arc<str>]>,
        /// The listener of connections to the pod is another one.
        inbound_changed: bool,
    },
    /// Accept from these.
    Accept(PodListeners),
    /// Finish.
    Drain(Farewell),
}

/// How a pod's connections are seen off.
#[derive(Debug)]
pub(super) struct Farewell {
    /// For so long, clients are told to go on elsewhere, and what they ask meanwhile is answered.
    pub(super) parting: Duration,
    /// After it, open connections have so long to end.
    pub(super) deadline: Duration,
    /// Told when the last connection has ended.
    pub(super) done: oneshot::Sender<()>,
}

/// The state of the task. Survives a panic of one of its steps.
pub(super) struct PodTask {
    shared: Arc<PodShared>,
    worker: usize,
    pod: Rc<PodContext>,
    start_drain: watch::Sender<Phase>,
    acceptors: Vec<Acceptor>,
    mail: mpsc::UnboundedReceiver<Mail>,
    connections: JoinSet<()>,
    sweep: Interval,
}

/// What the task woke up for.
enum Event {
    Accepted(io::Result<Accepted>),
    Mail(Option<Mail>),
    Ended(Result<(), JoinError>),
    Sweep(Instant),
}

impl PodTask {
    /// Called on the worker's own thread.
    pub(super) fn new(enrolment: Enrolment, own: &Own) -> Self {
        let Enrolment { pod: shared, worker, listeners, mail } = enrolment;
        let counters = shared.counters.get(worker).cloned().unwrap_or_default();
        let (start_drain, drain) = Drain::new();
        let acceptors = listeners.iter().flat_map(|listeners| accept_from(&shared.name, listeners)).collect();
        let pod = Rc::new(PodContext {
            name: Arc::clone(&shared.name),
            plan: Arc::clone(&shared.plan),
            dialer: Dialer::new(Arc::clone(&shared.netns), Rc::clone(&own.home), shared.mark),
            upstreams: Upstreams::new(Arc::clone(&counters), shared.clusters.clone()),
            server_contexts: ServerContexts::default(),
            mirrors: Mirrors::default(),
            limits: WorkerBuckets::of(&shared.limits, &counters),
            buffers: Rc::clone(&own.buffers),
            series: Series::new(Arc::clone(&counters.series)),
            log: shared.log.clone(),
            peers: PeerExchange::new(shared.own.clone()),
            spans: Exporters::new(shared.reporter.clone(), Arc::clone(&counters), |pod| &pod.spans),
            counters,
            drain,
            inbound_changed: Notify::new(),
        });
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { shared, worker, pod, start_drain, acceptors, mail, connections: JoinSet::new(), sweep }
    }

    /// Carries the pod until it is released and drained. A panic is counted, said, and survived.
    pub(super) async fn run(mut self) {
        let mut draining: Option<Farewell> = None;
        while draining.is_none() {
            match AssertUnwindSafe(self.step()).catch_unwind().await {
                Ok(release) => draining = release,
                Err(_panic) => self.panicked("the pod's task"),
            }
        }
        let Some(Farewell { parting, deadline, done }) = draining else { return };
        self.drain(parting, deadline).await;
        // Nobody may be waiting any more.
        let _told = done.send(());
    }

    /// Waits for one event and handles it. `Some` is the order to drain.
    async fn step(&mut self) -> Option<Farewell> {
        let event = std::future::poll_fn(|cx| self.poll_event(cx)).await;
        match event {
            Event::Accepted(Ok(accepted)) => self.spread(accepted),
            Event::Accepted(Err(error)) => self.accept_failed(&error).await,
            Event::Ended(ended) => self.ended(&ended),
            Event::Mail(Some(Mail::Connection(accepted))) => self.carry_handed_over(accepted),
            Event::Sweep(now) => {
                self.pod.upstreams.sweep(now.into_std());
                self.pod.server_contexts.sweep();
            }
            Event::Mail(Some(Mail::PlanChanged { clusters, inbound_changed })) => {
                self.pod.upstreams.update(&self.pod.plan(), &clusters);
                if inbound_changed {
                    self.pod.inbound_changed.notify_waiters();
                }
            }
            Event::Mail(Some(Mail::Accept(listeners))) => {
                self.acceptors = accept_from(&self.shared.name, &listeners).collect();
            }
            Event::Mail(Some(Mail::Drain(farewell))) => return Some(farewell),
            // The control side dropped the pod without a word: the proxy is gone.
            Event::Mail(None) => {
                let (parting, deadline) = (Duration::ZERO, Duration::ZERO);
                return Some(Farewell { parting, deadline, done: oneshot::channel().0 });
            }
        }
        None
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(mail) = self.mail.poll_recv(cx) {
            return Poll::Ready(Event::Mail(mail));
        }
        if let Poll::Ready(Some(ended)) = self.connections.poll_join_next(cx) {
            return Poll::Ready(Event::Ended(ended));
        }
        for acceptor in &self.acceptors {
            if let Poll::Ready(accepted) = acceptor.poll_accept(cx) {
                return Poll::Ready(Event::Accepted(accepted));
            }
        }
        // What was never used has nothing to sweep.
        if !self.shared.is_in_use(self.worker) {
            return Poll::Pending;
        }
        self.sweep.poll_tick(cx).map(Event::Sweep)
    }

    /// Gives a new connection to the worker with the fewest.
    fn spread(&mut self, accepted: Accepted) {
        let target = self.shared.least_loaded(self.worker);
        match self.shared.mailboxes.get(target) {
            Some(other) if target != self.worker => match accepted.detach().map(Mail::Connection) {
                // The other worker has drained already: the connection stays here.
                Ok(mail) => {
                    if let Err(mpsc::error::SendError(Mail::Connection(accepted))) = other.send(mail) {
                        self.carry_handed_over(accepted);
                    }
                }
                Err(error) => self.lost(&error),
            },
            _ => self.carry(accepted),
        }
    }

    fn carry_handed_over(&mut self, accepted: Accepted<std::net::TcpStream>) {
        match accepted.attach() {
            Ok(accepted) => self.carry(accepted),
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&self, error: &io::Error) {
        tracing::error!(pod = %self.pod.name, %error, "a connection could not be given to a worker");
    }

    /// Spawns the connection here.
    fn carry(&mut self, accepted: Accepted) {
        self.shared.start_using(self.worker);
        self.pod.counters.accepted(accepted.direction);
        let open = Open::new(&self.pod, &self.shared, self.worker);
        let pod = Rc::clone(&self.pod);
        self.connections.spawn_local(async move {
            let _open = open;
            serve(accepted, pod).await;
        });
    }

    /// Accepting failed for a reason that is not one connection's.
    async fn accept_failed(&mut self, error: &io::Error) {
        match pause_after(error) {
            Some(pause) => {
                tracing::error!(pod = %self.pod.name, %error, "out of resources, accepting pauses");
                sleep(pause).await;
            }
            // Shut down by the control side, which says so in its next message.
            None => self.acceptors.clear(),
        }
    }

    fn ended(&self, ended: &Result<(), JoinError>) {
        if ended.as_ref().is_err_and(JoinError::is_panic) {
            self.panicked("a connection");
        }
    }

    fn panicked(&self, what: &str) {
        self.pod.counters.panics.inc();
        tracing::error!(pod = %self.pod.name, worker = self.worker, "{what} panicked; this is a bug of the proxy");
    }

    /// Lets the connections finish, then cuts the rest.
    async fn drain(mut self, parting: Duration, deadline: Duration) {
        self.acceptors.clear();
        if !parting.is_zero() {
            self.start_drain.send_replace(Phase::Parting);
            self.see_off(Instant::now() + parting).await;
        }
        self.start_drain.send_replace(Phase::Leaving);
        if !self.see_off(Instant::now() + deadline).await {
            tracing::warn!(pod = %self.pod.name, open = self.connections.len(), "drain deadline, connections are cut");
        }
        self.connections.shutdown().await;
        self.pod.mirrors.shutdown().await;
        self.pod.spans.finish(&self.pod).await;
    }

    /// Whether the last connection ended before `deadline`.
    async fn see_off(&mut self, deadline: Instant) -> bool {
        let in_time = timeout_at(deadline, async {
            while !self.connections.is_empty() || !self.mail.is_empty() {
                match std::future::poll_fn(|cx| self.poll_event(cx)).await {
                    Event::Ended(ended) => self.ended(&ended),
                    Event::Mail(Some(Mail::Connection(accepted))) => self.carry_handed_over(accepted),
                    Event::Mail(None) => self.mail.close(),
                    Event::Sweep(now) => self.pod.upstreams.sweep(now.into_std()),
                    Event::Mail(Some(_)) | Event::Accepted(_) => {}
                }
            }
        });
        in_time.await.is_ok()
    }
}

/// Registers the listeners with this worker's runtime.
fn accept_from<'a>(pod: &'a str, listeners: &'a PodListeners) -> impl Iterator<Item = Acceptor> + use<'a> {
    listeners.iter().filter_map(move |(direction, listener)| {
        Acceptor::new(listener, direction)
            .inspect_err(|error| tracing::error!(%pod, ?direction, %error, "cannot accept"))
            .ok()
    })
}

/// Counts an open connection, for the statistics and for spreading, until it is dropped.
struct Open {
    pod: Rc<PodContext>,
    shared: Arc<PodShared>,
    worker: usize,
}

impl Open {
    fn new(pod: &Rc<PodContext>, shared: &Arc<PodShared>, worker: usize) -> Self {
        pod.counters.active.inc();
        if let Some(load) = shared.loads.get(worker) {
            load.fetch_add(1, Relaxed);
        }
        Self { pod: Rc::clone(pod), shared: Arc::clone(shared), worker }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pod.counters.active.dec();
        if let Some(load) = self.shared.loads.get(self.worker) {
            load.fetch_sub(1, Relaxed);
        }
    }
}
