//! What is noted of a stream as it passes, for Istio's metrics, for access logs and for spans. Written by whoever handles the stream, read
//! at its end.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::endpoint::EndpointAbout;
use orlop_plan::resource::http_connection_manager::HttpConnectionManager;
use orlop_plan::resource::route::{Action, ClusterSpecifier, Route};
use orlop_plan::resource::telemetry::IstioStats;

use super::filter::Tried;
use super::head::RequestHead;
use super::stream_log::StreamLog;
use crate::pod::ConnectionContext;
use crate::stats::{Direction, HttpCounters, ResponseFlag, ResponseFlags};
use crate::telemetry::{Destination, Dimensions, GrpcFrames, Observed, Peer, Protocol};
use crate::trace::StreamTrace;

/// One stream's notes.
#[derive(Debug)]
pub(crate) struct StreamInfo {
    /// None where there are no metrics.
    stats: Option<Arc<IstioStats>>,
    /// None where there is no log, and nothing is traced.
    log: Option<Box<StreamLog>>,
    /// Of a stream that is not reported: headers alone.
    trace: Option<Box<StreamTrace>>,
    started: Instant,
    is_grpc: bool,
    code: u16,
    grpc_status: Option<u16>,
    flags: ResponseFlags,
    request_head: u64,
    upload: Option<Rc<UploadMeter>>,
    response_bytes: u64,
    response_frames: GrpcFrames,
    destination: Option<Destination>,
    peer: Peer,
    principal: Option<Arc<str>>,
    shown: bool,
    /// Bytes from the client that were not HTTP.
    tunnelled: u64,
}

/// What passes of a request's body.
#[derive(Debug, Default)]
pub(crate) struct UploadMeter {
    bytes: Cell<u64>,
    /// Of gRPC.
    frames: Option<RefCell<GrpcFrames>>,
}

impl UploadMeter {
    /// Some of it.
    pub(crate) fn pass(&self, data: &[u8]) {
        self.bytes.set(self.bytes.get() + data.len() as u64);
        if let Some(frames) = &self.frames {
            frames.borrow_mut().pass(data);
        }
    }

    fn messages(&self) -> u64 {
        self.frames.as_ref().map_or(0, |frames| frames.borrow().messages())
    }
}

impl StreamInfo {
    /// A request's head has come. `None` where nobody asks for notes.
    pub(crate) fn new(
        config: &Arc<HttpConnectionManager>,
        head: &RequestHead,
        started: Instant,
    ) -> Option<Box<Self>> {
        let (stats, log) = (config.stats().cloned(), StreamLog::new(config));
        if stats.is_none() && log.is_none() && config.tracing_provider().is_none() {
            return None;
        }
        let line = head.method.as_str().len() + head.path.len() + head.authority.len();
        Some(Box::new(Self {
            stats,
            log,
            trace: None,
            started,
            is_grpc: head.is_grpc(),
            code: 0,
            grpc_status: None,
            flags: ResponseFlags::default(),
            // As HTTP/1.1 writes it, `host` with it.
            request_head: line as u64 + " HTTP/1.1\r\nhost: \r\n\r\n".len() as u64 + 1 + size(&head.headers),
            upload: None,
            response_bytes: 0,
            response_frames: GrpcFrames::default(),
            destination: None,
            peer: Peer::Unknown,
            principal: None,
            shown: false,
            tunnelled: 0,
        }))
    }

    /// The request as it is by now, which logs tell of.
    pub(crate) fn sees(&mut self, head: &RequestHead) {
        if let Some(log) = &mut self.log {
            log.request = Some(head.clone());
        }
    }

    /// The request's route is known, and so is its cluster where the route names one.
    pub(crate) fn routed(&mut self, route: &Route, plan: &ProxyPlan) {
        let Some(log) = &mut self.log else { return };
        route.name.clone_into(&mut log.route);
        if let Action::Route(action) = &route.action
            && let ClusterSpecifier::Cluster(name) = &action.cluster
            && plan.clusters.contains_key(name)
        {
            log.cluster = Some(Arc::clone(name));
        }
    }

