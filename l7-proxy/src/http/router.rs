//! Envoy's router: a routed request's changes, its attempts, and the answer of the last one.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use http::HeaderValue;
use http::header::{HeaderName, SET_COOKIE};
use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::cluster::{Cluster, ClusterDiscovery, ToldOfPeers, UpstreamProtocol};
use orlop_plan::resource::retry::RetryPolicy;
use orlop_plan::resource::route::{
    ClusterSpecifier, HostRewrite, RouteAction, RouteConfiguration, WeightedCluster,
};
use orlop_plan::resource::telemetry::ToldEndpoints;
use orlop_plan::route_match::RouteSelection;

use super::attempt::{self, Answer, Failure, Target};
use super::body::{RequestBody, ResponseBody};
use super::connection_manager::{ConnectionManager, Response};
use super::deadlines::{Deadlines, Expired};
use super::failure;
use super::format::FormatContext;
use super::grpc_status;
use super::hash_policy::RequestHash;
use super::head::RequestHead;
use super::header_mutation::MutationLevels;
use super::local_reply::LocalReply;
use super::mirror;
use super::replay::Replay;
use super::retry::{self, Decision, Outcome, ResetReason};
use super::rewrite;
use super::stream::StreamGuard;
use crate::outlier::Report;
use crate::stats::ResponseFlag;
use crate::upstream::{PickContext, PickError, Picked, RequestPermit, UpstreamCluster};

/// Where Istio sends what it does not know.
const PASSTHROUGH: &str = "PassthroughCluster";
const X_ENVOY_UPSTREAM_SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const X_ENVOY_EXPECTED_RQ_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const X_ENVOY_ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const X_ENVOY_ORIGINAL_DST_HOST: HeaderName = HeaderName::from_static("x-envoy-original-dst-host");

/// A request that a route sends upstream.
pub(crate) struct Routed<'a> {
    /// The connection's manager.
    pub(crate) manager: &'a ConnectionManager,
    /// The plan that the request was routed by; also for its clusters.
    pub(crate) plan: &'a ProxyPlan,
    /// Where the route was found.
    pub(crate) routes: &'a RouteConfiguration,
    /// The route.
    pub(crate) selection: RouteSelection<'a>,
    /// Its action.
    pub(crate) action: &'a RouteAction,
    /// When the request's head was there.
    pub(crate) arrived: Instant,
    /// When it had passed the filters.
    pub(crate) started: Instant,
}

/// What all attempts of a request share.
struct Attempts<'a> {
    cluster: Rc<UpstreamCluster>,
    policy: Option<&'a RetryPolicy>,
    levels: MutationLevels<'a>,
    original_dst: SocketAddr,
    hash: RequestHash,
    deadlines: Deadlines,
    tried: Vec<SocketAddr>,
    /// The number of the attempt, from 1.
    number: u32,
    /// What kept the request from another attempt.
    no_retry: Option<ResponseFlag>,
    guard: StreamGuard,
}

/// How the last attempt ended.
enum Last {
    Answer(Box<Answer>, Picked, RequestPermit),
    Failure(Failure, Option<SocketAddr>),
    NoHost(PickError),
}

/// A request's body, for one attempt or for several.
enum Source {
    Once(RequestBody),
    Replay(Replay),
}

