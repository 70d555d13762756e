//! One workload: from node.yaml's entry to a pod that is carried, and back.
//!
//! Waiting (its namespace or cgroup is not there, or something refused) and enrolled are the two states. A workload that
//! waits is tried again every second; an enrolled one whose namespace or cgroup vanishes is released and waits.

use std::sync::Arc;
use std::time::SystemTime;

use orlop_datapath::{Applied, Datapath, ListenerRole, WayTraffic, WorkloadSpec};
use orlop_dns::DnsCounters;
use orlop_l7_proxy::stats::PodStats;
use orlop_l7_proxy::telemetry::PeerMetadata;
use orlop_l7_proxy::{PodFacts, PodListeners};
use orlop_plan::compile::Plans;
use orlop_plan::proxy::ProxyPlan;
use orlop_plan::snapshot::{Changes, Outcome, Snapshot};
use orlop_podnet::NetNs;
use orlop_xds_client::{
    Credentials, Delivery, Node, ResourceType, Restored, StreamStatus, Subscriptions, WorkloadNode,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::accepted::Accepted;
use super::dns::WorkloadDns;
use super::identity::{Renewed, WorkloadIdentity};
use super::istio_labels::description;
use super::not_carried::NotCarried;
use super::proxy_metrics::{self, Metrics};
use super::tcp_metrics::{TcpMetrics, labels};
use super::work::{Work, WorkDone};
use super::{CLUSTER_DOMAIN, DRAIN, Parts, cgroup_exists};
use crate::config::{self, WorkloadId};
use crate::pod_admin::PodAdmin;

/// A delivery on its way to the node task.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) workload: WorkloadId,
    /// Which enrolment of that name it is for.
    enrolment: u64,
    delivery: Delivery,
}

/// One entry of node.yaml and what became of it.
pub(crate) struct Workload {
    pub(crate) spec: config::Workload,
    pub(crate) stage: Stage,
}

pub(crate) enum Stage {
    /// Not carried, and why.
    Waiting(String),
    /// Carried.
    Enrolled(Box<Enrolled>),
}

pub(crate) struct Enrolled {
    netns: Arc<NetNs>,
    /// By which the control plane knows it.
    node_id: String,
    enrolment: u64,
    status: watch::Receiver<StreamStatus>,
    forward: AbortHandle,
    admin: PodAdmin,
    dns: WorkloadDns,
    /// `None` where the node keeps no certificates.
    identity: Option<WorkloadIdentity>,
    snapshot: Snapshot,
    pub(crate) plans: Plans,
    tcp_metrics: TcpMetrics,
    /// What it is in Istio's metrics.
    description: PeerMetadata,
    /// The newest plans are in force.
    in_force: bool,
    pub(crate) work: WorkDone,
    /// Why the newest plans are not in force in the kernel.
    pub(crate) apply_error: Option<String>,
}