    /// It is part of a trace, perhaps of one that nobody reports.
    pub(crate) fn traced(
        &mut self,
        config: &Arc<HttpConnectionManager>,
        head: &mut RequestHead,
        connection: &ConnectionContext,
        counters: &HttpCounters,
        route: Option<&Route>,
    ) {
        let RequestHead { headers, authority, .. } = head;
        let trace = StreamTrace::begin(config, headers, authority, connection, counters, route);
        if trace.as_ref().is_some_and(|trace| trace.is_reported()) {
            let log = self.log.get_or_insert_with(|| StreamLog::of(config));
            log.began = SystemTime::now() - self.started.elapsed();
            log.trace = trace;
            self.sees(head);
        } else {
            self.trace = trace;
        }
    }

    /// What becomes of the request by policies that are tried.
    pub(crate) fn tried(&mut self, tried: [Option<Tried>; 2]) {
        if let Some(log) = &mut self.log {
            log.tried = tried;
        }
    }

    /// Its part in a trace.
    pub(crate) fn trace(&mut self) -> Option<&mut StreamTrace> {
        let Self { log, trace, .. } = self;
        let reported = log.as_mut().and_then(|log| log.trace.as_deref_mut());
        reported.or(trace.as_deref_mut())
    }

    /// This attempt is the host's.
    pub(crate) fn tries(&mut self, host: SocketAddr, attempt: u32) {
        if let Some(log) = &mut self.log {
            (log.upstream, log.attempts) = (Some(host), attempt);
            log.upstream_local.set(None);
        }
    }

    /// There is a connection to the host, this side of which `local` says.
    pub(crate) fn connected(&self, local: impl FnOnce() -> Option<SocketAddr>) {
        if let Some(log) = &self.log {
            log.upstream_local.set(local());
        }
    }

    /// There was none, for this reason.
    pub(crate) fn unconnected(&mut self, reason: &str) {
        if let Some(log) = &mut self.log {
            reason.clone_into(&mut log.transport_failure);
        }
    }

    /// Why the response is as it is, in Envoy's words.
    pub(crate) fn details(&mut self, details: impl Into<Cow<'static, str>>) {
        if let Some(log) = &mut self.log {
            log.details = details.into();
        }
    }

    /// What went through a tunnel, from the client and to it.
    pub(crate) fn tunnelled(&mut self, received: u64, sent: u64) {
        self.tunnelled += received;
        if let Some(log) = &mut self.log {
            log.sent += sent;
        }
    }

    /// What counts the request's body.
    pub(crate) fn meter(&mut self) -> Rc<UploadMeter> {
        let meter = UploadMeter { frames: self.is_grpc.then(RefCell::default), ..UploadMeter::default() };
        Rc::clone(self.upload.insert(Rc::new(meter)))
    }

    /// The request goes to `cluster`.
    pub(crate) fn sent_to(&mut self, cluster: &Arc<Cluster>, head: &RequestHead) {
        self.destination = Some(Destination::of(cluster, || self.host(head)));
        if let Some(log) = &mut self.log {
            log.cluster = Some(Arc::clone(&cluster.name));
        }
    }

    /// The request goes nowhere. Where nothing is known of its destination yet, its host is.
    pub(crate) fn sent_nowhere(&mut self, head: &RequestHead) {
        if self.destination.is_none() {
            self.destination = Some(Destination { host: self.host(head), ..Destination::default() });
        }
    }

    /// The request is for nobody that the workload may call (Istio's route `block_all`).
    pub(crate) fn blocked(&mut self, head: &RequestHead) {
        self.destination = Some(Destination::blocked(self.host(head)));
    }

    fn host(&self, head: &RequestHead) -> Option<Arc<str>> {
        let named = self.stats.as_ref().is_some_and(|stats| !stats.disable_host_header_fallback);
        (named && !head.authority.is_empty()).then(|| head.authority.as_str().into())
    }

