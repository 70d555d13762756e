//! `orlop status`: the node as it is now, for a program and for a person.

use std::collections::BTreeMap;
use std::fmt::Write;

use orlop_datapath::{MapUsage, WorkloadCounters};
use orlop_dns::DnsCounters;
use orlop_l7_proxy::stats::PodStats;
use orlop_xds_client::StreamStatus;
use serde::Serialize;

use super::identity::{Standing, WorkloadIdentity};
use super::work::{Work, WorkDone};
use super::workload::{Stage, Workload};
use super::{Node, NodePods, Parts};
use crate::admin::Answer;
use crate::last_good::LastGoodStatus;
use crate::privilege::{ThreadGroup, thread_groups};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    node: String,
    control_plane: String,
    /// Every workload is ready, and node.yaml is in force as it stands.
    ready: bool,
    /// Why the newest node.yaml is not in force.
    config_error: Option<String>,
    /// Pods that are to be carried and cannot be, with the reason.
    not_carried: BTreeMap<String, String>,
    /// Why probes are treated as anybody's connections.
    probe_problem: Option<String>,
    /// What keeps the agent from knowing this node's pods, or from labelling them.
    pod_problems: Vec<String>,
    workloads: Vec<WorkloadStatus>,
    maps: Vec<MapUsage>,
    last_good: LastGoodStatus,
    /// What the agent's threads may do.
    threads: Vec<ThreadGroup>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadStatus {
    name: String,
    namespace: String,
    ready: bool,
    /// Why it is not carried, or not by the newest plan.
    problem: Option<String>,
    /// Why there is no admin interface inside the pod.
    admin_problem: Option<String>,
    /// Why its DNS is not answered though it is asked for.
    dns_problem: Option<String>,
    /// Accepted resources that wait for others.
    held: Vec<String>,
    /// Resources whose newest version was refused, and why.
    rejected: Vec<String>,
    /// Routes of accepted resources that answer 503 because of what they ask for.
    refused_routes: Vec<String>,
    /// Fields that are accepted and have no effect yet, with the number of places.
    without_effect: Vec<String>,
    /// By what it shows its peers who it is; none where the node keeps no certificates.
    identity: Option<Standing>,
    xds: Option<StreamStatus>,
    /// What its pushes cost.
    work: Option<WorkDone>,
    kernel: Option<WorkloadCounters>,
    proxy: Option<PodStats>,
    /// What became of its questions to resolvers; none where they are left alone.
    dns: Option<DnsCounters>,
}

pub(super) fn status(node: &Node, json: bool) -> Answer {
    let status = collect(node);
    if json {
        return match serde_json::to_string_pretty(&status) {
            Ok(text) => Answer::Done(text),
            Err(error) => Answer::Refused(error.to_string()),
        };
    }
    Answer::Done(status.for_a_person())
}

fn collect(node: &Node) -> Status {
    let workloads: Vec<_> = node.workloads.values().map(|w| workload(w, &node.parts)).collect();
    let pods = node.pods.iter();
    let not_carried = pods.clone().flat_map(|pods| &pods.newest.not_carried);
    Status {
        node: node.config.node.name.as_str().to_owned(),
        control_plane: node.config.control_plane.to_string(),
        ready: node.config_error.is_none() && workloads.iter().all(|w| w.ready),
        config_error: node.config_error.clone(),
        not_carried: not_carried.map(|(id, reason)| (id.to_string(), reason.clone())).collect(),
        probe_problem: node.prober.problem().map(str::to_owned),
        pod_problems: pods.flat_map(NodePods::problems).collect(),
        workloads,
        maps: node.parts.datapath.usage(),
        last_good: node.parts.last_good.status(),
        threads: thread_groups().unwrap_or_default(),
    }
}

fn workload(workload: &Workload, parts: &Parts) -> WorkloadStatus {
    let key = workload.key();
    let mut status = WorkloadStatus {
        name: workload.spec.name.clone(),
        namespace: workload.spec.namespace.clone(),
        ready: workload.is_ready(),
        problem: None,
        admin_problem: None,
        dns_problem: None,
        held: Vec::new(),
        rejected: Vec::new(),
        refused_routes: Vec::new(),
        without_effect: Vec::new(),
        identity: None,
        xds: None,
        work: None,
        kernel: parts.datapath.counters(&key).ok(),
        proxy: parts.proxy.stats(&key),
        dns: None,
    };
    match &workload.stage {
        Stage::Waiting(reason) => status.problem = Some(reason.clone()),
        Stage::Enrolled(enrolled) => {
            status.problem.clone_from(&enrolled.apply_error);
            status.admin_problem = enrolled.admin_problem();
            status.dns_problem = enrolled.dns_problem();
            status.dns = enrolled.dns_counters();
            status.held = enrolled.plans.held().iter().map(ToString::to_string).collect();
            status.rejected = enrolled
                .snapshot()
                .rejections()
                .iter()
                .map(|((kind, _), rejection)| format!("{kind} {}", rejection.error))
                .collect();
            let refused_routes = enrolled.snapshot().refused_routes();
            status.refused_routes =
                refused_routes.map(|(kind, name, refused)| format!("{kind} {name}: {refused}")).collect();
            status.refused_routes.sort();
            status.without_effect =
                enrolled.snapshot().without_effect().iter().map(ToString::to_string).collect();
            let annotations = workload.spec.annotations.without_effect.iter();
            status.without_effect.extend(annotations.map(|field| format!("annotation {field}")));
            status.identity = enrolled.identity().map(WorkloadIdentity::standing);
            status.xds = Some(enrolled.xds());
            status.work = Some(enrolled.work);
        }
    }
    status
}

