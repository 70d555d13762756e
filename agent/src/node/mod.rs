//! The node task: the one owner of every workload's state.
//!
//! In: node.yaml as it changes, this node's pods, deliveries from the control plane, certificates, questions from the admin socket and from the pods' admin
//! pages, and a clock that asks whether namespaces and cgroups are still there. Out: what the proxy and the kernel are told. Everything happens in one
//! task, in the order it arrives, so nothing here needs a lock.

mod accepted;
mod dns;
mod explain;
mod flow_line;
mod flows;
mod hand_over;
mod identity;
mod istio_labels;
mod neighbours;
mod not_carried;
mod pod_view;
mod pods;
mod prober;
pub(crate) mod proxy_metrics;
mod report;
mod tcp_metrics;
mod work;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use orlop_datapath::{Datapath, DatapathConfig, Drained, Repair};
use orlop_identity::{AuthorityOptions, Identities};
use orlop_l7_proxy::{Proxy, ProxyConfig};
use orlop_plan::classify::L7Modes;
use orlop_plan::neighbours::Neighbours;
use orlop_plan::snapshot::Interner;
use orlop_xds_client::{Client, ControlPlane, GrpcOptions, Protocol};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::admin::{Answer, Asked, Reply, Request};
use crate::code_pages;
use crate::config::{self, ConfigError, NodeConfig, WorkloadId};
use crate::kubernetes::PodTokens;
use crate::last_good::LastGood;
use crate::lock::NodeLock;
use crate::pod_admin::{self, PodAdmins};
use crate::privilege::{self, Part};
use crate::takeover::{Door, Inheritance};
use crate::watch::ConfigWatch;
use flows::FlowWatchers;
use identity::Renewed;
pub(crate) use pods::NodePods;
use prober::Prober;
use workload::{Incoming, Workload};

/// Deliveries that may wait for the node task; the streams merge what comes meanwhile.
const DELIVERIES: usize = 64;
/// How often namespaces and cgroups are looked at.
const PRESENCE: Duration = Duration::from_secs(1);
/// The domain of the cluster's services.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// How long connections of a released workload may take to end by themselves.
const DRAIN: Duration = Duration::from_secs(5);

/// The node: workloads, and what carries them.
pub struct Node {
    config: NodeConfig,
    /// Why the newest node.yaml is not in force.
    config_error: Option<String>,
    parts: Parts,
    workloads: BTreeMap<WorkloadId, Workload>,
    pods: Option<NodePods>,
    deliveries: mpsc::Receiver<Incoming>,
    certificates: mpsc::Receiver<Renewed>,
    pod_questions: mpsc::Receiver<pod_admin::Asked>,
    /// Workloads whose routing somebody has disturbed.
    disturbed: mpsc::Receiver<String>,
    flow_watchers: FlowWatchers,
    /// Every workload has been carried.
    started: bool,
    prober: Prober,
}

/// What carries the workloads: shared by all of them, apart from their states so that both can be borrowed.
pub(crate) struct Parts {
    pub(crate) config: config::Node,
    pub(crate) datapath: Datapath,
    pub(crate) proxy: Proxy,
    pub(crate) dns: orlop_dns::Server,
    pub(crate) control: Client,
    pub(crate) identities: Option<NodeIdentities>,
    pub(crate) interner: Interner,
    /// Among whom the kernel attests who connects; `None` where they speak TLS all the same.
    pub(crate) neighbours: Option<Arc<Neighbours>>,
    pub(crate) last_good: LastGood,
    /// When HTTP goes through the proxy.
    pub(crate) l7: L7Modes,
    /// Whether connections that need the proxy go directly while it is away, unless a workload says otherwise.
    pub(crate) fail_open: bool,
    /// Whom the proxy asks for names of clusters; whom the node asks where there is none.
    pub(crate) resolvers: Vec<IpAddr>,
    /// What the agent of before has handed over, until it has been told to go.
    pub(crate) inheritance: Option<Inheritance>,
    /// What becomes of questions to resolvers where a workload does not say.
    pub(crate) dns_default: config::Dns,
    pub(crate) deliver: mpsc::Sender<Incoming>,
    pub(crate) pod_admins: PodAdmins,
    /// Tells the deliveries of a workload from those of its predecessor under the same name.
    pub(crate) enrolments: u64,
}

/// Where the workloads' certificates come from.
pub(crate) struct NodeIdentities {
    pub(crate) identities: Identities,
    /// By which all of them are asked for, instead of each workload's own.
    pub(crate) token: Option<PathBuf>,
    /// Where the authority does not take that one: by what the pods' own are asked for.
    pub(crate) pod_tokens: Option<PodTokens>,
    /// The control plane is spoken to in TLS, by certificates where a workload has nothing else to show.
    pub(crate) serve_control_plane: bool,
    pub(crate) renewed: mpsc::Sender<Renewed>,
}

