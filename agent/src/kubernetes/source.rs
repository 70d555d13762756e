//! The task that follows the cluster: from what the API server says of pods and namespaces to what the node is to carry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tracing::{info, warn};

use super::events::{Events, Troubles};
use super::held::Held;
use super::labels::{self, Labels};
use super::membership::{Membership, membership};
use super::pod_token::PodTokens;
use super::runtime::{Runtime, Sandbox};
use super::{chaining, pod};
use crate::admin::{Reply, SOCKET, Starting};
use crate::cni::{self, Entry, Installation};
use crate::config::{Cni, Kubernetes, NodeName, Workload, WorkloadId, Workloads};

/// Before a pod whose sandbox was not found is looked at again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a pod that is let go is still carried: until its peers have heard that they are to speak plaintext to it.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the cluster says of this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pods {
    /// To be carried.
    pub(crate) workloads: Workloads,
    /// Those among them that soon are not.
    pub(super) leaving: BTreeSet<WorkloadId>,
    /// Those that somebody wants carried and that cannot be, and why.
    pub(crate) not_carried: BTreeMap<WorkloadId, String>,
    /// What keeps the task from knowing more.
    pub(crate) problems: Vec<String>,
}

/// Whom the node carries, and in which network namespace.
pub(crate) type Carried = BTreeMap<WorkloadId, PathBuf>;

/// The running tasks. They end when this is dropped.
pub(crate) struct PodSource {
    client: Client,
    published: watch::Receiver<Option<Pods>>,
    carried: watch::Sender<Option<Carried>>,
    troubles: watch::Sender<Troubles>,
    held: mpsc::UnboundedSender<Held>,
    /// What keeps the tasks from labelling pods, writing events, installing the plug-in.
    problems: Vec<watch::Receiver<Option<String>>>,
    tasks: Vec<AbortHandle>,
    label: JoinHandle<()>,
    chaining: Option<Chaining>,
}

/// How the plug-in is kept on the node.
#[derive(Debug)]
struct Chaining {
    daemon_set: String,
    installation: Installation,
    task: Option<AbortHandle>,
}

impl PodSource {
    /// Begins to watch, as the service account of the agent's own pod.
    pub(crate) fn start(config: &Kubernetes, node: &NodeName, run_dir: &Path) -> anyhow::Result<Self> {
        let client = Client::try_from(kube::Config::incluster()?)?;
        let runtime = Runtime::new(&config.runtime_socket, &config.cgroups)?;
        let (publish, published) = watch::channel(None);
        let (carried, whom) = watch::channel(Some(Carried::new()));
        let (troubles, what) = watch::channel(Troubles::new());
        let (held, starting) = mpsc::unbounded_channel();
        let (trouble, label_problem) = watch::channel(None);
        let (no_event, event_problem) = watch::channel(None);
        let (pods, pods_writer) = reflector::store();
        let (namespaces, namespaces_writer) = reflector::store();
        let keeper = Labels {
            client: client.clone(),
            pods: pods.clone(),
            published: published.clone(),
            carried: whom.clone(),
            trouble,
        };
        let reporter = Reporter { controller: "orlop".to_owned(), instance: Some(node.as_str().to_owned()) };
        let events = Events {
            recorder: Recorder::new(client.clone(), reporter),
            pods: pods.clone(),
            troubles: what,
            not_held: run_dir.join(cni::NOT_HELD),
            problem: no_event,
        };
        let source = Source {
            runtime,
            pods,
            namespaces,
            known: BTreeMap::new(),
            held: BTreeMap::new(),
            carried: whom,
            problems: BTreeMap::new(),
            publish,
        };
        let of_this_node = watcher::Config::default().fields(&format!("spec.nodeName={}", node.as_str()));
        let pods = watcher(Api::all(client.clone()), of_this_node).default_backoff();
        let namespaces = watcher(Api::all(client.clone()), watcher::Config::default()).default_backoff();
        let pods = reflector::reflector(pods_writer, pods);
        let namespaces = reflector::reflector(namespaces_writer, namespaces);
        let tasks = vec![
            tokio::task::spawn_local(source.run(pods, namespaces, starting)).abort_handle(),
            tokio::task::spawn_local(events.write()).abort_handle(),
        ];
        let label = tokio::task::spawn_local(keeper.keep());
        let chaining = config.cni.clone().map(|cni| Chaining::new(cni, run_dir));
        let problems = vec![label_problem, event_problem];
        Ok(Self { client, published, carried, troubles, held, problems, tasks, label, chaining })
    }

    /// By what pods' own tokens are asked for.
    pub(crate) fn tokens(&self) -> PodTokens {
        PodTokens::new(self.client.clone())
    }

