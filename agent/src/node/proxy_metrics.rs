//! Istio's metrics of what the proxy carries: its series, with their labels.

use std::collections::BTreeMap;

use orlop_l7_proxy::stats::{Direction, PodStats};
use orlop_l7_proxy::telemetry::{
    Destination, Dimensions, HistogramStats, PeerMetadata, Protocol, SeriesStats,
};

use super::istio_labels::{End, Ends, Labels, Service, UNKNOWN};

/// Metrics, without their prefix `istio_`, by their labels.
pub(crate) type Metrics = BTreeMap<(&'static str, Labels), Sum>;

/// A metric's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sum {
    Counter(u64),
    Histogram(Box<HistogramStats>),
}

/// Adds what the proxy has counted. `own` is the workload, `principal` its identity. Where labels are taken away, what they kept
/// apart comes together.
pub(super) fn add(metrics: &mut Metrics, stats: &PodStats, own: &PeerMetadata, principal: Option<&str>) {
    for (dimensions, sums) in &stats.series {
        let labels = labels(dimensions, own, principal);
        for (metric, sum) in values(dimensions.protocol, sums) {
            if dimensions.config.drops(metric) {
                continue;
            }
            let kept = labels.iter().filter(|(label, _)| !dimensions.config.removes(metric, label));
            let labels: Labels = kept.cloned().collect();
            add_one(metrics, metric, labels, sum);
        }
    }
}

/// Adds to a metric.
pub(super) fn add_one(metrics: &mut Metrics, metric: &'static str, labels: Labels, sum: Sum) {
    let entry = metrics.entry((metric, labels));
    match (entry, sum) {
        (std::collections::btree_map::Entry::Vacant(entry), sum) => drop(entry.insert(sum)),
        (std::collections::btree_map::Entry::Occupied(mut entry), sum) => match (entry.get_mut(), sum) {
            (Sum::Counter(known), Sum::Counter(more)) => *known += more,
            (Sum::Histogram(known), Sum::Histogram(more)) => known.add(&more),
            // A metric is always of one kind.
            (Sum::Counter(_), Sum::Histogram(_)) | (Sum::Histogram(_), Sum::Counter(_)) => {}
        },
    }
}

fn values(protocol: Protocol, sums: &SeriesStats) -> Vec<(&'static str, Sum)> {
    let histogram = |histogram: HistogramStats| Sum::Histogram(Box::new(histogram));
    let mut values = match protocol {
        Protocol::Tcp => vec![
            ("tcp_connections_opened_total", Sum::Counter(sums.opened)),
            ("tcp_connections_closed_total", Sum::Counter(sums.closed)),
            ("tcp_sent_bytes_total", Sum::Counter(sums.sent)),
            ("tcp_received_bytes_total", Sum::Counter(sums.received)),
        ],
        Protocol::Http { .. } | Protocol::Grpc { .. } => vec![
            ("requests_total", Sum::Counter(sums.opened)),
            ("request_duration_milliseconds", histogram(sums.milliseconds)),
            ("request_bytes", histogram(sums.request_bytes)),
            ("response_bytes", histogram(sums.response_bytes)),
        ],
    };
    if matches!(protocol, Protocol::Grpc { .. }) {
        values.extend([
            ("request_messages_total", Sum::Counter(sums.request_messages)),
            ("response_messages_total", Sum::Counter(sums.response_messages)),
        ]);
    }
    values
}

fn labels(dimensions: &Dimensions, own: &PeerMetadata, principal: Option<&str>) -> Labels {
    let Dimensions { direction, protocol, flags, destination, peer, peer_principal, shown, config: _ } =
        dimensions;
    let is_source = *direction == Direction::Outbound;
    let shown = principal.filter(|_| *shown);
    let policy = match (is_source, peer_principal.is_some() && shown.is_some()) {
        // Who calls does not say, as with Istio.
        (true, _) => UNKNOWN,
        (false, true) => "mutual_tls",
        (false, false) => "none",
    };
    let ends = Ends {
        is_source,
        own: End::own(own.clone(), shown.map(ToOwned::to_owned)),
        peer: End::peer(peer, peer_principal.as_deref()),
        service: service(destination),
    };
    let (name, code) = match *protocol {
        Protocol::Http { code } => ("http", Some((code, String::new()))),
        Protocol::Grpc { code, status } => {
            ("grpc", Some((code, status.map(|status| status.to_string()).unwrap_or_default())))
        }
        Protocol::Tcp => ("tcp", None),
    };
    let of_request =
        code.map(|(code, status)| [("response_code", code.to_string()), ("grpc_response_status", status)]);
    let before = [("request_protocol", name.to_owned())];
    let after = [("response_flags", flags.to_string()), ("connection_security_policy", policy.to_owned())];
    ends.labels(before.into_iter().chain(of_request.into_iter().flatten()).chain(after))
}