impl<'a> Routed<'a> {
    /// Sends the request, as often as the route's policy says, and answers.
    pub(crate) async fn forward(
        &self,
        head: &mut RequestHead,
        body: RequestBody,
        mut guard: StreamGuard,
    ) -> Response {
        let named;
        let (name, weighted): (&Arc<str>, Option<&WeightedCluster>) = match &self.action.cluster {
            ClusterSpecifier::Cluster(name) => (name, None),
            ClusterSpecifier::Weighted(clusters) => match clusters.pick(fastrand::u64(..)) {
                Some(cluster) => (&cluster.name, Some(cluster)),
                None => return self.no_cluster(head, guard),
            },
            ClusterSpecifier::ClusterHeader(header) => {
                let value = head.headers.get(header).and_then(|value| value.to_str().ok());
                named = Arc::<str>::from(value.unwrap_or_default());
                (&named, None)
            }
        };
        let Some(cluster) = self.manager.cluster(self.plan, name) else {
            return self.no_cluster(head, guard);
        };
        guard.info().into_iter().for_each(|info| info.sent_to(cluster.cluster(), head));
        // HTTP/2 has another way to switch protocols (RFC 8441); as a plain request it would mean something else.
        if head.upgrade.is_some() && cluster.cluster().protocol == UpstreamProtocol::Http2 {
            return self.manager.unsupported(head, guard);
        }
        self.describe(head, cluster.cluster());
        cluster.resolved().await;
        let policy = self.action.retry_policy.as_ref().or(self.selection.virtual_host.retry_policy.as_ref());
        let policy = policy.map(|policy| &**policy);
        let levels = self.levels(weighted);
        let original_dst = original_dst(head, &cluster, &guard);
        let hash = if cluster.cluster().lb_policy.is_by_hash() {
            RequestHash::new(&self.action.hash_policy, head, self.manager.config(), guard.connection())
        } else {
            RequestHash::default()
        };
        let idle = self.manager.config().stream_idle_timeout;
        let deadlines = Deadlines::new(head, self.action, policy, idle, self.arrived);
        let mut attempts = Attempts {
            cluster,
            policy,
            levels,
            original_dst,
            hash,
            deadlines,
            tried: Vec::new(),
            number: 1,
            no_retry: None,
            guard,
        };
        self.announce(head, &attempts);
        let context = self.manager.format_context(Some(name));
        attempts.levels.apply_to_request(head, &context);
        self.rewrite(head, weighted);
        if let Some(trace) = attempts.guard.info().and_then(|info| info.trace()) {
            trace.inject(&mut head.headers);
        }
        let body = if self.action.mirrors.is_empty() {
            body
        } else {
            let connection = attempts.guard.connection();
            mirror::send(self.action, head, body, self.plan, self.manager.config(), connection)
        };
        attempts.guard.info().into_iter().for_each(|info| info.sees(head));
        let last = self.attempt(head, body, &mut attempts).await;
        self.answer(head, last, attempts)
    }