    /// Has pods that start held from now on, where that is asked for: the agent answers.
    pub(crate) fn hold_pods(&mut self) {
        if let Some(Chaining { installation, task, .. }) = &mut self.chaining {
            let (trouble, problem) = watch::channel(None);
            self.problems.push(problem);
            let keep = chaining::keep(installation.clone(), trouble);
            *task = Some(tokio::task::spawn_local(keep).abort_handle());
        }
    }

    /// A pod is held until `reply` has been answered.
    pub(crate) fn starting(&self, pod: Starting, reply: oneshot::Sender<Reply>) {
        // The task lives as long as this.
        let _ = self.held.send(Held::new(pod, reply));
    }

    /// What is published next; at first, when it is complete. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Pods {
        loop {
            if self.published.changed().await.is_err() {
                // The task ends with this handle only.
                std::future::pending::<()>().await;
            }
            if let Some(pods) = self.published.borrow_and_update().clone() {
                return pods;
            }
        }
    }

    /// Says whom the node carries.
    pub(crate) fn carries(&self, carried: Carried, troubles: Troubles) {
        self.carried.send_if_modified(|before| {
            let differs = before.as_ref() != Some(&carried);
            *before = Some(carried);
            differs
        });
        self.troubles.send_replace(troubles);
    }

    /// Takes the plug-in off the node where Orlop leaves the cluster, and the labels off the pods, as far as the API server
    /// lets: the node is about to carry none any more.
    pub(crate) async fn say_farewell(mut self, carries_some: bool) {
        if let Some(Chaining { daemon_set, installation, task }) = self.chaining.take() {
            task.inspect(AbortHandle::abort);
            let end = chaining::end(self.client.clone(), &daemon_set, installation);
            if timeout(FAREWELL, end).await.is_err() {
                warn!(
                    "the API server does not say whether Orlop is to stay on the node: the CNI plug-in does"
                );
            }
        }
        if !carries_some {
            return;
        }
        self.carried.send_replace(None);
        if timeout(FAREWELL, &mut self.label).await.is_err() {
            warn!("the labels are not off all pods: peers will go on to speak mutual TLS to them");
            return;
        }
        // The peers have to hear of it.
        tokio::time::sleep(FAREWELL).await;
    }

    /// What keeps pods from being labelled, told or held.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.iter().filter_map(|problem| problem.borrow().clone()).collect()
    }
}

impl Drop for PodSource {
    fn drop(&mut self) {
        let chaining = self.chaining.take().and_then(|chaining| chaining.task);
        self.tasks.drain(..).chain(chaining).for_each(|task| task.abort());
        self.label.abort();
    }
}

impl Chaining {
    fn new(cni: Cni, run_dir: &Path) -> Self {
        let Cni { conf_directory, bin_directory, when_away, timeout_seconds, exclude_namespaces, daemon_set } =
            cni;
        let entry = Entry { socket: run_dir.join(SOCKET), when_away, timeout_seconds, exclude_namespaces };
        let installation = Installation { chains: conf_directory, programs: bin_directory, entry };
        Self { daemon_set, installation, task: None }
    }
}

pub(super) struct Source {
    pub(super) runtime: Runtime,
    pods: Store<Pod>,
    namespaces: Store<Namespace>,
    /// By uid. A pod is known as it was when it was first carried, as a sidecar keeps the labels that it was started with.
    pub(super) known: BTreeMap<String, Known>,
    /// By uid: those that do not run before they are carried.
    pub(super) held: BTreeMap<String, Held>,
    pub(super) carried: watch::Receiver<Option<Carried>>,
    /// By what they are about.
    problems: BTreeMap<&'static str, String>,
    publish: watch::Sender<Option<Pods>>,
}

pub(super) struct Known {
    pub(super) workload: Workload,
    /// Nobody wants it carried any more, and until when it still is.
    pub(super) leaving: Option<Instant>,
}

type Heard<K> = Option<Result<watcher::Event<K>, watcher::Error>>;