impl Node {
    /// Probes the kernel, starts the proxy, and enrols the workloads of `config`, with what another agent has handed over.
    /// `pods` says from then on which they are.
    pub(crate) async fn start(
        config: NodeConfig,
        pods: Option<NodePods>,
        inheritance: Option<Inheritance>,
    ) -> anyhow::Result<Self> {
        let node = config.node.clone();
        let mut datapath = Datapath::open(DatapathConfig {
            drain_time: Duration::from_secs(node.drain_time_seconds.into()),
            ..DatapathConfig::new(node.name.folder())
        })
        .await?;
        let disturbed = datapath.watch_routing();
        let flow_watchers = FlowWatchers::new(datapath.flows()?);
        let workers = config.proxy.workers.or_else(|| std::thread::available_parallelism().ok());
        let workers = workers.map_or(1, NonZeroUsize::get);
        let proxy = privilege::start(Part::Traffic, || {
            Proxy::start(ProxyConfig { workers, mark: orlop_datapath::MARK })
        })??;
        let dns =
            privilege::start(Part::Dns, orlop_dns::Server::start)?.context("cannot start the DNS thread")?;
        let source = match &config.control_plane {
            config::ControlPlane::Server { address, protocol, root_certificate } => ControlPlane::Grpc {
                root_certificate: root_certificate.clone(),
                address: address.clone(),
                protocol: match protocol {
                    config::Protocol::Delta => Protocol::Delta,
                    config::Protocol::Sotw => Protocol::StateOfTheWorld,
                },
            },
            config::ControlPlane::Directory(path) => ControlPlane::Directory { path: path.clone() },
        };
        let control = Client::new(source, GrpcOptions::default())?;
        let state_dir = node.state_directory.join(node.name.folder());
        let last_good = LastGood::open(&state_dir, &config.control_plane.to_string());
        let (deliver, deliveries) = mpsc::channel(DELIVERIES);
        let (renewed, certificates) = mpsc::channel(DELIVERIES);
        let identities = config
            .identity
            .clone()
            .map(|identity| identities(identity, &config, pods.as_ref(), renewed))
            .transpose()?;
        let same_node = config.identity.as_ref().is_some_and(|i| i.same_node == config::SameNode::Attested);
        let (pod_admins, pod_questions) = PodAdmins::new();
        let parts = Parts {
            config: node,
            datapath,
            proxy,
            dns,
            control,
            identities,
            interner: Interner::new(),
            neighbours: same_node.then(Arc::default),
            last_good,
            l7: config.l7.0.clone(),
            fail_open: config.proxy.fail_open,
            resolvers: config.proxy.resolvers.clone(),
            inheritance,
            dns_default: config.dns,
            deliver,
            pod_admins,
            enrolments: 0,
        };
        let mut this = Self {
            config_error: None,
            parts,
            workloads: BTreeMap::new(),
            pods,
            deliveries,
            certificates,
            pod_questions,
            disturbed,
            flow_watchers,
            started: false,
            prober: Prober::new(config.probes.as_ref(), config.kubernetes.as_ref()),
            config: NodeConfig { workloads: config::Workloads::default(), ..config.clone() },
        };
        // Before the first plan that would refuse a probe.
        this.prober.look_after(&mut this.parts.datapath);
        let ahead = match (&this.parts.inheritance, &mut this.parts.identities) {
            (Some(_), Some(identities)) => identity::ask_ahead(&config, identities).await,
            _ => Vec::new(),
        };
        this.reconcile(config).await;
        drop(ahead);
        let keys: Vec<String> = this.workloads.values().map(Workload::key).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        this.parts.datapath.forget_stale(&keys).await?;
        this.parts.last_good.forget();
        Ok(this)
    }

