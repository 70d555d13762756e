//! What goes to collectors: spans, and lines of access logs that a service takes.
//!
//! Each worker and pod has a queue to each collector, and a task of the pod that empties it, one batch after the other: by the
//! pod's own cluster, in what it speaks. Whoever queues never waits; what finds no room, and what no collector takes, is counted.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use orlop_plan::resource::collector::Collector;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http::{Message, send_message};
use crate::pod::{ConnectionContext, PodContext};
use crate::stats::{Counter, PodCounters};

/// How long a pod that is released waits for what is queued.
const LAST_BATCHES: Duration = Duration::from_secs(1);

/// Who reports: the workload, as the control plane knows it.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    /// Its node id.
    pub(crate) node_id: Arc<str>,
    /// The cluster that its node is of, in the words of the control plane: the service.
    pub(crate) service: Arc<str>,
    /// Its address.
    pub(crate) address: Option<IpAddr>,
}

/// A configuration by which something is collected. Equal ones share a queue.
pub(crate) trait Collected: PartialEq + std::fmt::Debug + 'static {
    /// What is collected.
    type Item: 'static;

    /// Where it goes.
    fn collector(&self) -> &Collector;
    /// How much of a batch it is.
    fn size(item: &Self::Item) -> usize;
    /// How much is sent at once, without waiting for more.
    fn enough(&self) -> usize;
    /// How much may wait.
    fn most(&self) -> usize;
    /// How long anything waits for more.
    fn interval(&self) -> Duration;
    /// The message that tells of them.
    fn message(&self, reporter: &Reporter, batch: Vec<Self::Item>) -> Message<'_>;
    /// What counts those that were taken, and those that were lost.
    fn counters(counters: &PodCounters) -> [&Counter; 2];
}

/// A pod's queues of one kind on one worker.
pub(crate) struct Exporters<C: Collected> {
    reporter: Reporter,
    counters: Arc<PodCounters>,
    known: RefCell<Vec<Rc<Exporter<C>>>>,
    tasks: RefCell<JoinSet<()>>,
    /// Where these are in the pod.
    of: fn(&PodContext) -> &Self,
}

/// The queue to one collector.
#[derive(Debug)]
pub(crate) struct Exporter<C: Collected> {
    config: Arc<C>,
    reporter: Reporter,
    counters: Arc<PodCounters>,
    waiting: RefCell<Vec<C::Item>>,
    size: Cell<usize>,
    /// There is enough to be sent.
    full: Notify,
}

impl<C: Collected> Exporters<C> {
    /// For a workload that reports as such.
    pub(crate) fn new(reporter: Reporter, counters: Arc<PodCounters>, of: fn(&PodContext) -> &Self) -> Self {
        Self { reporter, counters, known: RefCell::default(), tasks: RefCell::default(), of }
    }

    /// The queue by this configuration, however many listeners have it. It ends by itself when nobody has used it for a while.
    pub(crate) fn by(&self, config: &Arc<C>, pod: &Rc<PodContext>) -> Rc<Exporter<C>> {
        let mut known = self.known.borrow_mut();
        let is_same =
            |exporter: &&Rc<Exporter<C>>| Arc::ptr_eq(&exporter.config, config) || exporter.config == *config;
        if let Some(exporter) = known.iter().find(is_same) {
            return Rc::clone(exporter);
        }
        let exporter = Rc::new(Exporter {
            config: Arc::clone(config),
            reporter: self.reporter.clone(),
            counters: Arc::clone(&self.counters),
            waiting: RefCell::default(),
            size: Cell::default(),
            full: Notify::new(),
        });
        known.push(Rc::clone(&exporter));
        let mut tasks = self.tasks.borrow_mut();
        while let Some(ended) = tasks.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                self.counters.panics.inc();
            }
        }
        // The pod ends its tasks, and is not kept by them.
        tasks.spawn_local(Rc::clone(&exporter).run(Rc::downgrade(pod), self.of));
        exporter
    }

    fn forget(&self, exporter: &Rc<Exporter<C>>) {
        self.known.borrow_mut().retain(|known| !Rc::ptr_eq(known, exporter));
    }

    /// Sends what waits, for a moment at most, and ends.
    pub(crate) async fn finish(&self, pod: &Rc<PodContext>) {
        let exporters = self.known.take();
        let rest = async {
            for exporter in &exporters {
                while exporter.flush(pod).await {}
            }
        };
        let _in_time = timeout(LAST_BATCHES, rest).await;
        let mut tasks = self.tasks.take();
        tasks.shutdown().await;
        let left: usize = exporters.iter().map(|exporter| exporter.waiting.borrow().len()).sum();
        let [_, lost] = C::counters(&self.counters);
        lost.add(left as u64);
    }
}

impl<C: Collected> Exporter<C> {
    /// Who reports.
    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Puts one behind the others.
    pub(crate) fn queue(&self, item: C::Item) {
        let size = self.size.get() + C::size(&item);
        if size > self.config.most() {
            let [_, lost] = C::counters(&self.counters);
            return lost.inc();
        }
        self.size.set(size);
        self.waiting.borrow_mut().push(item);
        if size >= self.config.enough() {
            self.full.notify_one();
        }
    }

    /// One batch after the other: what comes meanwhile is the next one.
    async fn run(self: Rc<Self>, pod: Weak<PodContext>, of: fn(&PodContext) -> &Exporters<C>) {
        loop {
            let _enough = timeout(self.config.interval(), self.full.notified()).await;
            let Some(pod) = pod.upgrade() else { return };
            // This task, and the list.
            let is_idle = !self.flush(&pod).await && Rc::strong_count(&self) <= 2;
            if is_idle {
                return of(&pod).forget(&self);
            }
        }
    }

    /// Sends what waits; false where nothing did.
    async fn flush(&self, pod: &Rc<PodContext>) -> bool {
        let batch = self.waiting.take();
        self.size.set(0);
        if batch.is_empty() {
            return false;
        }
        let [sent, lost] = C::counters(&self.counters);
        let batch_lost = Lost { count: batch.len() as u64, lost };
        // It is of no connection in particular.
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let connection = ConnectionContext::of_the_pod(Rc::clone(pod), nowhere, nowhere);
        let message = self.config.message(&self.reporter, batch);
        match send_message(&connection, message).await {
            Ok(()) => sent.add(batch_lost.not_at_all()),
            Err(error) => {
                let cluster = &self.config.collector().cluster;
                tracing::debug!(pod = %pod.name, %cluster, %error, "what was collected is lost");
            }
        }
        true
    }
}

/// A batch under way, which counts as lost when it is dropped: also by the end of the task that sends it.
struct Lost<'a> {
    count: u64,
    lost: &'a Counter,
}

impl Lost<'_> {
    /// It is not; how much it is.
    fn not_at_all(mut self) -> u64 {
        std::mem::take(&mut self.count)
    }
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        self.lost.add(self.count);
    }
}