impl Source {
    async fn run(
        mut self,
        pods: impl tokio_stream::Stream<Item = Result<watcher::Event<Pod>, watcher::Error>>,
        namespaces: impl tokio_stream::Stream<Item = Result<watcher::Event<Namespace>, watcher::Error>>,
        mut starting: mpsc::UnboundedReceiver<Held>,
    ) {
        let (mut pods, mut namespaces) = (pin!(pods), pin!(namespaces));
        let mut complete = (false, false);
        let mut again = None;
        loop {
            let look_again = async {
                match again {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = pods.next() => complete.0 |= self.heard("pods", heard),
                heard = namespaces.next() => complete.1 |= self.heard("namespaces", heard),
                Some(held) = starting.recv() => drop(self.held.insert(held.pod.uid.clone(), held)),
                Ok(()) = self.carried.changed(), if !self.held.is_empty() => {}
                () = look_again => {}
            }
            if complete == (true, true) {
                again = self.follow().await;
            }
        }
    }

    /// Keeps what a watch has trouble with, until it has none. Returns whether its list is complete.
    fn heard<K>(&mut self, what: &'static str, heard: Heard<K>) -> bool {
        match heard {
            Some(Err(error)) => {
                let reason = format!("watch of {what}: {:#}", anyhow::Error::from(error));
                if self.problems.get(what) != Some(&reason) {
                    warn!(%reason, "the API server does not say what runs here; what was known stays");
                }
                self.problems.insert(what, reason);
                false
            }
            Some(Ok(event)) => {
                if self.problems.remove(what).is_some() {
                    info!("the watch of {what} goes on");
                }
                matches!(event, watcher::Event::InitDone)
            }
            None => false,
        }
    }

    /// Publishes what is to be carried now. Returns when to look again, where something is not settled.
    async fn follow(&mut self) -> Option<Duration> {
        let present = self.pods.state();
        let mut pods = Pods::default();
        let mut uids = BTreeSet::new();
        let mut wanted = Vec::new();
        let mut addresses = BTreeSet::new();
        for pod in &present {
            let Some(uid) = pod.uid() else { continue };
            let namespace = pod.namespace().unwrap_or_default();
            let namespace = self.namespaces.get(&reflector::ObjectRef::new(&namespace));
            let verdict = membership(pod, namespace.as_ref().map(|namespace| namespace.labels()));
            if verdict == Membership::Ended {
                continue;
            }
            uids.insert(uid.clone());
            self.hold(&uid, pod, &verdict);
            if let Membership::LeftAlone(reason) = &verdict {
                pods.not_carried.insert(pod::id(pod), reason.clone());
            }
            let known = self.known.get_mut(&uid);
            match (verdict == Membership::Member, known) {
                (true, Some(known)) => known.leaving = None,
                (true, None) if !pod::addresses(pod).is_empty() => wanted.push((uid, &**pod)),
                (false, Some(known)) => {
                    // Its peers have nothing to hear where the labels were never there.
                    let farewell = if labels::are_set(pod) { FAREWELL } else { Duration::ZERO };
                    let until = *known.leaving.get_or_insert_with(|| Instant::now() + farewell);
                    if Instant::now() >= until {
                        self.known.remove(&uid);
                    }
                }
                _ => {}
            }
        }
        self.known.retain(|uid, _| uids.contains(uid));
        let all_found = self.find(wanted, &mut pods).await;
        self.let_go(&present);
        for known in self.known.values() {
            let id = known.workload.id();
            if let Some(shared) = known.workload.addresses.iter().find(|address| !addresses.insert(**address))
            {
                let reason = format!("another pod has its address {shared}");
                pods.not_carried.insert(id, reason);
                continue;
            }
            if known.leaving.is_some() {
                pods.leaving.insert(id.clone());
            }
            pods.workloads.0.insert(id, known.workload.clone());
        }
        pods.problems = self.problems.values().cloned().collect();
        let settled = all_found && pods.leaving.is_empty() && self.held.is_empty();
        self.publish.send_if_modified(|before| {
            let differs = before.as_ref() != Some(&pods);
            *before = Some(pods);
            differs
        });
        (!settled).then_some(RETRY)
    }

    /// Asks the runtime where the pods live. Returns whether it is known of all.
    async fn find(&mut self, wanted: Vec<(String, &Pod)>, pods: &mut Pods) -> bool {
        if wanted.is_empty() {
            self.problems.remove("runtime");
            return true;
        }
        let mut all_found = true;
        let sandboxes = match self.runtime.sandboxes().await {
            Ok(sandboxes) => {
                self.problems.remove("runtime");
                sandboxes
            }
            Err(error) => {
                let reason = error.to_string();
                if self.problems.get("runtime") != Some(&reason) {
                    warn!(%reason, "pods cannot be enrolled");
                }
                self.problems.insert("runtime", reason);
                BTreeMap::new()
            }
        };
        for (uid, pod) in wanted {
            let found: Result<Sandbox, String> = match sandboxes.get(&uid) {
                Some(id) => self.runtime.sandbox(id).await.map_err(|error| error.to_string()),
                None => Err("the container runtime has no sandbox for it".to_owned()),
            };
            let found = found.and_then(|sandbox| pod::checked(pod, sandbox));
            match found.and_then(|sandbox| pod::workload(pod, sandbox)) {
                Ok(workload) => {
                    self.known.insert(uid, Known { workload, leaving: None });
                }
                Err(reason) => {
                    all_found = false;
                    pods.not_carried.insert(pod::id(pod), reason);
                }
            }
        }
        all_found
    }
}