    /// Serves until cancelled, or until another agent has taken over.
    pub(crate) async fn run(
        &mut self,
        mut watch: ConfigWatch,
        mut questions: mpsc::Receiver<Asked>,
        door: &Door,
        lock: &NodeLock,
    ) {
        let mut presence = tokio::time::interval(PRESENCE);
        loop {
            tokio::select! {
                changed = watch.next() => self.config_changed(changed).await,
                pods = pods::next(self.pods.as_mut()) => self.pods_changed(pods).await,
                Some(incoming) = self.deliveries.recv() => self.delivered(incoming),
                Some(renewed) = self.certificates.recv() => self.renewed(&renewed),
                Some(asked) = questions.recv() => self.answer(asked).await,
                flows = self.flow_watchers.next() => self.tell_of(flows),
                Some(asked) = self.pod_questions.recv() => pod_view::answer(self, asked),
                Some(workload) = self.disturbed.recv() => {
                    log_repairs(self.parts.datapath.repair_routing(&workload).await);
                }
                asked = door.asked() => if self.hand_over(asked, lock).await { return },
                _ = presence.tick() => {
                    self.look_after().await;
                    self.prober.look_after(&mut self.parts.datapath);
                    self.tell_whom_it_carries();
                    self.close_drained();
                    self.forget_gone_watchers();
                    log_repairs(self.parts.datapath.inspect().await);
                    self.finish_takeover();
                    self.save_if_due().await;
                    self.finish_start();
                }
            }
        }
    }

    /// Gives every pod back as it was found and waits for connections that still drain.
    pub async fn stop(mut self) {
        if let Some(pods) = self.pods.take() {
            pods.source.say_farewell(!self.workloads.is_empty()).await;
        }
        for workload in self.workloads.values_mut() {
            workload.release(&mut self.parts, "the agent stops").await;
        }
        self.parts.last_good.finish().await;
        self.parts.proxy.shutdown(DRAIN).await;
        if let Err(error) = self.parts.datapath.shutdown(false).await {
            error!(%error, "the datapath did not close cleanly");
        }
    }

    async fn config_changed(&mut self, changed: Result<NodeConfig, ConfigError>) {
        let changed = changed.map(|config| self.with_pods(config));
        match changed {
            Err(error) => self.refuse_config(error.to_string()),
            Ok(config) if config == self.config => self.config_error = None,
            Ok(config) => match fixed_part_changed(&self.config, &config) {
                Some(field) => {
                    self.refuse_config(format!("{field} cannot change while the agent runs; restart it"));
                }
                None => self.reconcile(config).await,
            },
        }
    }

    fn refuse_config(&mut self, reason: String) {
        warn!(%reason, "node.yaml is not taken; the last good one stays in force");
        self.config_error = Some(reason);
    }

    /// Releases what is gone or changed, enrols what is new or changed, leaves the rest alone.
    async fn reconcile(&mut self, config: NodeConfig) {
        if self.parts.l7 != config.l7.0 {
            self.parts.l7.clone_from(&config.l7.0);
            for workload in self.workloads.values_mut() {
                workload.l7_changed(&mut self.parts);
            }
        }
        let wanted = &config.workloads.0;
        let gone: BTreeSet<WorkloadId> = self
            .workloads
            .iter()
            .filter(|(id, w)| wanted.get(id) != Some(&w.spec))
            .map(|(id, _)| id.clone())
            .collect();
        // Before: they are not to be led to where nobody looks who connects.
        self.introduce_neighbours(&gone);
        for id in gone {
            if let Some(mut workload) = self.workloads.remove(&id) {
                workload.release(&mut self.parts, "it is not to be carried any more, or as another").await;
            }
        }
        for (id, spec) in wanted {
            if !self.workloads.contains_key(id) {
                let workload = Workload::new(spec.clone(), &mut self.parts).await;
                self.workloads.insert(id.clone(), workload);
            }
        }
        self.introduce_neighbours(&BTreeSet::new());
        self.config = config;
        self.config_error = None;
        info!(workloads = self.workloads.len(), "the node is as it is to be");
    }

    /// Looks at the workload now, and says whether it is carried.
    async fn enrolled(&mut self, name: &str) -> Answer {
        let id = match explain::find(self, name) {
            Ok(workload) => workload.spec.id(),
            Err(reason) => return Answer::Refused(reason),
        };
        let Some(workload) = self.workloads.get_mut(&id) else { return Answer::Refused(String::new()) };
        workload.look_after(&mut self.parts).await;
        match workload.not_carried() {
            None => Answer::Done(format!("{id} is carried")),
            Some(reason) => Answer::Refused(reason.to_string()),
        }
    }

    fn delivered(&mut self, incoming: Incoming) {
        let Some(workload) = self.workloads.get_mut(&incoming.workload) else { return };
        let was_ready = workload.is_ready();
        workload.delivered(incoming, &mut self.parts);
        let is_ready = workload.is_ready();
        // Most deliveries change nothing for the others, and looking at all of them costs as much as there are.
        let is_news = workload.is_news_to_neighbours(&self.parts);
        if is_ready != was_ready {
            self.tell_whom_it_carries();
        }
        if is_news {
            self.introduce_neighbours(&BTreeSet::new());
        }
    }