impl Enrolled {
    pub(crate) fn xds(&self) -> StreamStatus {
        self.status.borrow().clone()
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Whether the kernel does what the newest plans say.
    pub(super) fn is_in_force(&self) -> bool {
        self.in_force
    }

    pub(crate) fn enrolment(&self) -> u64 {
        self.enrolment
    }

    /// Why there is no admin interface inside the pod.
    pub(crate) fn admin_problem(&self) -> Option<String> {
        self.admin.problem()
    }

    /// Why its DNS is not answered though it is asked for.
    pub(crate) fn dns_problem(&self) -> Option<String> {
        self.dns.problem()
    }

    /// What became of its questions.
    pub(crate) fn dns_counters(&self) -> Option<DnsCounters> {
        self.dns.counters()
    }

    /// The certificate that it is to have, where the node keeps certificates.
    pub(crate) fn identity(&self) -> Option<&WorkloadIdentity> {
        self.identity.as_ref()
    }

    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Workload {
    pub(crate) async fn new(spec: config::Workload, parts: &mut Parts) -> Self {
        let mut this = Self { spec, stage: Stage::Waiting(String::new()) };
        this.try_enrol(parts).await;
        this
    }

    /// The name that proxy and datapath know it by. An underscore is in no Kubernetes name, so this is unique.
    pub(crate) fn key(&self) -> String {
        format!("{}_{}", self.spec.namespace, self.spec.name)
    }

    /// Istio's metrics by now: of what the kernel has counted, and of what the proxy has.
    pub(crate) fn metrics(&mut self, ways: &[WayTraffic], proxy: &PodStats) -> Metrics {
        self.follow(ways);
        let mut metrics = Metrics::default();
        if let Stage::Enrolled(enrolled) = &self.stage {
            enrolled.tcp_metrics.add_to(&mut metrics);
            let principal = enrolled.identity.as_ref().map(WorkloadIdentity::principal);
            proxy_metrics::add(&mut metrics, proxy, &enrolled.description, principal.as_deref());
        }
        metrics
    }

    fn follow(&mut self, ways: &[WayTraffic]) {
        let Stage::Enrolled(enrolled) = &mut self.stage else { return };
        let Enrolled { tcp_metrics, plans, description, .. } = &mut **enrolled;
        tcp_metrics.follow(ways, |to, endpoint| labels(description, plans, to, endpoint));
    }

    /// The kernel has forgotten a way.
    pub(crate) fn forget_way(&mut self, way: &WayTraffic) {
        self.follow(&[*way]);
        if let Stage::Enrolled(enrolled) = &mut self.stage {
            enrolled.tcp_metrics.forget(way);
        }
    }

    /// What it would come up with after a restart; `None` while nothing complete has come.
    pub(crate) fn accepted(&self) -> Option<Accepted> {
        match &self.stage {
            Stage::Enrolled(e) if e.plans.ready() => Some(Accepted::of(&e.node_id, &e.snapshot)),
            _ => None,
        }
    }

    /// Whether all of its connections go as its configuration says.
    pub(crate) fn is_ready(&self) -> bool {
        self.not_carried().is_none()
    }

    /// Why they do not; `None` when they do.
    pub(crate) fn not_carried(&self) -> Option<NotCarried<'_>> {
        match &self.stage {
            Stage::Waiting(reason) => Some(NotCarried::Because(reason)),
            Stage::Enrolled(e) if e.plans.ready() => {
                let refused = e.apply_error.as_deref().map(NotCarried::Because);
                let missing = || e.identity.as_ref().filter(|identity| identity.is_missing());
                refused.or_else(|| missing().map(NotCarried::Unidentified))
            }
            Stage::Enrolled(e) => Some(NotCarried::Unconfigured(e)),
        }
    }

    /// Enrols a workload that waits; releases one whose namespace or cgroup has vanished.
    pub(crate) async fn look_after(&mut self, parts: &mut Parts) {
        let key = self.key();
        let vanished = match &mut self.stage {
            Stage::Waiting(_) => return self.try_enrol(parts).await,
            Stage::Enrolled(e) if !e.netns.is_current() => {
                format!("network namespace {} has vanished", self.spec.netns.display())
            }
            Stage::Enrolled(_) if !cgroup_exists(&self.spec.cgroup) => {
                format!("cgroup {} has vanished", self.spec.cgroup.display())
            }
            Stage::Enrolled(e) => {
                e.admin.look_after();
                let Parts { dns, datapath, .. } = parts;
                e.dns.look_after(dns, e.snapshot.name_table(), &key, datapath);
                return;
            }
        };
        self.release(parts, &vanished).await;
    }

    async fn try_enrol(&mut self, parts: &mut Parts) {
        match self.enrol(parts).await {
            Ok(enrolled) => {
                info!(workload = %self.spec.id(), "enrolled");
                self.stage = Stage::Enrolled(Box::new(enrolled));
            }
            Err(error) => {
                let reason = format!("{error:#}");
                // Every second the same is said once.
                if !matches!(&self.stage, Stage::Waiting(before) if *before == reason) {
                    warn!(workload = %self.spec.id(), %reason, "cannot be enrolled; will be tried again");
                }
                self.stage = Stage::Waiting(reason);
            }
        }
    }

    async fn enrol(&self, parts: &mut Parts) -> anyhow::Result<Enrolled> {
        let key = self.key();
        let netns = Arc::new(NetNs::open(&self.spec.netns)?);
        anyhow::ensure!(
            cgroup_exists(&self.spec.cgroup),
            "{} is not a cgroup v2 folder",
            self.spec.cgroup.display()
        );
        let description = description(&parts.config, &self.spec, self.node(parts, None).message());
        let facts = PodFacts {
            netns: Arc::clone(&netns),
            addresses: self.spec.addresses.clone(),
            description: description.clone(),
            resolvers: parts.resolvers.clone(),
        };
        let inherited = parts.inheritance.as_mut().and_then(|from| from.listeners(&key, netns.id()));
        let listeners = match inherited {
            Some(listeners) => {
                parts.proxy.inherit(&key, facts, listeners.clone())?;
                listeners
            }
            None => parts.proxy.enrol(&key, facts, Arc::new(ProxyPlan::default()))?,
        };
        let spec = WorkloadSpec {
            name: key.clone(),
            netns: Arc::clone(&netns),
            cgroup: self.spec.cgroup.clone(),
            addresses: self.spec.addresses.clone(),
            fail_open: self.spec.fail_open.unwrap_or(parts.fail_open),
            exclusions: self.spec.annotations.exclusions.clone(),
            attested: self.is_attested(parts),
        };
        if let Err(error) = attach(spec, &listeners, &mut parts.datapath).await {
            drop(parts.proxy.release(&key, DRAIN)?);
            return Err(error.into());
        }
        parts.enrolments += 1;
        let mut identity = self.subscribe(parts).await;
        let node = self.node(parts, identity.as_ref());
        let node_id = node.id().to_owned();
        let mut snapshot = Snapshot::new();
        let (restored, mut changes) = restore(&mut snapshot, &node_id, parts);
        if let Some(identity) = &mut identity {
            changes.merge(identity.provide(&mut snapshot));
        }
        let mut stream = parts.control.resume(node.clone(), restored);
        let status = stream.watch_status();
        let (workload, enrolment, deliver) = (self.spec.id(), parts.enrolments, parts.deliver.clone());
        let forward = tokio::task::spawn_local(async move {
            while let Some(delivery) = stream.next().await {
                let incoming = Incoming { workload: workload.clone(), enrolment, delivery };
                if deliver.send(incoming).await.is_err() {
                    return;
                }
            }
        })
        .abort_handle();
        let admin =
            PodAdmin::open(&parts.pod_admins, self.spec.id(), parts.enrolments, node, Arc::clone(&netns));
        let network =
            orlop_dns::PodNetwork { netns: Arc::clone(&netns), addresses: self.spec.addresses.clone() };
        let dns = WorkloadDns::open(&parts.dns, self.dns(parts).capture, network, &self.spec.namespace);
        let mut enrolled = Enrolled {
            netns,
            node_id,
            enrolment,
            status,
            forward,
            admin,
            dns,
            identity,
            snapshot,
            plans: Plans::new(self.facts(parts)),
            tcp_metrics: TcpMetrics::default(),
            description: description.metadata,
            in_force: false,
            work: WorkDone::default(),
            apply_error: None,
        };
        if !changes.is_empty() {
            enrolled.put_in_force(&key, &self.spec.id(), &changes, Work::default(), parts);
        }
        Ok(enrolled)
    }

    /// What becomes of its questions to resolvers: as its annotation says, else as the node does.
    fn dns(&self, parts: &Parts) -> config::Dns {
        self.spec.annotations.dns.over(parts.dns_default)
    }

    /// Has its certificate kept from now on.
    async fn subscribe(&self, parts: &mut Parts) -> Option<WorkloadIdentity> {
        let identities = parts.identities.as_mut()?;
        let trust_domain = &parts.config.trust_domain;
        Some(WorkloadIdentity::open(&self.spec, parts.enrolments, trust_domain, identities).await)
    }

    /// Goes on with its certificate and roots as they are now.
    pub(crate) fn renewed(&mut self, renewed: &Renewed, parts: &mut Parts) {
        let (id, key) = (self.spec.id(), self.key());
        let Stage::Enrolled(enrolled) = &mut self.stage else { return };
        if enrolled.enrolment != renewed.enrolment {
            return;
        }
        let Some(identity) = &mut enrolled.identity else { return };
        let changes = identity.provide(&mut enrolled.snapshot);
        if !changes.is_empty() {
            enrolled.put_in_force(&key, &id, &changes, Work::default(), parts);
        }
    }

    /// Goes on with what node.yaml says now of when HTTP goes through the proxy.
    pub(crate) fn l7_changed(&mut self, parts: &mut Parts) {
        let (id, key, facts) = (self.spec.id(), self.key(), self.facts(parts));
        let Stage::Enrolled(enrolled) = &mut self.stage else { return };
        let reclassified = enrolled.plans.set_facts(&mut parts.interner, facts);
        let work = Work { reclassified, ..Work::default() };
        enrolled.put_in_force(&key, &id, &Changes::default(), work, parts);
    }

    fn node(&self, parts: &Parts, identity: Option<&WorkloadIdentity>) -> Node {
        let spec = &self.spec;
        let kept = identity.and_then(WorkloadIdentity::for_control_plane);
        WorkloadNode {
            name: spec.name.clone(),
            namespace: spec.namespace.clone(),
            service_account: spec.service_account.clone(),
            addresses: spec.addresses.clone(),
            labels: spec.labels.clone(),
            workload_name: spec.owner.as_ref().map(|owner| owner.workload_name.clone()).unwrap_or_default(),
            owner: spec.owner.as_ref().map(|owner| owner.reference.clone()).unwrap_or_default(),
            node_name: parts.config.name.as_str().to_owned(),
            cluster_id: parts.config.cluster.clone(),
            network: parts.config.network.clone(),
            trust_domain: parts.config.trust_domain.clone(),
            domain: CLUSTER_DOMAIN.to_owned(),
            locality: None,
            credentials: match &spec.credentials {
                None => kept.map_or(Credentials::None, Credentials::Kept),
                Some(config::Credentials::Token(file)) => Credentials::Token { file: file.clone() },
                Some(config::Credentials::Certificate { certificate, key }) => {
                    Credentials::Certificate { certificate: certificate.clone(), key: key.clone() }
                }
            },
            dns_capture: self.dns(parts).capture,
            dns_auto_allocate: self.dns(parts).auto_allocate,
        }
        .into()
    }

    /// Stores what is valid, answers the control plane, and puts the new plans in force.
    pub(crate) fn delivered(&mut self, incoming: Incoming, parts: &mut Parts) {
        let (id, key) = (self.spec.id(), self.key());
        let Stage::Enrolled(enrolled) = &mut self.stage else { return };
        if enrolled.enrolment != incoming.enrolment {
            return;
        }
        let Delivery { resource_type, upserted, removed, reply } = incoming.delivery;
        let now = SystemTime::now();
        let outcome = enrolled.snapshot.apply(&mut parts.interner, resource_type, &upserted, &removed, now);
        let subscribe = subscriptions(&outcome);
        let Outcome { validated, deduplicated, mut changes, errors, .. } = outcome;
        if errors.is_empty() {
            reply.accept(subscribe);
        } else {
            let detail = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            warn!(workload = %id, %resource_type, %detail, "refused; the last good version stays");
            reply.reject(detail, subscribe);
        }
        if !changes.is_empty() {
            parts.last_good.changed();
        }
        if let (ResourceType::ProxyConfig, Some(identity)) = (resource_type, &mut enrolled.identity) {
            changes.merge(identity.provide(&mut enrolled.snapshot));
        }
        let work = Work { validated, deduplicated, ..Work::default() };
        enrolled.put_in_force(&key, &id, &changes, work, parts);
    }

    /// Leaves it to another agent, with everything that is in the kernel.
    pub(crate) async fn part(self) {
        if let Stage::Enrolled(enrolled) = self.stage {
            enrolled.forward.abort();
            enrolled.admin.close().await;
        }
    }

    /// Takes the workload out of the kernel and the proxy. It is left waiting for `reason`.
    pub(crate) async fn release(&mut self, parts: &mut Parts, reason: &str) {
        if let Stage::Waiting(_) = &self.stage {
            return;
        }
        let Stage::Enrolled(enrolled) = std::mem::replace(&mut self.stage, Stage::Waiting(reason.to_owned()))
        else {
            return;
        };
        enrolled.forward.abort();
        enrolled.admin.close().await;
        let (id, key) = (self.spec.id(), self.key());
        info!(workload = %id, %reason, "released");
        // The kernel first: nothing is steered any more to listeners that close.
        if let Err(error) = parts.datapath.release(&key).await {
            warn!(workload = %id, %error, "the kernel did not give it back cleanly");
        }
        match parts.proxy.release(&key, DRAIN) {
            Ok(drained) => {
                tokio::task::spawn_local(drained);
            }
            Err(error) => warn!(workload = %id, %error, "the proxy did not give it back cleanly"),
        }
    }
}

/// Programs into the cgroup and the namespace, listeners into the kernel's hands.
async fn attach(
    spec: WorkloadSpec,
    listeners: &PodListeners,
    datapath: &mut Datapath,
) -> Result<(), orlop_datapath::Error> {
    let key = spec.name.clone();
    datapath.enrol(spec).await?;
    let given = [
        (ListenerRole::Outbound, Some(&listeners.outbound)),
        (ListenerRole::Inbound, Some(&listeners.inbound)),
        (ListenerRole::Outbound, listeners.outbound_v6.as_ref()),
        (ListenerRole::Inbound, listeners.inbound_v6.as_ref()),
    ]
    .into_iter()
    .filter_map(|(role, listener)| Some((role, listener?)))
    .try_for_each(|(role, listener)| datapath.set_listener(&key, role, listener));
    if given.is_err() {
        datapath.release(&key).await?;
    }
    given
}

/// Gives the snapshot what an earlier agent saved for this workload. Returns what the control plane is to know of it.
fn restore(snapshot: &mut Snapshot, node_id: &str, parts: &mut Parts) -> (Restored, Changes) {
    let (mut restored, mut changes) = (Restored::default(), Changes::default());
    for (kind, mut resources) in parts.last_good.restore(node_id).into_iter().flatten() {
        if resources.is_empty() && !matches!(kind, ResourceType::Cluster | ResourceType::Listener) {
            continue;
        }
        let outcome = snapshot.apply(&mut parts.interner, kind, &resources, &[], SystemTime::now());
        restored.subscribe = subscriptions(&outcome);
        changes.merge(outcome.changes);
        // What this agent does not accept any more, the control plane may send again.
        resources.retain(|resource| snapshot.rejection(kind, &resource.name).is_none());
        restored.resources.push((kind, resources));
    }
    (restored, changes)
}

/// What is to be asked for by name.
fn subscriptions(outcome: &Outcome) -> Subscriptions {
    Subscriptions {
        endpoints: outcome.endpoints_wanted.clone(),
        routes: outcome.routes_wanted.clone(),
        secrets: outcome.secrets_wanted.clone(),
        extensions: outcome.extensions_wanted.clone(),
    }
}

impl Enrolled {
    /// Follows what changed, and tells the proxy and the kernel where they are to do something else.
    pub(super) fn put_in_force(
        &mut self,
        key: &str,
        id: &WorkloadId,
        changes: &Changes,
        mut work: Work,
        parts: &mut Parts,
    ) {
        self.dns.follow(self.snapshot.name_table(), key, &mut parts.datapath);
        let updated = self.plans.update(&mut parts.interner, &self.snapshot, changes);
        work.reclassified = updated.reclassified;
        if self.plans.ready() {
            // The proxy first: whatever the kernel steers to it from now on, it knows.
            let told = if updated.proxy || !self.in_force {
                work.clusters = updated.clusters.len();
                let plan = Arc::new(self.plans.proxy().clone());
                parts.proxy.update(key, plan, &updated.clusters.into())
            } else {
                Ok(())
            };
            let applied = told
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(parts.datapath.apply(key, self.plans.kernel())?));
            self.in_force = applied.is_ok();
            match applied {
                Ok(Applied { inserted, updated, removed, without_room: _ }) => {
                    work.kernel_entries = inserted + updated + removed;
                    self.apply_error = None;
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    warn!(workload = %id, %reason, "the plan is not in force; the last one stays");
                    self.apply_error = Some(reason);
                }
            }
        }
        self.work.push(work);
    }
}
