//! The proxy as the agent sees it: start, enrol, update, release, statistics, shutdown.
//!
//! Owns the traffic workers and the list of enrolled pods. Nothing here is on the path of a connection.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orlop_plan::proxy::ProxyPlan;
use orlop_podnet::{NetNs, NetNsError, listen_transparent};

use crate::access_log::LogWriter;
use crate::stats::{Direction, DnsStats, OutlierStats, PodStats};
use crate::telemetry::PeerMetadata;
use crate::worker::{PodHandle, Workers};

/// Where the proxy listens for connections that leave the pod: `virtualOutbound`'s port, on loopback.
const OUTBOUND_PORT: u16 = 15001;
/// Where the proxy listens for connections to the pod: `virtualInbound`'s port, on loopback.
const INBOUND_PORT: u16 = 15006;
/// The longest queue of connections not yet accepted, for each listener; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Whether a connection to `destination` comes to a listener of the proxy without having been steered there: somebody
/// dialled the listener itself, and passing the connection on would come back for ever.
pub(crate) fn is_own_listener(destination: SocketAddr) -> bool {
    destination.ip().is_loopback() && [OUTBOUND_PORT, INBOUND_PORT].contains(&destination.port())
}

/// What the proxy is started with.
#[derive(Debug, Clone, Copy)]
pub struct ProxyConfig {
    /// Traffic threads, ≥ 1.
    pub workers: usize,
    /// `SO_MARK` of connections to the application that carry the client's address: the pod's rule for this mark brings
    /// them over loopback.
    pub mark: u32,
}

/// What is to be known of a pod.
#[derive(Debug, Clone)]
pub struct PodFacts {
    /// Its network namespace.
    pub netns: Arc<NetNs>,
    /// Its addresses; listeners are opened for the families among them.
    pub addresses: Vec<IpAddr>,
    /// Whom to ask for the names of clusters, from inside the namespace; none is whom the node asks (`/etc/resolv.conf`).
    pub resolvers: Vec<IpAddr>,
    /// What it says of itself to its peers.
    pub description: Description,
}

/// How a workload describes itself to the other ends of its requests.
#[derive(Debug, Clone, Default)]
pub struct Description {
    /// The node id that the control plane knows it by.
    pub node_id: String,
    /// The cluster of that node: the service's name in traces.
    pub node_cluster: String,
    /// The rest.
    pub metadata: PeerMetadata,
}

/// The listeners inside the pod's namespace, for the datapath's SOCKMAP. They stay open until the pod is released.
#[derive(Debug, Clone)]
pub struct PodListeners {
    /// On `127.0.0.1:15001`.
    pub outbound: Arc<TcpListener>,
    /// On `127.0.0.1:15006`.
    pub inbound: Arc<TcpListener>,
    /// On `[::1]:15001`, where the pod has an IPv6 address.
    pub outbound_v6: Option<Arc<TcpListener>>,
    /// On `[::1]:15006`, where the pod has an IPv6 address.
    pub inbound_v6: Option<Arc<TcpListener>>,
}

impl PodListeners {
    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Direction, &Arc<TcpListener>)> {
        [
            (Direction::Outbound, Some(&self.outbound)),
            (Direction::Inbound, Some(&self.inbound)),
            (Direction::Outbound, self.outbound_v6.as_ref()),
            (Direction::Inbound, self.inbound_v6.as_ref()),
        ]
        .into_iter()
        .filter_map(|(direction, listener)| Some((direction, listener?)))
    }
}

