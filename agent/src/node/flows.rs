//! `orlop flows`: what becomes of connections, told line by line to whoever watches.
//!
//! The kernel tells the node task while somebody watches, and it names the workload, the service and the reason. A watcher
//! that does not keep up misses lines, and is told how many.

use std::fmt;

use orlop_datapath::{Flow, Flows};
use orlop_plan::compile::explain as explain_in;
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::flow_line::{Line, Missed};
use super::workload::Stage;
use super::{Node, explain};
use crate::admin::{Answer, Reply};
use crate::config::WorkloadId;

/// Lines that a watcher may be behind.
const BEHIND: usize = 1024;

/// Who wants to know, and where it comes from.
pub(super) struct FlowWatchers {
    flows: Flows,
    watchers: Vec<Watcher>,
}

struct Watcher {
    /// `None` for all.
    workload: Option<WorkloadId>,
    json: bool,
    lines: mpsc::Sender<String>,
    missed: u64,
}

impl FlowWatchers {
    pub(super) fn new(flows: Flows) -> Self {
        Self { flows, watchers: Vec::new() }
    }

    /// The next ones, also those that came when the last watcher had just gone.
    pub(super) async fn next(&mut self) -> Vec<Flow> {
        match self.flows.next().await {
            Ok(flows) => flows,
            Err(error) => {
                error!(%error, "what becomes of connections cannot be told any more");
                std::future::pending().await
            }
        }
    }
}

impl Watcher {
    fn tell(&mut self, line: &Line<'_>) {
        if self.workload.as_ref().is_some_and(|only| only != line.workload) {
            return;
        }
        if self.missed > 0 && self.lines.try_send(self.format(&Missed { missed: self.missed })).is_ok() {
            self.missed = 0;
        }
        if self.lines.try_send(self.format(line)).is_err() {
            self.missed += 1;
        }
    }

    fn format(&self, line: &(impl fmt::Display + Serialize)) -> String {
        if self.json {
            // Structs of text and numbers always have a JSON form.
            return serde_json::to_string(line).unwrap_or_default();
        }
        line.to_string()
    }
}

impl Node {
    pub(super) fn watch_flows(&mut self, workload: Option<&str>, json: bool) -> Reply {
        let refused = |reason| Reply::Once(Answer::Refused(reason));
        let workload = match workload.map(|name| explain::find(self, name)).transpose() {
            Ok(workload) => workload.map(|workload| workload.spec.id()),
            Err(reason) => return refused(reason),
        };
        if let Err(error) = self.parts.datapath.want_flows(true) {
            return refused(format!("{:#}", anyhow::Error::from(error)));
        }
        let (lines, receiver) = mpsc::channel(BEHIND);
        self.flow_watchers.watchers.push(Watcher { workload, json, lines, missed: 0 });
        Reply::Lines(receiver)
    }

    /// Has the kernel be silent when the last watcher has gone.
    pub(super) fn forget_gone_watchers(&mut self) {
        let watchers = &mut self.flow_watchers.watchers;
        let before = watchers.len();
        watchers.retain(|watcher| !watcher.lines.is_closed());
        if before > 0
            && watchers.is_empty()
            && let Err(error) = self.parts.datapath.want_flows(false)
        {
            let reason = format!("{:#}", anyhow::Error::from(error));
            warn!(%reason, "the kernel goes on telling of connections that nobody watches");
        }
    }

    pub(super) fn tell_of(&mut self, flows: Vec<Flow>) {
        if self.flow_watchers.watchers.is_empty() {
            return;
        }
        for flow in flows {
            let Some(name) = self.parts.datapath.workload_of(&flow) else { continue };
            let Some((id, workload)) = self.workloads.iter().find(|(_, workload)| workload.key() == name)
            else {
                continue;
            };
            let explanation = match &workload.stage {
                Stage::Enrolled(enrolled) if enrolled.plans.ready() => {
                    let to = flow.destination;
                    explain_in(&enrolled.plans, &to.ip().to_string(), to.port()).into_iter().next()
                }
                _ => None,
            };
            let line = Line::new(id, &flow, explanation.as_ref());
            self.flow_watchers.watchers.iter_mut().for_each(|watcher| watcher.tell(&line));
        }
    }
}