    fn levels(&self, weighted: Option<&'a WeightedCluster>) -> MutationLevels<'a> {
        MutationLevels::new(
            [
                weighted.map(|cluster| &cluster.headers),
                Some(&self.selection.route.headers),
                Some(&self.selection.virtual_host.headers),
                Some(&self.routes.headers),
            ],
            self.routes.most_specific_header_mutations_wins,
        )
    }

    /// Tells the upstream who calls.
    fn describe(&self, head: &mut RequestHead, cluster: &Cluster) {
        let of_the_mesh = cluster.told_of_peers == ToldOfPeers::Always && &*cluster.name != PASSTHROUGH;
        let tells = match self.manager.exchange().tells_upstream {
            ToldEndpoints::None => false,
            ToldEndpoints::OfTheMesh => of_the_mesh,
            ToldEndpoints::All => cluster.told_of_peers != ToldOfPeers::Never,
        };
        if tells {
            self.manager.pod().peers.tell(&mut head.headers);
        }
    }

    /// Tells the upstream how long it has and which attempt this is.
    fn announce(&self, head: &mut RequestHead, attempts: &Attempts<'_>) {
        if let Some(left) = attempts.deadlines.left() {
            // Under a millisecond is not "no timeout".
            let milliseconds = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
            head.headers.insert(X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, HeaderValue::from(milliseconds));
        }
        if self.selection.virtual_host.include_request_attempt_count {
            let number = match attempts.number {
                1 => HeaderValue::from_static("1"),
                number => HeaderValue::from(number),
            };
            head.headers.insert(X_ENVOY_ATTEMPT_COUNT, number);
        }
    }

    fn rewrite(&self, head: &mut RequestHead, weighted: Option<&WeightedCluster>) {
        let append = self.action.append_x_forwarded_host;
        if let Some(host) = weighted.and_then(|cluster| cluster.host_rewrite.as_deref()) {
            rewrite::set_host(head, host, append);
        } else if let Some(rewrite) = &self.action.host_rewrite {
            rewrite::host(head, rewrite, append);
        }
        if let Some(rewrite) = &self.action.path_rewrite {
            rewrite::path(head, rewrite, &self.selection.route.route_match);
        }
    }

    /// Tries until an outcome stands.
    async fn attempt(&self, head: &mut RequestHead, body: RequestBody, attempts: &mut Attempts<'_>) -> Last {
        let mut source = match attempts.policy {
            Some(policy) if policy.num_retries > 0 && !body.is_empty() => Source::Replay(Replay::new(body)),
            _ => Source::Once(body),
        };
        let mut retry_permit = None;
        loop {
            let context = PickContext {
                original_dst: attempts.original_dst,
                hash: attempts.hash.hash,
                tried: &attempts.tried,
                reselections: attempts
                    .policy
                    .filter(|policy| policy.avoid_previous_hosts)
                    .map_or(0, |policy| policy.host_selection_attempts),
                secrets: &self.plan.secrets,
            };
            let picked = match attempts.cluster.pick(&context) {
                Ok(picked) => picked,
                Err(error) => return Last::NoHost(error),
            };
            let address = picked.address();
            let number = attempts.number;
            attempts.guard.info().into_iter().for_each(|info| info.tries(address, number));
            let Some(permit) = attempts.cluster.try_request() else {
                return Last::Failure(Failure::unsent(ResetReason::Overflow), Some(address));
            };
            if let Some(HostRewrite::Auto) = self.action.host_rewrite
                && !picked.host().endpoint().about.hostname.is_empty()
            {
                let hostname = &picked.host().endpoint().about.hostname;
                rewrite::set_host(head, hostname, self.action.append_x_forwarded_host);
            }
            let body = match &mut source {
                Source::Once(body) => std::mem::replace(body, RequestBody::Empty),
                Source::Replay(replay) => RequestBody::Replay(replay.body()),
            };
            let Attempts { cluster, deadlines, guard, .. } = &mut *attempts;
            let alpn = cluster.cluster().alpn_override.then(|| &**self.manager.config());
            let target = Target { cluster, picked: &picked, alpn };
            let outcome = attempt::send(target, head, body, deadlines, guard).await;
            if let Some(report) = outlier_report(head, &outcome) {
                picked.report(report);
            }
            let last = match outcome {
                Ok(answer) => Last::Answer(Box::new(answer), picked, permit),
                Err(failure) => Last::Failure(failure, Some(address)),
            };
            if !attempts.retries(head, &last, &source) {
                if let Source::Replay(replay) = &source {
                    replay.stop();
                }
                return last;
            }
            // The attempt that just ended may have been a retry itself: its permit is free again.
            drop(retry_permit.take());
            retry_permit = attempts.cluster.try_retry();
            if retry_permit.is_none() {
                attempts.no_retry = Some(ResponseFlag::UpstreamOverflow);
                return last;
            }
            drop(last);
            attempts.tried.push(address);
            if let Err(failure) = attempts.pause().await {
                return Last::Failure(failure, Some(address));
            }
            attempts.number += 1;
            self.announce(head, attempts);
        }
    }

    fn answer(&self, head: &RequestHead, last: Last, mut attempts: Attempts<'_>) -> Response {
        match last {
            Last::Answer(answer, picked, permit) => {
                self.forward_answer(head, *answer, picked, permit, attempts)
            }
            Last::NoHost(PickError::NoHealthyUpstream) => {
                self.fail(head, failure::no_healthy_upstream(), None, attempts)
            }
            Last::NoHost(PickError::Refused(refusal)) => {
                self.manager.pod().counters.refuse(refusal);
                self.fail(head, failure::refused(refusal, attempts.number), None, attempts)
            }
            Last::Failure(failed, host) => {
                let transport_failure = attempts.guard.take_transport_failure();
                let reply = failure::no_response(failed, attempts.number, &transport_failure);
                self.fail(head, reply, host, attempts)
            }
        }
    }

    fn forward_answer(
        &self,
        head: &RequestHead,
        answer: Answer,
        picked: Picked,
        permit: RequestPermit,
        attempts: Attempts<'_>,
    ) -> Response {
        let Answer { head: mut response, source, at, principal } = answer;
        let Attempts { cluster, levels, hash, mut deadlines, mut guard, number, no_retry, .. } = attempts;
        if response.status.is_server_error() {
            cluster.counters().failures.inc();
        }
        let took = at.saturating_duration_since(self.started).as_millis();
        let took = match took {
            0 => HeaderValue::from_static("0"),
            1 => HeaderValue::from_static("1"),
            took => HeaderValue::from(u64::try_from(took).unwrap_or(u64::MAX)),
        };
        response.headers.insert(X_ENVOY_UPSTREAM_SERVICE_TIME, took);
        for cookie in hash.set_cookies {
            response.headers.append(SET_COOKIE, cookie);
        }
        if self.selection.virtual_host.include_attempt_count_in_response {
            response.headers.insert(X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(number));
        }
        if !levels.leaves_responses() {
            let context = FormatContext {
                upstream: Some(picked.address()),
                status: Some(response.status),
                flags: no_retry.as_slice(),
                request: Some(head),
                ..self.manager.format_context(Some(&cluster.cluster().name))
            };
            levels.apply_to_response(&mut response.headers, &context);
        }
        deadlines.end_attempt(guard.timer());
        if self.manager.exchange().hears_upstream {
            let (_, peer) = self.manager.pod().peers.hear(&mut response.headers);
            guard.info().into_iter().for_each(|info| info.met(peer.clone()));
        }
        if let Some(info) = guard.info() {
            info.trace().into_iter().for_each(|trace| trace.answered(&mut response.headers));
            info.details("via_upstream");
            info.over_tls(principal, picked.shows_certificate());
            info.answered(response.status, &response.headers);
        }
        guard.answered_by(picked, permit, no_retry, deadlines);
        let body = ResponseBody::upstream(source, guard);
        let response = Response { status: response.status, headers: response.headers, body, close: false };
        self.manager.finish(response, Some(head), at)
    }

    fn no_cluster(&self, head: &RequestHead, guard: StreamGuard) -> Response {
        let reply = LocalReply::new(self.action.cluster_not_found_response, "cluster_not_found");
        self.manager.local(head, reply, Some(ResponseFlag::NoClusterFound), guard)
    }

    /// An answer of the proxy's own to a request that could not be forwarded.
    fn fail(
        &self,
        head: &RequestHead,
        (mut reply, flag): (LocalReply, ResponseFlag),
        upstream: Option<SocketAddr>,
        attempts: Attempts<'_>,
    ) -> Response {
        let Attempts { cluster, levels, guard, no_retry, .. } = attempts;
        cluster.counters().failures.inc();
        let flags: Vec<_> = no_retry.into_iter().chain([flag]).collect();
        let context = FormatContext {
            upstream,
            flags: &flags,
            request: Some(head),
            ..self.manager.format_context(Some(&cluster.cluster().name))
        };
        levels.apply_to_response(&mut reply.headers, &context);
        self.manager.local(head, reply, flags, guard)
    }
}

impl Attempts<'_> {
    /// Whether the outcome calls for another attempt, and one can be made.
    fn retries(&mut self, head: &RequestHead, last: &Last, source: &Source) -> bool {
        let Some(policy) = self.policy else { return false };
        let outcome = match last {
            Last::Answer(answer, ..) => Outcome::Response(answer.head.status, &answer.head.headers),
            Last::Failure(Failure::Reset { reason, sent }, _) => {
                Outcome::Reset { reason: *reason, sent: *sent }
            }
            Last::Failure(Failure::Request(_) | Failure::Expired(_), _) | Last::NoHost(_) => return false,
        };
        let possible = match source {
            Source::Once(_) => true,
            Source::Replay(replay) => replay.is_possible(),
        };
        match retry::decide(policy, head, outcome, self.number) {
            Decision::Accept => false,
            Decision::LimitExceeded => {
                self.no_retry = Some(ResponseFlag::UpstreamRetryLimitExceeded);
                false
            }
            Decision::Retry => possible,
        }
    }

