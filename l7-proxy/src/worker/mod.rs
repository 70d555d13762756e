//! The traffic workers: threads that carry connections, apart from the agent's own runtime.
//!
//! Each pod is present on every worker as a task with a mailbox (see [`pod_task`]). One of the workers accepts for the pod
//! and gives each connection to the worker with the fewest; nobody else is woken for it. With one worker a connection
//! never leaves the thread.

mod pod_task;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use orlop_plan::proxy::ProxyPlan;
use orlop_podnet::{HomeNs, NetNs};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::access_log::PodLog;
use crate::collect::Reporter;
use crate::http::Buckets;
use crate::listener::accept_now;
use crate::names::Names;
use crate::proxy::{PodFacts, PodListeners, ProxyConfig, ProxyError};
use crate::stats::{DnsStats, OutlierStats, PodCounters, PodStats};
use crate::tcp::BufferPool;
use crate::telemetry::Told;
use crate::upstream::SharedClusters;

use self::pod_task::{Farewell, Mail, PodTask};

/// The traffic threads. Dropping them ends the threads, and whatever connections they still have.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<Worker>,
    mark: u32,
    /// Open connections of each worker, for choosing the next one's.
    loads: Arc<[AtomicUsize]>,
}

/// One traffic thread.
#[derive(Debug)]
struct Worker {
    /// `None` once it is told to end.
    enrolments: Option<mpsc::UnboundedSender<Enrolment>>,
    thread: Option<JoinHandle<()>>,
}

/// A pod that a worker is to carry from now on.
#[derive(Debug)]
struct Enrolment {
    pod: Arc<PodShared>,
    worker: usize,
    /// Listeners to accept from, on the pod's accepting worker.
    listeners: Option<PodListeners>,
    mail: mpsc::UnboundedReceiver<Mail>,
}

/// What the control side and all workers share of a pod.
#[derive(Debug)]
struct PodShared {
    name: Arc<str>,
    netns: Arc<NetNs>,
    mark: u32,
    plan: Arc<ArcSwap<ProxyPlan>>,
    /// By worker.
    mailboxes: Vec<mpsc::UnboundedSender<Mail>>,
    /// By worker.
    counters: Vec<Arc<PodCounters>>,
    /// By worker: it has had a connection of the pod, and may have clusters. Most pods have none, and then a new plan
    /// wakes nobody.
    in_use: Vec<AtomicBool>,
    clusters: SharedClusters,
    limits: Buckets,
    /// Of all workers, not of this pod alone.
    loads: Arc<[AtomicUsize]>,
    /// What the pod says of itself to its peers.
    own: Told,
    /// What it names itself in traces.
    reporter: Reporter,
    log: PodLog,
}

/// An enrolled pod in the hands of the control side.
#[derive(Debug)]
pub(crate) struct PodHandle {
    pod: Arc<PodShared>,
    listeners: PodListeners,
    /// The worker that accepts.
    acceptor: usize,
    /// It does.
    accepting: bool,
}

impl Workers {
    /// Starts `config.workers` threads.
    pub(crate) fn start(config: ProxyConfig) -> Result<Self, ProxyError> {
        let threads = (0..config.workers)
            .map(|worker| Worker::start(worker).map_err(|source| ProxyError::Worker { worker, source }))
            .collect::<Result<Vec<_>, _>>()?;
        let loads = threads.iter().map(|_| AtomicUsize::new(0)).collect();
        Ok(Self { threads, mark: config.mark, loads })
    }

