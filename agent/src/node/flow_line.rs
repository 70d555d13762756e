//! One line of `orlop flows`, for people and for programs.

use std::fmt;
use std::net::SocketAddr;

use orlop_datapath::{Ended, Flow, FlowEvent};
use orlop_plan::compile::Explanation;
use orlop_proto::prost_reflect::prost_types::Timestamp;
use serde::Serialize;

use crate::config::WorkloadId;

/// What became of a connection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    /// RFC 3339.
    time: String,
    #[serde(serialize_with = "as_text")]
    pub(super) workload: &'a WorkloadId,
    direction: &'static str,
    /// The name of what is connected to, if the configuration has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    /// What the application named, or for an arrival the pod's own address.
    destination: SocketAddr,
    /// Which endpoint the kernel chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    /// Who comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SocketAddr>,
    /// `kernel`, `proxy`, `direct`; of what goes nowhere `none`.
    path: &'static str,
    verdict: FlowEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    ended: Option<Figures>,
}

/// What went over a connection.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    duration_seconds: f64,
    bytes_sent: u64,
    bytes_received: u64,
    rtt_seconds: f64,
    retransmitted: u32,
}

/// Lines that a watcher was too slow for.
#[derive(Serialize)]
pub(super) struct Missed {
    pub(super) missed: u64,
}

impl<'a> Line<'a> {
    /// `explanation` is what the configuration says of the destination.
    pub(super) fn new(workload: &'a WorkloadId, flow: &Flow, explanation: Option<&'a Explanation>) -> Self {
        let inbound = flow.event.is_inbound();
        Self {
            time: Timestamp::from(flow.at).to_string(),
            workload,
            direction: if inbound { "inbound" } else { "outbound" },
            service: explanation.and_then(service),
            destination: flow.destination,
            endpoint: flow.peer.filter(|_| !inbound),
            source: flow.peer.filter(|_| inbound),
            path: path(flow.event),
            verdict: flow.event,
            reason: explanation.and_then(|explanation| reason(flow, explanation)),
            ended: flow.ended.map(Figures::from),
        }
    }
}

/// Of the destination's names, which are short and long forms of one, the longest.
fn service(explanation: &Explanation) -> Option<&str> {
    let names = explanation.verdict.hosts.iter().map(String::as_str);
    names
        .filter(|name| !name.contains(':') && name.contains(char::is_alphabetic))
        .max_by_key(|name| name.len())
}

fn path(event: FlowEvent) -> &'static str {
    match event {
        FlowEvent::Closed | FlowEvent::Reset | FlowEvent::Unanswered => "kernel",
        FlowEvent::Proxied | FlowEvent::InboundProxied => "proxy",
        FlowEvent::Passed | FlowEvent::FailedOpen | FlowEvent::InboundDirect => "direct",
        FlowEvent::Blocked
        | FlowEvent::Overflowed
        | FlowEvent::FailedFast
        | FlowEvent::InboundDropped
        | FlowEvent::InboundDenied
        | FlowEvent::InboundFailedFast => "none",
    }
}

/// Why, where the configuration is the reason.
fn reason(flow: &Flow, explanation: &Explanation) -> Option<String> {
    let verdict = &explanation.verdict;
    match flow.event {
        FlowEvent::Proxied | FlowEvent::Blocked | FlowEvent::InboundProxied | FlowEvent::InboundDropped => {
            Some(verdict.reason.to_string())
        }
        FlowEvent::InboundDenied => {
            let source = flow.peer?.ip();
            let rules = verdict.sources.iter().filter(|rule| rule.sources.contains(&source));
            rules.max_by_key(|rule| rule.sources.prefix_len()).map(|rule| rule.because.clone())
        }
        _ => None,
    }
}

impl From<Ended> for Figures {
    fn from(ended: Ended) -> Self {
        Self {
            duration_seconds: ended.duration.as_secs_f64(),
            bytes_sent: ended.sent,
            bytes_received: ended.received,
            rtt_seconds: ended.rtt.as_secs_f64(),
            retransmitted: ended.retransmitted,
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.time, self.workload)?;
        match self.source {
            Some(source) => write!(f, "<- {source} at {}", self.destination.port())?,
            None => write!(f, "-> {}", self.destination)?,
        }
        if let Some(service) = self.service {
            write!(f, " ({service})")?;
        }
        if let Some(endpoint) = self.endpoint {
            write!(f, " => {endpoint}")?;
        }
        write!(f, " {}: {}", self.path, self.verdict)?;
        if let Some(reason) = &self.reason {
            write!(f, ", {reason}")?;
        }
        if let Some(Figures { duration_seconds, bytes_sent, bytes_received, rtt_seconds, retransmitted }) =
            &self.ended
        {
            write!(f, ", {duration_seconds:.3} s, {bytes_sent} B sent, {bytes_received} B received")?;
            write!(f, ", round trip {:.3} ms, {retransmitted} segments sent again", rtt_seconds * 1e3)?;
        }
        Ok(())
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines missed: they came faster than they were taken", self.missed)
    }
}

fn as_text<T: fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
