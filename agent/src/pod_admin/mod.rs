//! The admin interface of each pod: HTTP/1.1 on `127.0.0.1:15000` in the pod's network namespace, as a sidecar's Envoy
//! has it, so that Istio's tools see one there. It answers for that pod alone.
//!
//! State stays with the node task: a page asks it through a channel and gets counters or shared pointers; what takes time
//! is printed on a thread of its own. The pod is not trusted: connections, their duration and dumps at a time are
//! bounded, and nothing that is asked changes anything.

mod answer;
mod certs;
mod clusters;
mod config_dump;
mod envoy_json;
mod listeners;
mod logging;
mod pages;
mod query;
mod secrets;
mod server;
mod server_info;
mod stats;
mod stream;
mod view;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use orlop_podnet::{NetNs, NetNsError};
use orlop_xds_client::Node;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::config::WorkloadId;
pub(crate) use secrets::NodeSecret;
use server::Pod;
pub(crate) use view::{Asked, Figures, Question, Resources, ServerState};

/// Where Istio's tools look for a sidecar's admin interface.
const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 15000));
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;
/// The node's admin pages may have as many questions waiting.
const QUESTIONS: usize = 64;

/// What the admin interfaces of all pods share.
#[derive(Debug, Clone)]
pub(crate) struct PodAdmins {
    ask: mpsc::Sender<Asked>,
    /// A dump needs the descriptors of Envoy's API, tens of megabytes: the pods take turns.
    dumps: Arc<Semaphore>,
}

impl PodAdmins {
    /// And the node task's end of the questions.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (ask, asked) = mpsc::channel(QUESTIONS);
        (Self { ask, dumps: Arc::new(Semaphore::new(1)) }, asked)
    }
}

/// The admin interface of one enrolled pod.
#[derive(Debug)]
pub(crate) struct PodAdmin {
    pod: Rc<Pod>,
    netns: Arc<NetNs>,
    /// The server's task, or why there is none.
    server: Result<JoinHandle<()>, String>,
}

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{ADDRESS} in the pod is taken by another process (a sidecar?)")]
    Taken,
    #[error("cannot listen on {ADDRESS} in the pod: {0}")]
    Listen(io::Error),
    #[error(transparent)]
    Namespace(#[from] NetNsError),
}

impl PodAdmin {
    /// Opens the port. Where that fails the pod is carried all the same, see [`PodAdmin::problem`].
    pub(crate) fn open(
        admins: &PodAdmins,
        workload: WorkloadId,
        enrolment: u64,
        node: Node,
        netns: Arc<NetNs>,
    ) -> Self {
        let PodAdmins { ask, dumps } = admins.clone();
        let own_dump = Arc::new(Semaphore::new(1));
        let pod = Pod { workload, enrolment, node, since: Instant::now(), ask, dumps, own_dump };
        let mut this = Self { pod: Rc::new(pod), netns, server: Err(String::new()) };
        this.try_open();
        this
    }

    /// Tries again where the port could not be opened.
    pub(crate) fn look_after(&mut self) {
        if self.server.is_err() {
            self.try_open();
        }
    }

    /// Why the pod has no admin interface.
    pub(crate) fn problem(&self) -> Option<String> {
        self.server.as_ref().err().map(|reason| format!("no admin interface: {reason}; will be tried again"))
    }

    /// Ends it. The port is free when this returns.
    pub(crate) async fn close(self) {
        if let Ok(server) = &self.server {
            server.abort();
        }
        if let Ok(server) = self.server {
            // An error says that it was cancelled, as asked.
            let _ = server.await;
        }
    }

    fn try_open(&mut self) {
        self.server = listen(&self.netns)
            .map(|listener| tokio::task::spawn_local(server::serve(listener, Rc::clone(&self.pod))))
            .map_err(|error| error.to_string());
    }
}

fn listen(netns: &NetNs) -> Result<tokio::net::TcpListener, OpenError> {
    let listener = netns.run(|| orlop_podnet::listen(ADDRESS, BACKLOG))?;
    listener.and_then(tokio::net::TcpListener::from_std).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => OpenError::Taken,
        _ => OpenError::Listen(error),
    })
}
