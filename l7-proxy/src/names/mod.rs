//! Clusters whose endpoints have names: asked for from inside the pod's network, and again when the answers are old.
//!
//! A workload's cluster is resolved once for all workers, from its first use until its last user is gone; each worker sees
//! new answers by a `watch`. The last answer stays when no other comes.

mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hickory_resolver::Resolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf::read_system_conf;
use orlop_plan::proxy::ClusterPlan;
use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::dns_discovery::{DnsDiscovery, DnsLookupFamily};
use orlop_plan::resource::endpoint::ClusterLoadAssignment;
use orlop_podnet::NetNs;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use network::PodNetwork;

/// What is waited for a resolver's answer, once; each is asked twice.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that may be kept for no time at all are not asked for again and again.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// The named clusters of one workload, shared by its workers. Locked when a worker first uses a version of a cluster, and when
/// statistics are read.
#[derive(Debug)]
pub(crate) struct Names {
    netns: Arc<NetNs>,
    /// Whom to ask; none is the node's own.
    resolvers: Vec<IpAddr>,
    known: Mutex<Vec<Weak<NamedCluster>>>,
}

/// One version of a named cluster. While it lives, its names are kept up to date.
#[derive(Debug)]
pub(crate) struct NamedCluster {
    cluster: Arc<Cluster>,
    resolved: watch::Receiver<Resolved>,
    counters: Arc<Counters>,
    task: AbortHandle,
}

/// The cluster with its endpoints; `None` before the first answer.
type Resolved = Option<Arc<ClusterPlan>>;

#[derive(Debug, Default)]
struct Counters {
    attempts: AtomicU64,
    failures: AtomicU64,
}

/// What became of a cluster's names, as Envoy counts it.
#[derive(Debug, Default, Clone, Serialize)]
pub struct DnsStats {
    /// Names that were asked for.
    pub update_attempt: u64,
    /// Names that nobody has answered for.
    pub update_failure: u64,
    /// The endpoints that they have now.
    #[serde(skip)]
    pub endpoints: Option<Arc<ClusterLoadAssignment>>,
}

impl Names {
    pub(crate) fn new(netns: Arc<NetNs>, resolvers: Vec<IpAddr>) -> Self {
        Self { netns, resolvers, known: Mutex::default() }
    }

    /// The cluster, which is resolved from now on if it was not already. Called on a worker's thread.
    pub(crate) fn get(&self, cluster: &Arc<Cluster>, discovery: &Arc<DnsDiscovery>) -> Arc<NamedCluster> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alive = all.iter().filter_map(Weak::upgrade);
        if let Some(known) = alive.find(|known| Arc::ptr_eq(&known.cluster, cluster)) {
            return known;
        }
        all.retain(|known| known.strong_count() > 0);
        let (publish, resolved) = watch::channel(None);
        let counters = Arc::<Counters>::default();
        let keeper = Keeper {
            cluster: Arc::clone(cluster),
            discovery: Arc::clone(discovery),
            network: PodNetwork::new(Arc::clone(&self.netns)),
            resolvers: self.resolvers.clone(),
            counters: Arc::clone(&counters),
            publish,
        };
        let task = tokio::spawn(keeper.keep()).abort_handle();
        let named = Arc::new(NamedCluster { cluster: Arc::clone(cluster), resolved, counters, task });
        all.push(Arc::downgrade(&named));
        named
    }

    /// What became of them, by cluster.
    pub(crate) fn stats(&self) -> BTreeMap<String, DnsStats> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = |named: Arc<NamedCluster>| {
            let endpoints = named.resolved.borrow().as_ref().and_then(|plan| plan.load_assignment.clone());
            let stats = DnsStats {
                update_attempt: named.counters.attempts.load(Relaxed),
                update_failure: named.counters.failures.load(Relaxed),
                endpoints,
            };
            (named.cluster.name.to_string(), stats)
        };
        all.iter().filter_map(Weak::upgrade).map(stats).collect()
    }
}

impl NamedCluster {
    /// Sees every change of the cluster's endpoints.
    pub(crate) fn watch(&self) -> watch::Receiver<Resolved> {
        self.resolved.clone()
    }
}

impl Drop for NamedCluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps the names of one cluster up to date.
struct Keeper {
    cluster: Arc<Cluster>,
    discovery: Arc<DnsDiscovery>,
    network: PodNetwork,
    resolvers: Vec<IpAddr>,
    counters: Arc<Counters>,
    publish: watch::Sender<Resolved>,
}

