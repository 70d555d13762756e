//! Requests of the proxy's own, to an authorizer, say: to a cluster of the pod's and from the pod's own address, with nothing of
//! the connection that they are made for.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::time::timeout_at;

use super::attempt::{self, Target};
use super::body::{RequestBody, ResponseBody};
use super::deadlines::Deadlines;
use super::head::RequestHead;
use super::stream::StreamGuard;
use super::timer::Timer;
use crate::pod::ConnectionContext;
use crate::upstream::PickContext;

/// The longest answer that is read.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// An answer as a whole.
#[derive(Debug)]
pub(crate) struct Called {
    /// `:status`
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
    /// Its trailers.
    pub(crate) trailers: HeaderMap,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The plan has no such cluster.
    #[error("its cluster is not known")]
    NoCluster,
    /// The cluster has no host for it, or as many requests as it may.
    #[error("its cluster has no room or no healthy host")]
    NoHost,
    /// There was no answer, or none in time.
    #[error("it did not answer")]
    NoAnswer,
    /// The answer broke off, or is too long.
    #[error("its answer broke off or is too long")]
    Broken,
}

/// Asks a host of the cluster. The answer as a whole is there within `limit`.
pub(crate) async fn call(
    connection: &ConnectionContext,
    cluster: &str,
    head: &RequestHead,
    body: Bytes,
    limit: Duration,
) -> Result<Called, CallError> {
    let end = Instant::now() + limit;
    let pod = &connection.pod;
    let plan = pod.plan();
    let cluster = pod.upstreams.cluster(&plan, cluster).ok_or(CallError::NoCluster)?;
    timeout_at(end.into(), cluster.resolved()).await.map_err(|_elapsed| CallError::NoAnswer)?;
    // It comes from the pod, also where it is about somebody who comes to the pod.
    let own = Rc::new(ConnectionContext::of_the_pod(Rc::clone(pod), connection.peer, connection.local));
    let picked = cluster.pick(&PickContext::first(connection.local, None, &plan.secrets));
    let picked = picked.map_err(|_| CallError::NoHost)?;
    let permit = cluster.try_request().ok_or(CallError::NoHost)?;
    let mut guard = StreamGuard::new(own, Rc::<Timer>::default(), None);
    let mut deadlines = Deadlines::until(end);
    let target = Target { cluster: &cluster, picked: &picked, alpn: None };
    let sent = attempt::send(target, head, RequestBody::Whole(body), &mut deadlines, &guard).await;
    let Ok(answer) = sent else {
        cluster.counters().failures.inc();
        guard.finish(None);
        return Err(CallError::NoAnswer);
    };
    guard.answered_by(picked, permit, None, deadlines);
    let mut source = ResponseBody::upstream(answer.source, guard);
    let mut called = Called {
        status: answer.head.status,
        headers: answer.head.headers,
        body: Bytes::new(),
        trailers: HeaderMap::new(),
    };
    let mut body = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| source.poll_next(cx)).await {
        match frame.map_err(|_| CallError::Broken)?.into_data() {
            Ok(data) if body.len() + data.len() > LONGEST_ANSWER => return Err(CallError::Broken),
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => called.trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    called.body = body.freeze();
    Ok(called)
}
