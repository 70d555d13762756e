//! What lives as long as a stream: from a request's head to the end of its response.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::deadlines::{Deadlines, Expired};
use super::stream_info::StreamInfo;
use super::timer::Timer;
use crate::outlier::Report;
use crate::pod::ConnectionContext;
use crate::stats::ResponseFlag;
use crate::upstream::{Picked, RequestPermit};

/// The client has gone, in Envoy's words.
pub(super) const GONE: &str = "downstream_remote_disconnect";

/// Counts how a stream ends, and holds what it occupies until then. Dropped before its end, the client has gone (`DC`).
pub(crate) struct StreamGuard {
    connection: Rc<ConnectionContext>,
    timer: Rc<Timer>,
    upstream: Option<(Picked, RequestPermit)>,
    /// Where the response's body has any.
    deadlines: Option<Box<Deadlines>>,
    /// A flag that is known already while the response still comes.
    flag: Option<ResponseFlag>,
    /// Where metrics or logs are asked for. Taken when the stream is over.
    info: Option<Box<StreamInfo>>,
    /// Why the last attempt found no connection.
    transport_failure: RefCell<String>,
    finished: bool,
}

impl std::fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamGuard").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl StreamGuard {
    /// A stream begins. `timer` is for its deadlines, and free for the next one's after it.
    pub(crate) fn new(
        connection: Rc<ConnectionContext>,
        timer: Rc<Timer>,
        info: Option<Box<StreamInfo>>,
    ) -> Self {
        Self {
            connection,
            timer,
            upstream: None,
            deadlines: None,
            flag: None,
            info,
            transport_failure: RefCell::default(),
            finished: false,
        }
    }

    /// What is noted of the stream, where anything is.
    pub(crate) fn info(&mut self) -> Option<&mut StreamInfo> {
        self.info.as_deref_mut()
    }

    /// The same, to be read.
    pub(crate) fn notes(&self) -> Option<&StreamInfo> {
        self.info.as_deref()
    }

    /// There is no connection to a host, for this reason, in Envoy's words.
    pub(crate) fn unconnected(&self, reason: String) {
        self.transport_failure.replace(reason);
    }

    /// Why there was no connection to the last host; empty where there was one.
    pub(crate) fn take_transport_failure(&mut self) -> String {
        let reason = self.transport_failure.take();
        self.info().into_iter().for_each(|info| info.unconnected(&reason));
        reason
    }

    /// The connection that it is on.
    pub(crate) fn connection(&self) -> &Rc<ConnectionContext> {
        &self.connection
    }

    /// Its deadlines.
    pub(crate) fn timer(&self) -> &Timer {
        &self.timer
    }

    /// The response comes from there, in this time. `flag` is what is to be counted of it already.
    pub(crate) fn answered_by(
        &mut self,
        picked: Picked,
        permit: RequestPermit,
        flag: Option<ResponseFlag>,
        deadlines: Deadlines,
    ) {
        self.upstream = Some((picked, permit));
        self.flag = flag;
        self.deadlines = deadlines.are_set().then(|| Box::new(deadlines));
    }

    /// Ready once a deadline has passed.
    pub(crate) fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_expired(cx)
    }

    /// Which deadline of the response's body passed.
    pub(crate) fn expired(&self) -> Expired {
        self.deadlines.as_ref().map_or(Expired::Route, |deadlines| deadlines.expired())
    }

    /// Some of the response's body came.
    pub(crate) fn active(&self) {
        if let Some(deadlines) = &self.deadlines {
            deadlines.active(&self.timer);
        }
    }

    /// The host broke its response off.
    pub(crate) fn reset_by_upstream(&self) {
        if let Some((picked, _)) = &self.upstream {
            picked.report(Report::Failed);
        }
    }

    /// The stream has ended.
    pub(crate) fn finish(mut self, flags: impl IntoIterator<Item = ResponseFlag>) {
        self.finished = true;
        for flag in self.flag.into_iter().chain(flags) {
            self.flag(flag);
        }
    }

    fn flag(&mut self, flag: ResponseFlag) {
        self.connection.pod.counters.flag(flag);
        self.note(flag);
    }

    /// What is counted already.
    pub(crate) fn note(&mut self, flag: ResponseFlag) {
        if let Some(info) = self.info() {
            info.flag(flag);
        }
    }

    /// Why the response is as it is, in Envoy's words.
    pub(crate) fn details(&mut self, details: impl Into<Cow<'static, str>>) {
        if let Some(info) = self.info() {
            info.details(details);
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.timer.set(None);
        if !self.finished {
            self.flag(ResponseFlag::DownstreamConnectionTermination);
            self.details(GONE);
        }
        if let Some(info) = self.info.take() {
            let endpoint = self.upstream.as_ref().map(|(picked, _)| &picked.host().endpoint().about);
            info.report(&self.connection, endpoint);
        }
    }
}
