//! The server of one pod: accepts, bounds, answers.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use orlop_xds_client::Node;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::warn;

use super::pages;
use super::view::{Asked, Question};
use crate::config::WorkloadId;

/// Connections at a time; more wait in the kernel.
const CONNECTIONS: usize = 8;
/// A client has this long to say what it wants.
const HEADERS: Duration = Duration::from_secs(5);
/// No connection lasts longer, whatever it does: eight that do nothing cannot lock the pod's tools out for good.
const LONGEST: Duration = Duration::from_mins(1);
/// Request lines and headers are short.
const LONGEST_HEAD: usize = 16 * 1024;
/// How long to wait where the node is out of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Whom the server answers for.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) workload: WorkloadId,
    pub(super) enrolment: u64,
    /// As the control plane knows it.
    pub(super) node: Node,
    /// When it was enrolled.
    pub(super) since: Instant,
    pub(super) ask: mpsc::Sender<Asked>,
    /// Which pod's dump is printed, shared by all of them.
    pub(super) dumps: Arc<Semaphore>,
    /// Which of this pod's requests waits for that.
    pub(super) own_dump: Arc<Semaphore>,
}

impl Pod {
    /// Asks the node task; `None` when the pod is being released.
    pub(super) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked =
            Asked { workload: self.workload.clone(), enrolment: self.enrolment, question: question(reply) };
        self.ask.send(asked).await.ok()?;
        answer.await.ok()
    }
}

/// Serves until aborted; its connections end with it.
pub(super) async fn serve(listener: TcpListener, pod: Rc<Pod>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn_local(connection(stream, Rc::clone(&pod), place));
            }
            Err(error) => {
                warn!(workload = %pod.workload, %error, "admin interface: accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, pod: Rc<Pod>, _place: OwnedSemaphorePermit) {
    let service = service_fn(|request| {
        let pod = Rc::clone(&pod);
        async move { Ok::<_, Infallible>(pages::answer(&pod, &request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong here is the client's doing.
    let _ = tokio::time::timeout(LONGEST, served).await;
}