    /// The other end describes itself.
    pub(crate) fn met(&mut self, peer: Peer) {
        self.peer = peer;
    }

    /// The endpoint has shown itself to be `principal`, and was shown the workload's certificate.
    pub(crate) fn over_tls(&mut self, principal: Option<Arc<str>>, shown: bool) {
        self.principal = principal;
        self.shown = shown;
    }

    /// The response's head, as it goes to the client.
    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.code = status.as_u16();
        self.response_bytes += "HTTP/1.1 200 OK\r\n\r\n".len() as u64 + size(headers);
        self.trailed(headers);
        if let Some(log) = &mut self.log {
            log.response.clone_from(headers);
        }
    }

    /// Some of the response's body.
    pub(crate) fn passed(&mut self, data: &[u8]) {
        self.response_bytes += data.len() as u64;
        if let Some(log) = &mut self.log {
            log.sent += data.len() as u64;
        }
        if self.is_grpc {
            self.response_frames.pass(data);
        }
    }

    /// The response's trailers, or a head that may stand for them.
    pub(crate) fn trailed(&mut self, headers: &HeaderMap) {
        let status = headers.get("grpc-status").filter(|_| self.is_grpc);
        if let Some(status) = status.and_then(|status| status.to_str().ok()?.parse().ok()) {
            self.grpc_status = Some(status);
            if let (Some(log), Some(message)) = (&mut self.log, headers.get("grpc-message")) {
                log.grpc_message = String::from_utf8_lossy(message.as_bytes()).into_owned();
            }
        }
    }

    /// Something went wrong.
    pub(crate) fn flag(&mut self, flag: ResponseFlag) {
        self.flags.insert(flag);
        if let Some(log) = &mut self.log {
            log.flag(flag);
        }
    }

    /// The stream is over. `endpoint` is whom it was sent to.
    pub(crate) fn report(self, connection: &ConnectionContext, endpoint: Option<&Arc<EndpointAbout>>) {
        let took = self.started.elapsed();
        let received = self.upload.as_ref().map_or(0, |upload| upload.bytes.get());
        if let Some(log) = self.log {
            log.write(connection, took, received + self.tunnelled, self.code, self.grpc_status);
        }
        let Some(stats) = self.stats else { return };
        let protocol = match (self.is_grpc, self.code) {
            (false, code) => Protocol::Http { code },
            (true, code) => Protocol::Grpc { code, status: self.grpc_status.or_else(|| status_of(code)) },
        };
        let observed = Observed {
            took,
            request_bytes: self.request_head + received,
            response_bytes: self.response_bytes,
            request_messages: self.upload.as_ref().map_or(0, |upload| upload.messages()),
            response_messages: self.response_frames.messages(),
        };
        let (peer, peer_principal, shown) = match (connection.direction, self.peer, endpoint) {
            (Direction::Inbound, peer, _) => {
                let (theirs, shown) = connection.principals();
                (peer, theirs, shown)
            }
            (Direction::Outbound, Peer::Unknown, Some(about)) => {
                (Peer::at(about), self.principal, self.shown)
            }
            (Direction::Outbound, peer, _) => (peer, self.principal, self.shown),
        };
        let dimensions = Dimensions {
            direction: connection.direction,
            protocol,
            flags: self.flags,
            destination: self.destination.unwrap_or_default(),
            peer,
            peer_principal,
            shown,
            config: stats,
        };
        connection.pod.series.observe(dimensions, observed);
    }
}

/// As HTTP/1.1 writes headers.
fn size(headers: &HeaderMap) -> u64 {
    let one = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
    headers.iter().map(one).sum::<usize>() as u64
}

/// What a status of HTTP stands for where gRPC's is missing (gRPC, "HTTP to gRPC Status Code Mapping").
fn status_of(code: u16) -> Option<u16> {
    match code {
        0 => None,
        400 => Some(13),
        401 => Some(16),
        403 => Some(7),
        404 => Some(12),
        429 | 502..=504 => Some(14),
        _ => Some(2),
    }
}