    /// Makes every worker carry the pod; the one at `acceptor` (modulo their number) accepts, at once or with the first
    /// [`PodHandle::update`].
    pub(crate) fn enrol(
        &self,
        name: &str,
        PodFacts { netns, addresses, resolvers, description }: PodFacts,
        plan: Arc<ProxyPlan>,
        (listeners, acceptor, accepting): (PodListeners, usize, bool),
        log: PodLog,
    ) -> PodHandle {
        let acceptor = acceptor.checked_rem(self.threads.len()).unwrap_or_default();
        let (mailboxes, mails): (Vec<_>, Vec<_>) =
            self.threads.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let pod = Arc::new(PodShared {
            name: name.into(),
            log,
            own: Told::new(&description.node_id, &description.metadata),
            reporter: Reporter {
                node_id: description.node_id.into(),
                service: description.node_cluster.into(),
                address: addresses.first().copied(),
            },
            netns: Arc::clone(&netns),
            mark: self.mark,
            plan: Arc::new(ArcSwap::new(plan)),
            mailboxes,
            counters: self.threads.iter().map(|_| Arc::default()).collect(),
            in_use: self.threads.iter().map(|_| AtomicBool::new(false)).collect(),
            clusters: SharedClusters {
                detectors: Arc::default(),
                names: Names::new(netns, resolvers).into(),
            },
            limits: Buckets::default(),
            loads: Arc::clone(&self.loads),
        });
        for (worker, (thread, mail)) in self.threads.iter().zip(mails).enumerate() {
            let listeners = (accepting && worker == acceptor).then(|| listeners.clone());
            thread.enrol(Enrolment { pod: Arc::clone(&pod), worker, listeners, mail });
        }
        PodHandle { pod, listeners, acceptor, accepting }
    }
}

