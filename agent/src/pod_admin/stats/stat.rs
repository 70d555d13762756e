//! One number, its name, and its name for Prometheus.

use orlop_l7_proxy::telemetry::HistogramStats;

use crate::node::proxy_metrics::Sum;

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Is many values by their size.
    Histogram,
}

#[derive(Debug, Clone)]
pub(super) struct Stat {
    /// `cluster.outbound|80||web.default.svc.cluster.local;.upstream_cx_total`
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Of a histogram, how many values there were.
    pub(super) value: u64,
    pub(super) histogram: Option<Box<HistogramStats>>,
    /// `envoy_cluster_upstream_cx_total`
    pub(super) metric: String,
    /// What is part of the name, but a label for Prometheus.
    pub(super) labels: Vec<(&'static str, String)>,
}

impl Stat {
    /// A stat of Envoy's without labels.
    pub(super) fn envoy(kind: Kind, name: &str, value: u64) -> Self {
        let metric = metric(&format!("envoy.{name}"));
        Self { name: name.to_owned(), kind, value, histogram: None, metric, labels: Vec::new() }
    }

    /// A stat that Envoy does not have; `name` begins with `orlop.`.
    pub(super) fn own(kind: Kind, name: &str, value: u64) -> Self {
        Self { name: name.to_owned(), kind, value, histogram: None, metric: metric(name), labels: Vec::new() }
    }

    /// One of Istio's metrics; in Envoy's own names its labels are part of the name.
    pub(super) fn istio(name: &str, labels: &[(&'static str, String)], sum: &Sum) -> Self {
        let metric = format!("istio_{name}");
        let named: Vec<_> = labels.iter().map(|(label, value)| format!("{label}.{value}")).collect();
        let name = clean(&format!("istiocustom.{metric}.{}", named.join(".")));
        let (kind, value, histogram) = match sum {
            Sum::Counter(value) => (Kind::Counter, *value, None),
            Sum::Histogram(histogram) => (Kind::Histogram, histogram.count(), Some(histogram.clone())),
        };
        Self { name, kind, value, histogram, metric, labels: labels.to_vec() }
    }

    /// A stat of `cluster`, by its observability name.
    pub(super) fn cluster(kind: Kind, cluster: &str, name: &str, value: u64) -> Self {
        Self {
            name: format!("cluster.{}.{name}", clean(cluster)),
            kind,
            value,
            histogram: None,
            metric: metric(&format!("envoy.cluster.{name}")),
            labels: vec![("envoy_cluster_name", label(cluster))],
        }
    }

    /// A stat of the connection managers with this `stat_prefix`.
    pub(super) fn http(kind: Kind, prefix: &str, name: &str, value: u64) -> Self {
        Self {
            name: format!("http.{}.{name}", clean(prefix)),
            kind,
            value,
            histogram: None,
            metric: metric(&format!("envoy.http.{name}")),
            labels: vec![("envoy_http_conn_manager_prefix", label(prefix))],
        }
    }

    /// A counter of the local rate limits with this `stat_prefix`.
    pub(super) fn local_rate_limit(prefix: &str, name: &str, value: u64) -> Self {
        Self {
            name: format!("{}.http_local_rate_limit.{name}", clean(prefix)),
            kind: Kind::Counter,
            value,
            histogram: None,
            metric: metric(&format!("envoy.http_local_rate_limit.{name}")),
            labels: vec![("envoy_local_http_ratelimit_prefix", label(prefix))],
        }
    }

    /// The answers of one class, `2xx`, of those connection managers.
    pub(super) fn http_class(prefix: &str, class: &str, value: u64) -> Self {
        let mut stat = Self::http(Kind::Counter, prefix, &format!("downstream_rq_{class}"), value);
        "envoy_http_downstream_rq_xx".clone_into(&mut stat.metric);
        stat.labels.insert(0, ("envoy_response_code_class", class.trim_end_matches('x').to_owned()));
        stat
    }
}

/// As Envoy cleans a name that it was given (`Stats::Utility::sanitizeStatsName`).
fn clean(name: &str) -> String {
    name.replace([':', '\0'], "_")
}

/// Istio ends the names that it gives by a semicolon, so that its own rules find the end; it is no part of the label.
fn label(name: &str) -> String {
    clean(name.strip_suffix(';').unwrap_or(name))
}

fn metric(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(allowed).collect()
}
