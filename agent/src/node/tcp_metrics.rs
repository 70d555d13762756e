//! Istio's metrics of TCP for connections that the kernel balanced, from the kernel's own counts.
//!
//! The kernel counts by frontend and endpoint; here that becomes sums by what the configuration says of both when they are
//! asked for. A sum only grows, also when the way that it comes from is forgotten. As Istio's, with two differences: bytes
//! are counted when a connection is over, and what a peer would tell of itself (its principal, its labels) is unknown.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use orlop_datapath::WayTraffic;
use orlop_l7_proxy::telemetry::{Peer, PeerMetadata};
use orlop_plan::compile::{Plans, peer};
use orlop_plan::kernel::Frontend;

use super::istio_labels::{End, Ends, Labels, Service, UNKNOWN};
use super::proxy_metrics::{Metrics, Sum, add_one};

/// What of connections with the same labels is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct TcpSums {
    /// `istio_tcp_connections_opened_total`
    opened: u64,
    /// `istio_tcp_connections_closed_total`
    closed: u64,
    /// `istio_tcp_sent_bytes_total`: bytes to the client, as Istio counts.
    sent: u64,
    /// `istio_tcp_received_bytes_total`: bytes from the client.
    received: u64,
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

    /// Adds every sum under its labels.
    pub(super) fn add_to(&self, metrics: &mut Metrics) {
        for (labels, sums) in &self.sums {
            for (metric, value) in [
                ("tcp_connections_opened_total", sums.opened),
                ("tcp_connections_closed_total", sums.closed),
                ("tcp_sent_bytes_total", sums.sent),
                ("tcp_received_bytes_total", sums.received),
            ] {
                add_one(metrics, metric, labels.clone(), Sum::Counter(value));
            }
        }
    }
}

impl TcpSums {
    /// Istio names directions as the server sees them.
    fn of(way: &WayTraffic) -> Self {
        Self { opened: way.opened, closed: way.closed, sent: way.received, received: way.sent }
    }
}

/// The labels of connections to an endpoint; `None` where the configuration does not know the endpoint.
pub(super) fn labels(
    own: &PeerMetadata,
    plans: &Plans,
    frontend: Frontend,
    endpoint: SocketAddr,
) -> Option<Labels> {
    let peer = peer(plans, frontend, endpoint)?;
    let service = peer.service.map_or_else(Service::default, |service| Service {
        host: service.host.clone(),
        name: service.name.clone(),
        namespace: service.namespace.clone(),
    });
    let ends = Ends {
        is_source: true,
        own: End::own(own.clone(), None),
        peer: End::peer(&Peer::Endpoint(Arc::clone(peer.about)), None),
        service,
    };
    Some(ends.labels([
        ("request_protocol", "tcp".to_owned()),
        ("response_flags", "-".to_owned()),
        ("connection_security_policy", UNKNOWN.to_owned()),
    ]))
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
        let [sums] = metrics.sums.values().collect::<Vec<_>>()[..] else { panic!("one service") };
        assert_eq!(*sums, TcpSums { opened: 4, closed: 4, sent: 14, received: 45 });
    }

    #[test]
    fn what_an_endpoint_was_holds_when_the_configuration_has_lost_it() {
        let mut metrics = TcpMetrics::default();
        metrics.follow(&[way(1, 10)], named("a"));
        metrics.follow(&[way(2, 20)], |_, _| None);
        assert_eq!(metrics.sums.len(), 1);
    }
}
