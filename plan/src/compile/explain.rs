//! Which destination a connection belongs to, and its verdict.

use std::net::IpAddr;

use serde::Serialize;

use super::Plans;
use crate::classify::{Destination, Verdict};
use crate::kernel::Frontend;

/// One destination and its verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The destination, as text.
    #[serde(serialize_with = "as_text")]
    pub destination: Destination,
    /// Its verdict.
    pub verdict: Verdict,
}

fn as_text<S: serde::Serializer>(value: &Destination, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What happens to connections of the workload to `host:port`, or to connections to the workload where it is one of its own
/// addresses. `host` is an address, or a name that a virtual host or a cluster's service has; a name may stand for several
/// addresses, and one that nothing knows is anywhere else.
pub fn explain(plans: &Plans, host: &str, port: u16) -> Vec<Explanation> {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let served = plans.served();
    let explanation = |destination| Some(Explanation { destination, verdict: served.verdict(destination)? });
    if address.is_some_and(|address| plans.facts.addresses.contains(&address)) {
        let own = served.inbound_ports().contains(&port);
        let destination = if own { Destination::Inbound(port) } else { Destination::InboundElsewhere };
        return explanation(destination).into_iter().collect();
    }
    if address.is_none() {
        let at_port = served.destinations().into_iter().filter(
            |destination| matches!(destination, Destination::Outbound(frontend) if frontend.port == port),
        );
        let named = |explanation: &Explanation| {
            explanation.verdict.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
        };
        let by_name: Vec<_> = at_port.filter_map(explanation).filter(named).collect();
        if !by_name.is_empty() {
            return by_name;
        }
    }
    [
        address.map(|addr| Destination::Outbound(Frontend { addr: Some(addr), port })),
        Some(Destination::Outbound(Frontend { addr: None, port })),
        Some(Destination::OutboundElsewhere),
    ]
    .into_iter()
    .flatten()
    .find_map(explanation)
    .into_iter()
    .collect()
}