impl Status {
    fn for_a_person(&self) -> String {
        let mut out = String::new();
        let ready = self.workloads.iter().filter(|w| w.ready).count();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "node {}   control plane {}   {ready} of {} workloads ready",
            self.node,
            self.control_plane,
            self.workloads.len()
        );
        if let Some(error) = &self.config_error {
            let _ = writeln!(out, "node.yaml is not in force: {error}");
        }
        for problem in &self.pod_problems {
            let _ = writeln!(out, "cluster: {problem}");
        }
        if let Some(problem) = &self.probe_problem {
            let _ = writeln!(out, "probes are treated as anybody's connections: {problem}");
        }
        if let Some(problem) = &self.last_good.problem {
            let _ = writeln!(out, "last good configuration: {problem}");
        }
        let _ = writeln!(
            out,
            "\n{:<32} {:<8} {:>9} {:>9} {:>8} {:>9} {:>8}  {:>9} {:>8} {:>7}",
            "WORKLOAD",
            "STATE",
            "KERNEL",
            "PROXIED",
            "BLOCKED",
            "REFUSED",
            "PASSED",
            "INBOUND",
            "REQUESTS",
            "ERRORS"
        );
        for w in &self.workloads {
            w.write_row(&mut out);
        }
        for w in &self.workloads {
            w.write_problems(&mut out);
        }
        for (name, reason) in &self.not_carried {
            let _ = writeln!(out, "\n{name}: not carried: {reason}");
        }
        let done = || self.workloads.iter().filter_map(|w| w.work);
        let mut total = Work::default();
        done().for_each(|done| total.add(done.total));
        let _ = writeln!(out, "\npushes {}: {total}", done().map(|done| done.pushes).sum::<usize>());
        out.push_str("\nmaps  ");
        for map in &self.maps {
            let _ = write!(out, " {} {}/{}", map.map, map.used, map.capacity);
        }
        for group in &self.threads {
            let _ = write!(out, "\nthreads {group}");
        }
        out
    }
}

impl WorkloadStatus {
    fn write_row(&self, out: &mut String) {
        let state = if self.ready {
            "ready"
        } else if self.xds.is_some() {
            "warming"
        } else {
            "waiting"
        };
        let kernel = self.kernel.unwrap_or_default();
        let requests = |classes: &[&str]| -> u64 {
            let counted = self.proxy.iter().flat_map(|p| &p.requests);
            counted.filter(|(class, _)| classes.contains(class)).map(|(_, n)| n).sum()
        };
        let _ = writeln!(
            out,
            "{:<32} {state:<8} {:>9} {:>9} {:>8} {:>9} {:>8}  {:>9} {:>8} {:>7}",
            format!("{}/{}", self.namespace, self.name),
            kernel.kernel_balanced,
            kernel.proxied,
            kernel.blocked,
            kernel.failed_fast + kernel.overflowed + kernel.inbound_failed_fast,
            kernel.passthrough + kernel.failed_open + kernel.excluded,
            kernel.inbound_direct
                + kernel.inbound_excluded
                + kernel.inbound_probes
                + kernel.inbound_attested
                + kernel.inbound_proxied
                + kernel.inbound_dropped
                + kernel.inbound_denied,
            requests(&["1xx", "2xx", "3xx", "4xx", "5xx"]),
            requests(&["5xx"]),
        );
    }

    fn write_problems(&self, out: &mut String) {
        let name = format!("{}/{}", self.namespace, self.name);
        let mut say = |what: &str, text: &str| {
            let _ = writeln!(out, "\n{name}: {what}{text}");
        };
        if let Some(problem) = &self.problem {
            say("", problem);
        }
        for problem in self.admin_problem.iter().chain(&self.dns_problem) {
            say("", problem);
        }
        let kernel = self.kernel.unwrap_or_default();
        if kernel.inbound_denied + kernel.denied_closed > 0 {
            let (refused, closed) = (kernel.inbound_denied, kernel.denied_closed);
            say("policy: ", &format!("{refused} arrivals refused, {closed} connections closed"));
        }
        if kernel.without_room > 0 {
            let what = "destinations and ports go through the proxy, because maps of the kernel are full";
            say("", &format!("{} {what}", kernel.without_room));
        }
        if let Some(DnsCounters { answered, forwarded, failed, malformed }) = self.dns {
            let direct = kernel.dns_direct;
            say(
                "dns: ",
                &format!(
                    "{answered} answered, {forwarded} forwarded, {failed} failed, {malformed} malformed, {direct} direct"
                ),
            );
        }
        if let Some(identity) = &self.identity {
            say("identity: ", &identity.to_string());
        }
        let lines_lost = self.proxy.as_ref().map_or(0, |proxy| proxy.access_log_lines_lost);
        if lines_lost > 0 {
            say(
                "access log: ",
                &format!("{lines_lost} lines lost, the agent's output is not read fast enough"),
            );
        }
        let spans_dropped = self.proxy.as_ref().map_or(0, |proxy| proxy.spans_dropped);
        if spans_dropped > 0 {
            say("traces: ", &format!("{spans_dropped} spans lost, their collector does not take them"));
        }
        let repaired = self.kernel.unwrap_or_default().repaired;
        if repaired > 0 {
            say("changed by somebody else and put back: ", &format!("{repaired} times"));
        }
        for rejected in &self.rejected {
            say("refused: ", rejected);
        }
        for route in &self.refused_routes {
            say("refused: ", route);
        }
        for field in &self.without_effect {
            say("accepted without effect: ", field);
        }
        for held in &self.held {
            say("held: ", held);
        }
        let Some(xds) = &self.xds else { return };
        if xds.connected_since.is_none() {
            let last = xds.last_error.as_deref().unwrap_or("not yet connected");
            say("no control plane: ", last);
        }
        for file in &xds.files {
            say("", &format!("{}: {}", file.path.display(), file.error));
        }
    }
}
