//! Mirrors of requests, as Envoy's router shadows them: sent and forgotten.
//!
//! A mirror is a task of the pod, so that it outlives the connection that the request came by; it never holds the request up,
//! and what becomes of it is seen in its cluster's counters alone.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use http::header::HeaderName;
use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::http_connection_manager::HttpConnectionManager;
use orlop_plan::resource::route::{MirrorPolicy, RouteAction};
use tokio::task::JoinSet;

use super::attempt::{self, Target};
use super::body::{RequestBody, ResponseBody};
use super::deadlines::Deadlines;
use super::head::RequestHead;
use super::request_headers::append_forwarded_for;
use super::stream::StreamGuard;
use super::tee::Tee;
use super::timer::Timer;
use crate::pod::ConnectionContext;
use crate::stats::{Direction, PodCounters};
use crate::tls::Secrets;
use crate::upstream::{PickContext, UpstreamCluster};

const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// The mirrors of a pod that are under way.
#[derive(Debug, Default)]
pub(crate) struct Mirrors(RefCell<JoinSet<()>>);

impl Mirrors {
    fn start(&self, mirror: impl Future<Output = ()> + 'static, counters: &PodCounters) {
        let mut tasks = self.0.borrow_mut();
        while let Some(ended) = tasks.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                counters.panics.inc();
            }
        }
        tasks.spawn_local(mirror);
    }

    /// Ends them all.
    pub(crate) async fn shutdown(&self) {
        let mut tasks = self.0.take();
        tasks.shutdown().await;
    }
}

/// One mirror of a request.
struct Mirror {
    connection: Rc<ConnectionContext>,
    config: Arc<HttpConnectionManager>,
    secrets: Secrets,
    cluster: Rc<UpstreamCluster>,
    head: RequestHead,
    body: RequestBody,
    deadlines: Deadlines,
}

/// Sends the request to whom the route mirrors it. What comes back is its own body, of which they get copies.
pub(crate) fn send(
    action: &RouteAction,
    head: &RequestHead,
    body: RequestBody,
    plan: &ProxyPlan,
    config: &Arc<HttpConnectionManager>,
    connection: &Rc<ConnectionContext>,
) -> RequestBody {
    let pod = &connection.pod;
    let drawn = action.mirrors.iter().filter(|mirror| is_drawn(mirror));
    let known = drawn.filter_map(|mirror| Some((mirror, pod.upstreams.cluster(plan, &mirror.cluster)?)));
    let clusters: Vec<_> = known.collect();
    // What follows an upgrade is not HTTP.
    if clusters.is_empty() || head.upgrade.is_some() {
        return body;
    }
    let mut tee = if body.is_empty() { None } else { Some(Tee::new(body)) };
    for (policy, cluster) in clusters {
        let mirror = Mirror {
            connection: Rc::clone(connection),
            config: Arc::clone(config),
            secrets: Arc::clone(&plan.secrets),
            cluster,
            head: mirrored(policy, head, connection),
            body: tee.as_mut().map_or(RequestBody::Empty, |tee| RequestBody::Copy(tee.copy())),
            deadlines: Deadlines::new(head, action, None, config.stream_idle_timeout, Instant::now()),
        };
        pod.mirrors.start(mirror.run(), &pod.counters);
    }
    tee.map_or(RequestBody::Empty, RequestBody::Tee)
}

fn is_drawn(mirror: &MirrorPolicy) -> bool {
    mirror.fraction_per_million.is_none_or(|numerator| fastrand::u32(0..1_000_000) < numerator)
}

/// The head as a mirror gets it: it says that a proxy has sent it, and its host that it is one.
fn mirrored(policy: &MirrorPolicy, head: &RequestHead, connection: &ConnectionContext) -> RequestHead {
    let mut head = head.clone();
    if policy.marks_host {
        let (host, port) = match head.authority.rfind(':') {
            Some(colon) if !head.authority.ends_with(']') => head.authority.split_at(colon),
            _ => (head.authority.as_str(), ""),
        };
        head.authority = format!("{host}-shadow{port}");
    }
    head.headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    let own = match connection.direction {
        Direction::Outbound => connection.peer,
        Direction::Inbound => connection.local,
    };
    append_forwarded_for(&mut head.headers, own.ip());
    head
}

impl Mirror {
    async fn run(self) {
        let Self { connection, config, secrets, cluster, head, body, mut deadlines } = self;
        cluster.resolved().await;
        let picked = cluster.pick(&PickContext::first(connection.local, None, &secrets));
        let (Ok(picked), Some(permit)) = (picked, cluster.try_request()) else {
            return cluster.counters().failures.inc();
        };
        let mut guard = StreamGuard::new(Rc::clone(&connection), Rc::<Timer>::default(), None);
        let alpn = cluster.cluster().alpn_override.then_some(&*config);
        let target = Target { cluster: &cluster, picked: &picked, alpn };
        let answer = attempt::send(target, &head, body, &mut deadlines, &guard).await;
        if answer.as_ref().map_or(true, |answer| answer.head.status.is_server_error()) {
            cluster.counters().failures.inc();
        }
        let Ok(answer) = answer else { return guard.finish(None) };
        guard.answered_by(picked, permit, None, deadlines);
        let mut body = ResponseBody::upstream(answer.source, guard);
        while let Some(Ok(_)) = poll_fn(|cx| body.poll_next(cx)).await {}
    }
}
