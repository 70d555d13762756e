//! Istio's metrics of TCP for connections that the kernel balanced, from the kernel's own counts.
//!
//! The kernel counts by frontend and endpoint; here that becomes sums by what the configuration says of both when they are
//! asked for. A sum only grows, also when the way that it comes from is forgotten. As Istio's, with two differences: bytes
//! are counted when a connection is over, and what a peer would tell of itself (its principal, its labels) is unknown.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use orlop_datapath::WayTraffic;
use orlop_plan::compile::{Plans, peer};
use orlop_plan::kernel::Frontend;

use crate::config::{Node, Workload};

/// Names and values, in Istio's order.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// The value of a label of which nothing is known, as Istio has it.
const UNKNOWN: &str = "unknown";

/// What of connections with the same labels is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TcpSums {
    /// `istio_tcp_connections_opened_total`
    pub(crate) opened: u64,
    /// `istio_tcp_connections_closed_total`
    pub(crate) closed: u64,
    /// `istio_tcp_sent_bytes_total`: bytes to the client, as Istio counts.
    pub(crate) sent: u64,
    /// `istio_tcp_received_bytes_total`: bytes from the client.
    pub(crate) received: u64,
}

/// One workload's sums.
#[derive(Debug, Default)]
pub(crate) struct TcpMetrics {
    ways: HashMap<(Frontend, SocketAddr), Way>,
    sums: BTreeMap<Labels, TcpSums>,
}

/// What is known of a way already.
#[derive(Debug)]
struct Way {
    labels: Labels,
    counted: TcpSums,
}

impl TcpMetrics {
    /// Adds what the ways have grown by. `labels` is asked for each; where it does not know any more, what it said last holds.
    pub(crate) fn follow(
        &mut self,
        ways: &[WayTraffic],
        labels: impl Fn(Frontend, SocketAddr) -> Option<Labels>,
    ) {
        for way in ways {
            let said = labels(way.frontend, way.endpoint);
            let known = self
                .ways
                .entry((way.frontend, way.endpoint))
                .or_insert_with(|| Way { labels: Vec::new(), counted: TcpSums::default() });
            if let Some(said) = said {
                known.labels = said;
            }
            let (now, before) = (TcpSums::of(way), known.counted);
            let sum = self.sums.entry(known.labels.clone()).or_default();
            sum.opened += now.opened.saturating_sub(before.opened);
            sum.closed += now.closed.saturating_sub(before.closed);
            sum.sent += now.sent.saturating_sub(before.sent);
            sum.received += now.received.saturating_sub(before.received);
            known.counted = now;
        }
    }

    /// The kernel counts this way no longer, or from zero.
    pub(crate) fn forget(&mut self, way: &WayTraffic) {
        self.ways.remove(&(way.frontend, way.endpoint));
    }

    /// Every sum by its labels.
    pub(crate) fn sums(&self) -> Vec<(Labels, TcpSums)> {
        self.sums.iter().map(|(labels, sums)| (labels.clone(), *sums)).collect()
    }
}

impl TcpSums {
    /// Istio names directions as the server sees them.
    fn of(way: &WayTraffic) -> Self {
        Self { opened: way.opened, closed: way.closed, sent: way.received, received: way.sent }
    }
}

/// The labels of connections from a workload to an endpoint; `None` where the configuration does not know the endpoint.
pub(crate) fn labels(
    node: &Node,
    spec: &Workload,
    plans: &Plans,
    frontend: Frontend,
    endpoint: SocketAddr,
) -> Option<Labels> {
    let peer = peer(plans, frontend, endpoint)?;
    let mut destination =
        peer.about.workload.split(';').map(|part| Some(part).filter(|part| !part.is_empty()));
    let mut part = || destination.next().flatten().unwrap_or(UNKNOWN).to_owned();
    let (workload, namespace, service, revision, cluster) = (part(), part(), part(), part(), part());
    let label = |names: &[&str]| names.iter().find_map(|name| spec.labels.get(*name)).map(String::as_str);
    let own = |names: &[&str], otherwise: &str| label(names).unwrap_or(otherwise).to_owned();
    let to = peer.service;
    let text = |text: Option<&String>| {
        text.filter(|text| !text.is_empty()).map_or(UNKNOWN, String::as_str).to_owned()
    };
    Some(vec![
        ("reporter", "source".to_owned()),
        ("source_workload", spec.name.clone()),
        (
            "source_canonical_service",
            own(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"], &spec.name),
        ),
        (
            "source_canonical_revision",
            own(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"], "latest"),
        ),
        ("source_workload_namespace", spec.namespace.clone()),
        ("source_principal", UNKNOWN.to_owned()),
        ("source_app", own(&["app"], UNKNOWN)),
        ("source_version", own(&["version"], UNKNOWN)),
        ("source_cluster", node.cluster.clone()),
        ("destination_workload", workload),
        ("destination_workload_namespace", namespace),
        ("destination_principal", UNKNOWN.to_owned()),
        ("destination_app", UNKNOWN.to_owned()),
        ("destination_version", UNKNOWN.to_owned()),
        ("destination_service", text(to.map(|service| &service.host))),
        ("destination_canonical_service", service),
        ("destination_canonical_revision", revision),
        ("destination_service_name", text(to.map(|service| &service.name))),
        ("destination_service_namespace", text(to.map(|service| &service.namespace))),
        ("destination_cluster", cluster),
        ("request_protocol", "tcp".to_owned()),
        ("response_flags", "-".to_owned()),
        ("connection_security_policy", UNKNOWN.to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Frontend = Frontend { addr: None, port: 80 };

    fn way(opened: u64, sent: u64) -> WayTraffic {
        let endpoint = SocketAddr::from(([10, 0, 0, 1], 80));
        WayTraffic { frontend: VIP, endpoint, opened, closed: opened, sent, received: 7, retransmitted: 0 }
    }

    fn named(name: &str) -> impl Fn(Frontend, SocketAddr) -> Option<Labels> {
        move |_, _| Some(vec![("destination_service", name.to_owned())])
    }

    #[test]
    fn a_sum_grows_by_what_its_ways_grow_and_stays_when_they_are_forgotten() {
        let mut metrics = TcpMetrics::default();
        metrics.follow(&[way(1, 10)], named("a"));
        metrics.follow(&[way(3, 40)], named("a"));
        metrics.forget(&way(3, 40));
        metrics.follow(&[way(1, 5)], named("a"));
        let [(_, sums)] = &metrics.sums()[..] else { panic!("one service") };
        assert_eq!(*sums, TcpSums { opened: 4, closed: 4, sent: 14, received: 45 });
    }

    #[test]
    fn what_an_endpoint_was_holds_when_the_configuration_has_lost_it() {
        let mut metrics = TcpMetrics::default();
        metrics.follow(&[way(1, 10)], named("a"));
        metrics.follow(&[way(2, 20)], |_, _| None);
        assert_eq!(metrics.sums().len(), 1);
    }
}
