//! What is noted of a stream for access logs and spans beside what metrics ask for, and what becomes of it.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use orlop_plan::resource::http_connection_manager::HttpConnectionManager;

use super::connection_manager::Response;
use super::filter::Tried;
use super::format::{End, FormatContext};
use super::head::RequestHead;
use crate::access_log;
use crate::pod::ConnectionContext;
use crate::stats::ResponseFlag;
use crate::trace::{Finish, StreamTrace};

/// One stream's notes.
#[derive(Debug)]
pub(crate) struct StreamLog {
    config: Arc<HttpConnectionManager>,
    pub(super) began: SystemTime,
    pub(super) request: Option<RequestHead>,
    pub(super) route: String,
    pub(super) cluster: Option<Arc<str>>,
    pub(super) attempts: u32,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) upstream_local: Cell<Option<SocketAddr>>,
    pub(super) transport_failure: String,
    pub(super) details: Cow<'static, str>,
    pub(super) response: HeaderMap,
    pub(super) sent: u64,
    flags: Vec<ResponseFlag>,
    pub(super) grpc_message: String,
    /// Of policies that are tried: those that allow, and those that deny.
    pub(super) tried: [Option<Tried>; 2],
    pub(super) trace: Option<Box<StreamTrace>>,
}

impl StreamLog {
    /// Of a stream that begins, where the connection manager has logs.
    pub(super) fn new(config: &Arc<HttpConnectionManager>) -> Option<Box<Self>> {
        (!config.access_logs.is_empty()).then(|| Self::of(config))
    }

    /// Of a stream that is traced.
    pub(super) fn of(config: &Arc<HttpConnectionManager>) -> Box<Self> {
        Box::new(Self {
            config: Arc::clone(config),
            began: SystemTime::now(),
            request: None,
            route: String::new(),
            cluster: None,
            attempts: 0,
            upstream: None,
            upstream_local: Cell::new(None),
            transport_failure: String::new(),
            details: Cow::Borrowed(""),
            response: HeaderMap::new(),
            sent: 0,
            flags: Vec::new(),
            grpc_message: String::new(),
            tried: [None, None],
            trace: None,
        })
    }

    /// Envoy writes flags in the order in which they were set.
    pub(super) fn flag(&mut self, flag: ResponseFlag) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }

    /// It was no request, and was answered so.
    pub(super) fn malformed(&mut self, response: &Response) {
        self.flag(ResponseFlag::DownstreamProtocolError);
        self.details = Cow::Borrowed("http1.codec_error");
        self.response.clone_from(&response.headers);
        self.sent = response.body.own().len() as u64;
    }

    /// The stream is over. `code` is 0 where there was no response.
    pub(super) fn write(
        mut self,
        connection: &ConnectionContext,
        took: Duration,
        received: u64,
        code: u16,
        grpc: Option<u16>,
    ) {
        let trace = self.trace.take();
        let end = End {
            took,
            received,
            sent: self.sent,
            response_code_details: &self.details,
            transport_failure: &self.transport_failure,
            upstream_local: self.upstream_local.get(),
            attempts: self.attempts,
            response: Some(&self.response),
            route: &self.route,
            ..End::of(connection, self.began)
        };
        let context = FormatContext {
            cluster: self.cluster.as_deref(),
            upstream: self.upstream,
            status: StatusCode::from_u16(code).ok(),
            flags: &self.flags,
            request: self.request.as_ref(),
            end: Some(&end),
            ..FormatContext::of(connection)
        };
        access_log::write(&self.config.access_logs, &context, &connection.pod);
        if let Some(trace) = trace {
            let grpc = grpc.map(|status| (status, self.grpc_message.as_str()));
            trace.finish(&Finish { context: &context, grpc, tried: &self.tried });
        }
    }
}