/// Why the proxy could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A traffic thread or its runtime could not be made: the node is out of a resource.
    #[error("cannot start traffic worker {worker}")]
    Worker {
        /// Which one, from 0.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread that writes access logs could not be started: the node is out of a resource.
    #[error("cannot start the thread of access logs")]
    AccessLog(#[source] io::Error),
    /// `workers` is 0.
    #[error("the proxy needs at least one traffic worker")]
    NoWorkers,
    /// The pod's namespace cannot be entered.
    #[error("cannot open the listeners of pod {pod}")]
    Namespace {
        /// The pod.
        pod: String,
        /// Why.
        source: NetNsError,
    },
    /// Another socket in the pod listens there: a sidecar, or a process of the application.
    #[error("{address} in {netns} is taken, pod {pod} cannot be served")]
    AddressTaken {
        /// The pod.
        pod: String,
        /// The listener's address.
        address: SocketAddr,
        /// The pod's namespace.
        netns: PathBuf,
    },
    /// A listener could not be opened for another reason.
    #[error("cannot listen on {address} in {netns} for pod {pod}")]
    Listen {
        /// The pod.
        pod: String,
        /// The listener's address.
        address: SocketAddr,
        /// The pod's namespace.
        netns: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pod of this name is enrolled already.
    #[error("pod {pod} is enrolled already")]
    AlreadyEnrolled {
        /// The pod.
        pod: String,
    },
    /// No pod of this name is enrolled.
    #[error("pod {pod} is not enrolled")]
    NotEnrolled {
        /// The pod.
        pod: String,
    },
}

/// The running proxy. Ends with [`Proxy::shutdown`]; dropped without it, connections are cut.
#[derive(Debug)]
pub struct Proxy {
    workers: Workers,
    log: LogWriter,
    pods: Mutex<HashMap<String, PodHandle>>,
    /// Spreads the pods' listeners over the workers.
    next_acceptor: AtomicUsize,
}

impl Proxy {
    /// Starts the traffic workers.
    pub fn start(config: ProxyConfig) -> Result<Self, ProxyError> {
        if config.workers == 0 {
            return Err(ProxyError::NoWorkers);
        }
        let workers = Workers::start(config)?;
        let log = LogWriter::start().map_err(ProxyError::AccessLog)?;
        Ok(Self { workers, log, pods: Mutex::default(), next_acceptor: AtomicUsize::new(0) })
    }

    /// Opens the pod's listeners inside its namespace and serves it by `plan` from now on.
    pub fn enrol(
        &self,
        name: &str,
        facts: PodFacts,
        plan: Arc<ProxyPlan>,
    ) -> Result<PodListeners, ProxyError> {
        let listeners = open_listeners(name, &facts)?;
        self.carry(name, facts, plan, listeners.clone(), true)?;
        Ok(listeners)
    }

    /// Takes the pod on from another process, whose listeners these are too. Nothing is accepted before the first
    /// [`update`](Self::update): until then the other process serves.
    pub fn inherit(&self, name: &str, facts: PodFacts, listeners: PodListeners) -> Result<(), ProxyError> {
        self.carry(name, facts, Arc::default(), listeners, false)
    }

    fn carry(
        &self,
        name: &str,
        facts: PodFacts,
        plan: Arc<ProxyPlan>,
        listeners: PodListeners,
        accepting: bool,
    ) -> Result<(), ProxyError> {
        let mut pods = self.pods();
        if pods.contains_key(name) {
            return Err(ProxyError::AlreadyEnrolled { pod: name.to_owned() });
        }
        let acceptor = self.next_acceptor.fetch_add(1, Relaxed);
        let about = &facts.description.metadata;
        let log = self.log.of_pod(&about.namespace, &about.name);
        let handle = self.workers.enrol(name, facts, plan, (listeners, acceptor, accepting), log);
        pods.insert(name.to_owned(), handle);
        Ok(())
    }

    /// What the pod's proxy listens on, for a process that takes over; `None` when it is not enrolled.
    pub fn listeners(&self, name: &str) -> Option<PodListeners> {
        Some(self.pods().get(name)?.listeners().clone())
    }

    /// Replaces the pod's plan. Requests that begin from now on are served by it; TCP connections keep what they have.
    /// `changed` are the names of clusters that are not what they were in the last plan, or gone.
    pub fn update(
        &self,
        name: &str,
        plan: Arc<ProxyPlan>,
        changed: &Arc<[Arc<str>]>,
    ) -> Result<(), ProxyError> {
        match self.pods().get_mut(name) {
            Some(pod) => {
                pod.update(plan, changed);
                Ok(())
            }
            None => Err(ProxyError::NotEnrolled { pod: name.to_owned() }),
        }
    }

    /// Takes the pod out: its listeners are closed when this returns, and the name and addresses are free again. The
    /// future ends when the last connection did, at the latest after `deadline`; it need not be polled.
    pub fn release(
        &self,
        name: &str,
        deadline: Duration,
    ) -> Result<impl Future<Output = ()> + use<>, ProxyError> {
        let pod = self.pods().remove(name).ok_or_else(|| ProxyError::NotEnrolled { pod: name.to_owned() })?;
        Ok(pod.release(deadline))
    }

    /// What was counted for the pod; `None` when it is not enrolled.
    pub fn stats(&self, name: &str) -> Option<PodStats> {
        let mut stats = PodStats::default();
        let pods = self.pods();
        let pod = pods.get(name)?;
        pod.merge_into(&mut stats);
        stats.outliers = pod.outliers();
        stats.dns = pod.names();
        Some(stats)
    }

    /// What outlier detection has found for the pod, by cluster; empty when it is not enrolled.
    pub fn outliers(&self, name: &str) -> BTreeMap<String, OutlierStats> {
        self.pods().get(name).map(PodHandle::outliers).unwrap_or_default()
    }

    /// What became of the names of the pod's clusters; empty when it is not enrolled.
    pub fn names(&self, name: &str) -> BTreeMap<String, DnsStats> {
        self.pods().get(name).map(PodHandle::names).unwrap_or_default()
    }

    /// What was counted for all pods that are enrolled.
    pub fn totals(&self) -> PodStats {
        let mut stats = PodStats::default();
        for pod in self.pods().values() {
            pod.merge_into(&mut stats);
        }
        stats
    }

    /// Releases every pod, waits for their connections for at most `deadline`, and ends the workers.
    pub async fn shutdown(self, deadline: Duration) {
        let pods: Vec<_> = self.pods().drain().collect();
        let draining: Vec<_> = pods.into_iter().map(|(_, pod)| pod.release(deadline)).collect();
        for drained in draining {
            drained.await;
        }
        self.end().await;
    }

    /// Ends beside a process that accepts from the same listeners by now: for `parting`, clients are told to go on with
    /// new connections, and what they ask meanwhile is answered; then the rest has until `deadline`.
    pub async fn hand_over(self, parting: Duration, deadline: Duration) {
        let pods: Vec<_> = self.pods().drain().collect();
        let leaving: Vec<_> = pods.into_iter().map(|(_, pod)| pod.hand_over(parting, deadline)).collect();
        for left in leaving {
            left.await;
        }
        self.end().await;
    }

    async fn end(self) {
        let Self { workers, log, .. } = self;
        drop(workers);
        log.finish().await;
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<String, PodHandle>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pod's listeners, all or none.
fn open_listeners(pod: &str, facts: &PodFacts) -> Result<PodListeners, ProxyError> {
    let netns = &facts.netns;
    let listen = |ip: IpAddr, port| {
        let address = SocketAddr::new(ip, port);
        listen_transparent(address, BACKLOG).map(Arc::new).map_err(|source| {
            let (pod, netns) = (pod.to_owned(), netns.path().to_owned());
            if source.kind() == io::ErrorKind::AddrInUse {
                ProxyError::AddressTaken { pod, address, netns }
            } else {
                ProxyError::Listen { pod, address, netns, source }
            }
        })
    };
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = facts.addresses.iter().any(IpAddr::is_ipv6).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    netns
        .run(|| {
            Ok(PodListeners {
                outbound: listen(v4, OUTBOUND_PORT)?,
                inbound: listen(v4, INBOUND_PORT)?,
                outbound_v6: v6.map(|v6| listen(v6, OUTBOUND_PORT)).transpose()?,
                inbound_v6: v6.map(|v6| listen(v6, INBOUND_PORT)).transpose()?,
            })
        })
        .map_err(|source| ProxyError::Namespace { pod: pod.to_owned(), source })?
}
