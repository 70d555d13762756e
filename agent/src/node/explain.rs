//! `orlop explain`: which path a connection of a workload takes, and which field decided.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use orlop_plan::classify::{Destination, Path, Reason, SourceRule};
use orlop_plan::compile::{Explanation, explain as explain_in};
use orlop_plan::exclusion::{Annotation, Exclusions};
use orlop_plan::kernel::Frontend;
use serde::Serialize;

use super::Node;
use super::workload::{Stage, Workload};
use crate::admin::Answer;

pub(super) fn explain(node: &Node, name: &str, destination: &str, json: bool) -> Answer {
    match find(node, name).and_then(|workload| ask(workload, destination, json)) {
        Ok(text) => Answer::Done(text),
        Err(reason) => Answer::Refused(reason),
    }
}

/// By NAMESPACE/NAME, or by NAME where only one namespace has it.
pub(super) fn find<'a>(node: &'a Node, name: &str) -> Result<&'a Workload, String> {
    let found: Vec<_> =
        node.workloads.iter().filter(|(id, _)| id.name == name || id.to_string() == name).collect();
    match found.as_slice() {
        [(_, workload)] => Ok(workload),
        [] => {
            let known: Vec<_> = node.workloads.keys().map(ToString::to_string).collect();
            Err(format!("no workload {name} on this node; there are: {}", known.join(", ")))
        }
        several => {
            let ids: Vec<_> = several.iter().map(|(id, _)| id.to_string()).collect();
            Err(format!("several workloads are called {name}; say which: {}", ids.join(", ")))
        }
    }
}

fn ask(workload: &Workload, destination: &str, json: bool) -> Result<String, String> {
    let id = workload.spec.id();
    let plans = match &workload.stage {
        Stage::Waiting(reason) => return Err(format!("{id} is not carried: {reason}")),
        Stage::Enrolled(enrolled) => &enrolled.plans,
    };
    if !plans.ready() {
        return Err(format!("{id} has no complete configuration yet"));
    }
    let (host, port) = destination
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| format!("{destination:?} is not HOST:PORT"))?;
    let exclusions = &workload.spec.annotations.exclusions;
    let taken = |explanation: Explanation| {
        let inbound =
            matches!(explanation.destination, Destination::Inbound(_) | Destination::InboundElsewhere);
        let probed = inbound && exclusions.probed_ports().any(|probed| probed == port);
        let excluded = PathTaken::excluded(exclusions, &explanation, host, port);
        PathTaken { probed, ..excluded.unwrap_or_else(|| explanation.into()) }
    };
    let paths: Vec<_> = explain_in(plans, host, port).into_iter().map(taken).collect();
    let [first, ..] = paths.as_slice() else {
        return Err(format!("the configuration of {id} says nothing of {destination}"));
    };
    if json {
        // The first one stands for all where the host is an address; a name may have several.
        let answer = Answered { workload: id.to_string(), first, all: &paths };
        return serde_json::to_string_pretty(&answer).map_err(|error| error.to_string());
    }
    let lines: Vec<_> = paths.iter().map(|path| format!("{id} {path}")).collect();
    Ok(lines.join("\n"))
}

#[derive(Serialize)]
struct Answered<'a> {
    workload: String,
    #[serde(flatten)]
    first: &'a PathTaken,
    all: &'a [PathTaken],
}

#[derive(Serialize)]
struct PathTaken {
    /// What of the kernel's table takes the connection.
    destination: String,
    path: Path,
    reason: String,
    resource: String,
    field: String,
    /// When HTTP goes through the L7 proxy; none where there is no choice.
    mode: Option<String>,
    /// What is asked for and not done, because of the mode.
    forgone: Vec<String>,
    /// Where policies say who may connect, what becomes of whom.
    sources: Vec<SourceRule>,
    /// The kubelet's probes go straight to the application, whatever else is said.
    probed: bool,
}

impl fmt::Display for PathTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.destination, self.path, self.because())?;
        if let Some(mode) = &self.mode {
            write!(f, "\n    l7: {mode}")?;
        }
        for SourceRule { sources, action, attested, because } in &self.sources {
            write!(f, "\n    from {sources}: {action} ({because})")?;
            if let Some(attested) = attested {
                write!(f, "; {attested} for the workload of this node that has the address")?;
            }
        }
        if self.probed {
            write!(f, "\n    from the kubelet, to probe: direct")?;
        }
        for forgone in &self.forgone {
            write!(f, "\n    forgone: {forgone}")?;
        }
        Ok(())
    }
}

impl PathTaken {
    /// A destination that annotations keep from being taken, whatever the configuration says of it.
    fn excluded(exclusions: &Exclusions, explanation: &Explanation, host: &str, port: u16) -> Option<Self> {
        if let Destination::Inbound(_) | Destination::InboundElsewhere = explanation.destination {
            let annotation = exclusions.inbound(port)?;
            return Some(Self::by_annotation(Destination::Inbound(port), annotation));
        }
        let asked = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let address = match explanation.destination {
            Destination::Outbound(Frontend { addr, .. }) => addr.or(asked),
            _ => asked,
        };
        let to = SocketAddr::new(address?, port);
        let annotation = exclusions.outbound(to)?;
        Some(Self::by_annotation(Destination::Outbound(Frontend { addr: address, port }), annotation))
    }

    fn by_annotation(destination: Destination, annotation: Annotation) -> Self {
        Self {
            destination: destination.to_string(),
            path: Path::Passthrough,
            reason: format!("excluded by annotation {annotation}"),
            resource: "pod".to_owned(),
            field: String::new(),
            mode: None,
            forgone: Vec::new(),
            sources: Vec::new(),
            probed: false,
        }
    }

    fn because(&self) -> String {
        let field = if self.field.is_empty() { String::new() } else { format!(", {}", self.field) };
        format!("{} ({}{field})", self.reason, self.resource)
    }
}

impl From<Explanation> for PathTaken {
    fn from(Explanation { destination, verdict }: Explanation) -> Self {
        let Reason { resource, field, cause } = verdict.reason;
        Self {
            destination: destination.to_string(),
            path: verdict.path,
            reason: cause.to_string(),
            resource,
            field: field.to_string(),
            mode: verdict.mode.as_ref().map(ToString::to_string),
            forgone: verdict.forgone.iter().map(ToString::to_string).collect(),
            sources: verdict.sources,
            probed: false,
        }
    }
}