/// What is known of the names.
#[derive(Default)]
struct Answers {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    /// How long the shortest-lived of the last answers is good.
    ttl: Option<Duration>,
    /// Whether one of the names was not answered for.
    failed: bool,
}

impl Keeper {
    async fn keep(self) {
        let mut answers = Answers::default();
        let mut failures = 0;
        while !self.publish.is_closed() {
            self.ask(&mut answers).await;
            self.publish(&answers);
            failures = if answers.failed { failures + 1 } else { 0 };
            let jitter = self.discovery.jitter.mul_f64(fastrand::f64());
            tokio::time::sleep(self.pause(&answers, failures) + jitter).await;
        }
    }

    fn pause(&self, answers: &Answers, failures: u32) -> Duration {
        let DnsDiscovery { refresh_rate, respect_ttl, failure_refresh_rate: (base, most), .. } =
            *self.discovery;
        match failures {
            0 if respect_ttl => answers.ttl.unwrap_or(refresh_rate).max(SHORTEST_TTL),
            0 => refresh_rate,
            failures => base.saturating_mul(1 << (failures - 1).min(16)).min(most),
        }
    }

    /// All names at once. What a name had stays where nobody answers for it.
    async fn ask(&self, answers: &mut Answers) {
        answers.ttl = None;
        answers.failed = false;
        let names: BTreeSet<&String> = self.discovery.names.iter().collect();
        let resolver = self.resolver();
        let asked = names.into_iter().map(async |name| {
            if let Ok(address) = name.parse() {
                return (name, Ok((vec![address], None)));
            }
            self.counters.attempts.fetch_add(1, Relaxed);
            let answer = match &resolver {
                Ok(resolver) => lookup(resolver, name).await,
                Err(error) => Err(error.clone()),
            };
            (name, answer)
        });
        for (name, answer) in join_all(asked).await {
            match answer {
                Ok((addresses, ttl)) => {
                    answers.addresses.insert(name.clone(), addresses);
                    answers.ttl = answers.ttl.into_iter().chain(ttl).min();
                }
                Err(error) => {
                    answers.failed = true;
                    self.counters.failures.fetch_add(1, Relaxed);
                    tracing::warn!(cluster = %self.cluster.name, %name, %error, "is not resolved");
                }
            }
        }
    }

    /// Tells the workers, where anything is new.
    fn publish(&self, answers: &Answers) {
        let endpoints = self.discovery.resolved(&answers.addresses);
        self.publish.send_if_modified(|known| {
            let before = known.as_ref().and_then(|plan| plan.load_assignment.as_ref());
            let changed = before.is_none_or(|before| **before != endpoints);
            if changed {
                let plan = ClusterPlan::new(Arc::clone(&self.cluster), Some(Arc::new(endpoints)));
                *known = Some(Arc::new(plan));
            }
            changed
        });
    }

    /// As `/etc/resolv.conf` says now, unless somebody else was named.
    fn resolver(&self) -> Result<Resolver<PodNetwork>, NetError> {
        let (config, mut options) = if self.resolvers.is_empty() {
            read_system_conf()?
        } else {
            let servers = self.resolvers.iter().copied().map(NameServerConfig::udp_and_tcp).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        };
        options.timeout = TIMEOUT;
        options.attempts = 1;
        // The node's file is not the pod's.
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = match self.discovery.family {
            DnsLookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
            DnsLookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
            DnsLookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
            DnsLookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
            DnsLookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
        };
        Resolver::builder_with_config(config, self.network.clone()).with_options(options).build()
    }
}

/// The addresses of a name in an order of their own, and how long they are good. A name that does not exist has none.
async fn lookup(
    resolver: &Resolver<PodNetwork>,
    name: &str,
) -> Result<(Vec<IpAddr>, Option<Duration>), NetError> {
    match resolver.lookup_ip(name).await {
        Ok(found) => {
            let mut addresses: Vec<_> = found.iter().collect();
            addresses.sort_unstable();
            addresses.dedup();
            Ok((addresses, Some(found.valid_until().saturating_duration_since(Instant::now()))))
        }
        Err(error) if error.is_no_records_found() => Ok((Vec::new(), None)),
        Err(error) => Err(error),
    }
}