    fn renewed(&mut self, renewed: &Renewed) {
        let Some(workload) = self.workloads.get_mut(&renewed.workload) else { return };
        let was_ready = workload.is_ready();
        workload.renewed(renewed, &mut self.parts);
        if workload.is_ready() != was_ready {
            self.tell_whom_it_carries();
        }
    }

    async fn look_after(&mut self) {
        for workload in self.workloads.values_mut() {
            workload.look_after(&mut self.parts).await;
        }
        self.introduce_neighbours(&BTreeSet::new());
    }

    /// Ends connections to endpoints that are long gone.
    fn close_drained(&mut self) {
        match self.parts.datapath.close_drained() {
            Ok(Drained { closed, forgotten }) => {
                for (name, way) in forgotten {
                    if let Some(workload) =
                        self.workloads.values_mut().find(|workload| workload.key() == name)
                    {
                        workload.forget_way(&way);
                    }
                }
                if closed > 0 {
                    info!(closed, "connections to removed endpoints closed, their drain time is over");
                }
            }
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                warn!(%reason, "connections to removed endpoints stay open");
            }
        }
    }

    async fn save_if_due(&mut self) {
        if self.parts.last_good.is_due().await {
            let accepted: Vec<_> = self.workloads.values().filter_map(Workload::accepted).collect();
            self.parts.last_good.save(move |writer| accepted.iter().for_each(|a| a.write(writer)));
        }
    }

    /// As soon as every workload is carried for the first time: what only the start needed goes.
    fn finish_start(&mut self) {
        if self.started || !self.workloads.values().all(Workload::is_ready) {
            return;
        }
        self.started = true;
        if let Err(error) = code_pages::give_back() {
            warn!(%error, "the code that only the start needed stays in memory");
        }
    }

    async fn answer(&mut self, Asked { request, reply }: Asked) {
        let answer = match request {
            Request::Starting(pod) => return self.starting(pod, reply),
            Request::Flows { workload, json } => self.watch_flows(workload.as_deref(), json),
            Request::Enrolled { workload } => Reply::Once(self.enrolled(&workload).await),
            Request::Status { json } => Reply::Once(report::status(self, json)),
            Request::Explain { workload, destination, json } => {
                Reply::Once(explain::explain(self, &workload, &destination, json))
            }
        };
        // The asker may have gone.
        let _ = reply.send(answer);
    }
}

fn identities(
    identity: config::Identity,
    node: &NodeConfig,
    pods: Option<&NodePods>,
    renewed: mpsc::Sender<Renewed>,
) -> Result<NodeIdentities, orlop_identity::Error> {
    let config::Identity {
        certificate_authority,
        root_certificate,
        token,
        pod_tokens,
        certificate_lifetime,
        same_node: _,
    } = identity;
    let identities = Identities::start(AuthorityOptions {
        address: certificate_authority,
        root_certificate,
        cluster: node.node.cluster.clone(),
        lifetime: certificate_lifetime,
    })?;
    let serve_control_plane =
        matches!(node.control_plane, config::ControlPlane::Server { root_certificate: Some(_), .. });
    let pod_tokens = pods.filter(|_| pod_tokens).map(|pods| pods.source.tokens());
    Ok(NodeIdentities { identities, token, pod_tokens, serve_control_plane, renewed })
}

/// The first part of node.yaml that differs and is read only at start.
fn fixed_part_changed(old: &NodeConfig, new: &NodeConfig) -> Option<&'static str> {
    [
        ("node", old.node != new.node),
        ("controlPlane", old.control_plane != new.control_plane),
        ("identity", old.identity != new.identity),
        ("proxy", old.proxy != new.proxy),
        ("dns", old.dns != new.dns),
        ("probes", old.probes != new.probes),
        ("kubernetes", old.kubernetes != new.kubernetes),
    ]
    .into_iter()
    .find_map(|(field, differs)| differs.then_some(field))
}

/// Says what somebody took away, and whether it is back.
fn log_repairs(repairs: impl IntoIterator<Item = Repair>) {
    for Repair { workload, damage, outcome } in repairs {
        match outcome {
            Ok(()) => warn!(workload, "somebody else had changed {damage} of the pod: put back"),
            Err(error) => {
                let reason = format!("{:#}", anyhow::Error::from(error));
                error!(workload, %reason, "somebody else has changed {damage} of the pod, and it stays so");
            }
        }
    }
}

/// Whether the cgroup v2 folder is there.
pub(crate) fn cgroup_exists(path: &Path) -> bool {
    path.join("cgroup.procs").exists()
}