fn service(destination: &Destination) -> Service {
    let Destination { service, host, catch_all } = destination;
    let host = host.as_deref().unwrap_or_default();
    match service {
        Some(service) => Service {
            host: service.host.clone(),
            name: service.name.clone(),
            namespace: service.namespace.clone(),
        },
        None => Service {
            host: host.to_owned(),
            name: catch_all.as_deref().unwrap_or(host).to_owned(),
            namespace: String::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orlop_l7_proxy::stats::ResponseFlags;
    use orlop_l7_proxy::telemetry::Peer;
    use orlop_plan::resource::telemetry::{IstioStats, MetricOverride};

    use super::*;

    fn request(code: u16, config: IstioStats) -> Dimensions {
        Dimensions {
            direction: Direction::Inbound,
            protocol: Protocol::Http { code },
            flags: ResponseFlags::default(),
            destination: Destination::default(),
            peer: Peer::Unknown,
            peer_principal: Some("spiffe://cluster.local/ns/web/sa/front".into()),
            shown: true,
            config: Arc::new(config),
        }
    }

    fn metrics(series: impl IntoIterator<Item = Dimensions>) -> Metrics {
        let one = SeriesStats { opened: 1, ..SeriesStats::default() };
        let stats = PodStats {
            series: series.into_iter().map(|dimensions| (dimensions, one)).collect(),
            ..PodStats::default()
        };
        let mut metrics = Metrics::default();
        add(&mut metrics, &stats, &PeerMetadata::default(), Some("spiffe://cluster.local/ns/shop/sa/cart"));
        metrics
    }

    fn requests(metrics: &Metrics) -> Vec<(&Labels, &Sum)> {
        let named = metrics.iter().filter(|((metric, _), _)| *metric == "requests_total");
        named.map(|((_, labels), sum)| (labels, sum)).collect()
    }

    #[test]
    fn both_certificates_shown_are_mutual_tls_to_the_destination() {
        let metrics = metrics([request(200, IstioStats::default())]);
        let [(labels, Sum::Counter(1))] = requests(&metrics)[..] else { panic!("{metrics:?}") };
        assert!(labels.contains(&("connection_security_policy", "mutual_tls".to_owned())));
        assert!(
            labels.contains(&("destination_principal", "spiffe://cluster.local/ns/shop/sa/cart".to_owned()))
        );
        assert!(labels.contains(&("response_code", "200".to_owned())));
        assert!(labels.contains(&("response_flags", "-".to_owned())));
    }

    #[test]
    fn what_a_label_kept_apart_comes_together_without_it() {
        let without = MetricOverride {
            name: "requests_total".to_owned(),
            drop: false,
            tags_to_remove: vec!["response_code".to_owned()],
        };
        let config = IstioStats { overrides: vec![without], ..IstioStats::default() };
        let metrics = metrics([request(200, config.clone()), request(404, config)]);
        let [(labels, Sum::Counter(2))] = requests(&metrics)[..] else { panic!("{metrics:?}") };
        assert!(labels.iter().all(|(label, _)| *label != "response_code"));
        let bytes = metrics.keys().filter(|(metric, _)| *metric == "request_bytes").count();
        assert_eq!(bytes, 2, "other metrics keep it");
    }

    #[test]
    fn a_metric_that_is_dropped_is_not_there() {
        let dropped =
            MetricOverride { name: "requests_total".to_owned(), drop: true, tags_to_remove: Vec::new() };
        let metrics =
            metrics([request(200, IstioStats { overrides: vec![dropped], ..IstioStats::default() })]);
        assert_eq!(requests(&metrics), []);
        assert!(!metrics.is_empty());
    }
}