impl Worker {
    /// Returns when the thread is ready, so that what it lacks is the caller's to see.
    fn start(worker: usize) -> io::Result<Self> {
        let (enrolments, inbox) = mpsc::unbounded_channel();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(format!("orlop-proxy-{worker}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (runtime, home) = match runtime.and_then(|runtime| Ok((runtime, HomeNs::of_this_thread()?))) {
                Ok(made) => made,
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(())).is_err() {
                return;
            }
            let carry = || LocalSet::new().block_on(&runtime, carry_pods(home, inbox));
            if catch_unwind(AssertUnwindSafe(carry)).is_err() {
                // Tasks cannot bring a worker down, so this is a broken runtime. Its listeners would go on taking
                // connections that nobody serves; ending the process makes them fail fast and gets it restarted.
                tracing::error!(worker, "traffic worker is lost, ending the process");
                std::process::abort();
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { enrolments: Some(enrolments), thread: Some(thread) })
    }

    fn enrol(&self, enrolment: Enrolment) {
        if let Some(enrolments) = &self.enrolments {
            // Fails only when the thread is gone, and then the process is going too.
            let _sent = enrolments.send(enrolment);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.enrolments = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// What a worker has once, for all of its pods.
struct Own {
    home: Rc<HomeNs>,
    buffers: Rc<BufferPool>,
}

/// A worker's life: carries each pod that it is given, until the proxy goes.
async fn carry_pods(home: HomeNs, mut inbox: mpsc::UnboundedReceiver<Enrolment>) {
    let own = Own { home: Rc::new(home), buffers: Rc::default() };
    while let Some(enrolment) = inbox.recv().await {
        // Ends by itself when the pod is released and drained.
        tokio::task::spawn_local(PodTask::new(enrolment, &own).run());
    }
}

impl PodShared {
    /// The worker with the fewest connections, `own` where it is one of them.
    fn least_loaded(&self, own: usize) -> usize {
        let load = |worker: usize| self.loads.get(worker).map_or(usize::MAX, |load| load.load(Relaxed));
        (0..self.loads.len()).fold(own, |best, worker| if load(worker) < load(best) { worker } else { best })
    }

    /// Before a worker looks at the plan for a connection.
    fn start_using(&self, worker: usize) {
        if let Some(in_use) = self.in_use.get(worker)
            && !in_use.load(Relaxed)
        {
            in_use.store(true, Relaxed);
            fence(SeqCst);
        }
    }

    fn is_in_use(&self, worker: usize) -> bool {
        self.in_use.get(worker).is_some_and(|in_use| in_use.load(Relaxed))
    }
}

impl PodHandle {
    /// Replaces the plan, and lets the workers bring up to date what they have of the `changed` clusters.
    pub(crate) fn update(&mut self, plan: Arc<ProxyPlan>, changed: &Arc<[Arc<str>]>) {
        let inbound = plan.inbound.as_ref().map(Arc::as_ptr);
        let before = self.pod.plan.swap(plan);
        let inbound_changed = before.inbound.as_ref().map(Arc::as_ptr) != inbound;
        if !std::mem::replace(&mut self.accepting, true)
            && let Some(mailbox) = self.pod.mailboxes.get(self.acceptor)
        {
            // A closed mailbox is of a task that has finished.
            let _sent = mailbox.send(Mail::Accept(self.listeners.clone()));
        }
        if changed.is_empty() && !inbound_changed {
            return;
        }
        // A worker that is not seen in use takes the plan up later, and so takes this one up. Pairs with `start_using`.
        fence(SeqCst);
        for (mailbox, in_use) in self.pod.mailboxes.iter().zip(&self.pod.in_use) {
            if in_use.load(Relaxed) {
                // A closed mailbox is of a task that has finished.
                let _sent =
                    mailbox.send(Mail::PlanChanged { clusters: Arc::clone(changed), inbound_changed });
            }
        }
    }

    /// What it listens on.
    pub(crate) fn listeners(&self) -> &PodListeners {
        &self.listeners
    }

    /// Adds what all workers counted.
    pub(crate) fn merge_into(&self, stats: &mut PodStats) {
        for counters in &self.pod.counters {
            stats.merge(counters);
        }
        stats.access_log_lines_lost += self.pod.log.failed();
    }

    /// What outlier detection has found for the pod.
    pub(crate) fn outliers(&self) -> BTreeMap<String, OutlierStats> {
        self.pod.clusters.detectors.stats()
    }

    /// What became of the names of the pod's clusters.
    pub(crate) fn names(&self) -> BTreeMap<String, DnsStats> {
        self.pod.clusters.names.stats()
    }

    /// Closes the listeners and starts the drain. The future ends when every worker has finished.
    pub(crate) fn release(self, deadline: Duration) -> impl Future<Output = ()> + use<> {
        self.close_listeners();
        self.see_off(Duration::ZERO, deadline)
    }

    /// Leaves the listeners to whoever has them too, and sees the connections off.
    pub(crate) fn hand_over(self, parting: Duration, deadline: Duration) -> impl Future<Output = ()> + use<> {
        self.see_off(parting, deadline)
    }

    fn see_off(self, parting: Duration, deadline: Duration) -> impl Future<Output = ()> + use<> {
        let mut finished = Vec::new();
        self.tell(|| {
            let (done, drained) = oneshot::channel();
            finished.push(drained);
            Mail::Drain(Farewell { parting, deadline, done })
        });
        async move {
            for drained in finished {
                // An error says that the task is gone, and with it its connections.
                let _drained = drained.await;
            }
        }
    }

    /// Gives what waits in the queues to the accepting worker, then ends the listening itself: the kernel refuses at
    /// once, although the worker still holds the descriptors for a moment.
    fn close_listeners(&self) {
        for (direction, listener) in self.listeners.iter() {
            while let Ok(Some(accepted)) = accept_now(listener, direction) {
                if let Some(mailbox) = self.pod.mailboxes.get(self.acceptor) {
                    let _sent = mailbox.send(Mail::Connection(accepted));
                }
            }
            if let Err(error) = rustix::net::shutdown(listener, rustix::net::Shutdown::Both) {
                tracing::warn!(pod = %self.pod.name, %error, "a listener could not be shut down");
            }
        }
    }

    fn tell(&self, mut mail: impl FnMut() -> Mail) {
        for mailbox in &self.pod.mailboxes {
            // A closed mailbox is of a task that has finished.
            let _sent = mailbox.send(mail());
        }
    }
}