    /// The pause before the next attempt; `Err` where the route's timeout does not leave time for one.
    async fn pause(&mut self) -> Result<(), Failure> {
        let Some(policy) = self.policy else { return Ok(()) };
        let mut pause = pin!(tokio::time::sleep(retry::back_off(policy, self.number, fastrand::f64())));
        self.deadlines.end_attempt(self.guard.timer());
        poll_fn(|cx| match pause.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Ok(())),
            Poll::Pending => {
                self.guard.poll_expired(cx).map(|()| Err(Failure::Expired(self.deadlines.expired())))
            }
        })
        .await
    }
}

/// What an attempt says of the host that it was sent to, as Envoy's router reports it. What the client or a limit of this
/// side brought about says nothing.
fn outlier_report(head: &RequestHead, outcome: &Result<Answer, Failure>) -> Option<Report> {
    match outcome {
        Ok(answer) => {
            let grpc = head.is_grpc().then(|| grpc_status::of(&answer.head.headers)).flatten();
            Some(Report::Status(grpc.map_or(answer.head.status.as_u16(), grpc_status::to_http)))
        }
        Err(Failure::Reset { reason: ResetReason::Overflow, .. } | Failure::Request(_)) => None,
        Err(Failure::Reset { reason: ResetReason::PerTryTimeout, .. } | Failure::Expired(Expired::Route)) => {
            Some(Report::TimedOut)
        }
        Err(Failure::Reset { .. }) => Some(Report::Failed),
        Err(Failure::Expired(_)) => None,
    }
}

/// Where the request goes in an original destination cluster: the connection's, or what a header says where that counts.
fn original_dst(head: &RequestHead, cluster: &UpstreamCluster, guard: &StreamGuard) -> SocketAddr {
    let named = match cluster.cluster().discovery {
        ClusterDiscovery::OriginalDst { use_http_header: true, .. } => {
            head.headers.get(X_ENVOY_ORIGINAL_DST_HOST).and_then(|value| value.to_str().ok()?.parse().ok())
        }
        _ => None,
    };
    named.unwrap_or(guard.connection().local)
}
