//! One pod: its sockets, its names, its counters, and the tasks that serve it.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use orlop_podnet::NetNs;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::answer::Carrier;
use crate::counters::{Counters, DnsCounters};
use crate::names::Names;
use crate::resolve::{Resolution, resolve};
use crate::sockets::{OpenError, Sockets};
use crate::{tcp, udp};

/// Questions of a pod that may wait for their answers from elsewhere; each has a socket.
const FORWARDS: usize = 256;

/// Where a pod is.
#[derive(Debug, Clone)]
pub struct PodNetwork {
    /// Its network namespace.
    pub netns: Arc<NetNs>,
    /// Its addresses; DNS is answered over the families that it has.
    pub addresses: Vec<IpAddr>,
}

/// The DNS of one pod. Dropped, its sockets are closed.
#[derive(Debug)]
pub struct PodDns {
    pod: Arc<Pod>,
    sockets: Vec<Sockets>,
    tasks: Vec<AbortHandle>,
}

/// What the tasks of a pod share.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) network: PodNetwork,
    names: ArcSwapOption<Names>,
    pub(crate) counters: Counters,
    pub(crate) forwards: Arc<Semaphore>,
}

impl PodDns {
    /// Opens the sockets inside the pod and serves them in `runtime`.
    pub(crate) fn open(runtime: &Handle, network: PodNetwork) -> Result<Self, OpenError> {
        let _within = runtime.enter();
        let mut sockets = Vec::new();
        for ipv4 in [true, false] {
            if let Some(address) = network.addresses.iter().find(|address| address.is_ipv4() == ipv4) {
                sockets.push(Sockets::open(&network.netns, *address)?);
            }
        }
        let pod = Arc::new(Pod {
            network,
            names: ArcSwapOption::empty(),
            counters: Counters::default(),
            forwards: Arc::new(Semaphore::new(FORWARDS)),
        });
        let mut tasks = Vec::new();
        for Sockets { udp, tcp, raw } in &sockets {
            let udp = udp::serve(Arc::clone(udp), Arc::clone(raw), Arc::clone(&pod));
            tasks.push(runtime.spawn(udp).abort_handle());
            tasks.push(runtime.spawn(tcp::serve(Arc::clone(tcp), Arc::clone(&pod))).abort_handle());
        }
        Ok(Self { pod, sockets, tasks })
    }

    /// For the kernel to steer to, by UDP.
    pub fn udp(&self) -> impl Iterator<Item = &UdpSocket> {
        self.sockets.iter().map(|sockets| &*sockets.udp)
    }

    /// For the kernel to steer to, by TCP.
    pub fn tcp(&self) -> impl Iterator<Item = &TcpListener> {
        self.sockets.iter().map(|sockets| &*sockets.tcp)
    }

    /// Answers for these names from now on. Until the first time everything is forwarded.
    pub fn set_names(&self, names: Names) {
        self.pod.names.store(Some(Arc::new(names)));
    }

    /// What became of the pod's questions.
    pub fn counters(&self) -> DnsCounters {
        self.pod.counters.read()
    }
}

impl Drop for PodDns {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Pod {
    /// What becomes of a query; counts it unless it is to be forwarded.
    pub(crate) fn resolve(&self, query: &[u8], carrier: Carrier) -> Resolution {
        let names = self.names.load();
        let Some(names) = &*names else { return Resolution::Forward };
        let resolution = resolve(names, query, carrier);
        match &resolution {
            Resolution::Answer(_) => self.counters.answered.inc(),
            Resolution::Malformed => self.counters.malformed.inc(),
            Resolution::Forward => {}
        }
        resolution
    }
}
