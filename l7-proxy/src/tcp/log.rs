//! The access log of a connection that the TCP proxy carries, or would have carried.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use orlop_plan::resource::access_log::AccessLog;
use orlop_plan::resource::tcp_proxy::TcpProxy;

use crate::access_log;
use crate::http::{End, FormatContext};
use crate::pod::ConnectionContext;
use crate::stats::ResponseFlag;

/// What is noted of one connection. Dropped when it is over, which writes the lines.
pub(super) struct ConnectionLog {
    cx: Rc<ConnectionContext>,
    config: Arc<TcpProxy>,
    began: SystemTime,
    started: Instant,
    flags: Vec<ResponseFlag>,
    /// The cluster that was chosen.
    pub(super) cluster: Option<Arc<str>>,
    /// The host that was tried last.
    pub(super) upstream: Option<SocketAddr>,
    /// This side of the connection to it.
    pub(super) upstream_local: Option<SocketAddr>,
    /// Why there is none.
    pub(super) transport_failure: String,
    attempts: u32,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl ConnectionLog {
    /// Of a connection that begins, where the TCP proxy has logs.
    pub(super) fn new(config: &Arc<TcpProxy>, cx: &Rc<ConnectionContext>) -> Option<Box<Self>> {
        if config.access_logs.is_empty() {
            return None;
        }
        Some(Box::new(Self {
            cx: Rc::clone(cx),
            config: Arc::clone(config),
            began: SystemTime::now(),
            started: Instant::now(),
            flags: Vec::new(),
            cluster: None,
            upstream: None,
            upstream_local: None,
            transport_failure: String::new(),
            attempts: 0,
            received: Cell::new(0),
            sent: Cell::new(0),
        }))
    }

    /// Another host is tried.
    pub(super) fn tries(&mut self, host: SocketAddr) {
        self.upstream = Some(host);
        self.attempts += 1;
    }

    /// Something went wrong.
    pub(super) fn flag(&mut self, flags: &[ResponseFlag]) {
        self.flags.extend_from_slice(flags);
    }

    /// Bytes went over it: from the client, and to the client.
    pub(super) fn moved(&self, received: u64, sent: u64) {
        self.received.set(self.received.get() + received);
        self.sent.set(self.sent.get() + sent);
    }
}

impl Drop for ConnectionLog {
    fn drop(&mut self) {
        let end = End {
            took: self.started.elapsed(),
            received: self.received.get(),
            sent: self.sent.get(),
            transport_failure: &self.transport_failure,
            upstream_local: self.upstream_local,
            attempts: self.attempts,
            ..End::of(&self.cx, self.began)
        };
        let context = FormatContext {
            cluster: self.cluster.as_deref(),
            upstream: self.upstream,
            flags: &self.flags,
            end: Some(&end),
            ..FormatContext::of(&self.cx)
        };
        access_log::write(&self.config.access_logs, &context, &self.cx.pod);
    }
}

/// Writes of a connection that was turned away at once, for these reasons in Envoy's words.
pub(crate) fn turned_away(
    logs: &[AccessLog],
    cx: &ConnectionContext,
    flags: &[ResponseFlag],
    (response_code_details, connection_termination_details): (&str, &str),
) {
    let end = End { response_code_details, connection_termination_details, ..End::of(cx, SystemTime::now()) };
    let context = FormatContext { flags, end: Some(&end), ..FormatContext::of(cx) };
    access_log::write(logs, &context, &cx.pod);
}
