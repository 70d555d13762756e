//! How stats are written: Envoy's lines, Envoy's JSON, Prometheus' text format.

use std::fmt::Write;

use orlop_l7_proxy::telemetry::{BOUNDS, HistogramStats};
use serde_json::json;

use super::stat::{Kind, Stat};

pub(super) fn text(stats: Vec<Stat>) -> String {
    let mut out = String::new();
    for Stat { name, value, .. } in stats {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

pub(super) fn json(stats: Vec<Stat>) -> String {
    let stats: Vec<_> =
        stats.into_iter().map(|Stat { name, value, .. }| json!({ "name": name, "value": value })).collect();
    json!({ "stats": stats }).to_string()
}

/// All samples of a metric follow its type, as the format demands.
pub(super) fn prometheus(mut stats: Vec<Stat>) -> String {
    stats.sort_by(|a, b| a.metric.cmp(&b.metric).then_with(|| a.labels.cmp(&b.labels)));
    let (mut out, mut metric) = (String::new(), String::new());
    for stat in stats {
        // Writing to a String cannot fail.
        if stat.metric != metric {
            metric.clone_from(&stat.metric);
            let kind = match stat.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(out, "# TYPE {metric} {kind}");
        }
        let labels: Vec<_> =
            stat.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = labels.join(",");
        match &stat.histogram {
            Some(histogram) => buckets(histogram, &metric, &labels, &mut out),
            None => drop(writeln!(out, "{metric}{{{labels}}} {}", stat.value)),
        }
    }
    out
}

/// A bucket has the values of all smaller ones in this format.
fn buckets(histogram: &HistogramStats, metric: &str, labels: &str, out: &mut String) {
    let between = if labels.is_empty() { "" } else { "," };
    let bounds = BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    let mut sum = 0;
    for (bound, count) in bounds.zip(histogram.buckets) {
        sum += count;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{metric}_bucket{{{labels}{between}le=\"{bound}\"}} {sum}");
    }
    let _ = writeln!(out, "{metric}_sum{{{labels}}} {}", histogram.sum);
    let _ = writeln!(out, "{metric}_count{{{labels}}} {sum}");
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Vec<Stat> {
        vec![
            Stat::http_class("inbound_0.0.0.0_8080;", "2xx", 3),
            Stat::cluster(Kind::Counter, "outbound|80||a.b;", "upstream_cx_total", 1),
            Stat::http_class("inbound_0.0.0.0_8080;", "5xx", 4),
            Stat::cluster(Kind::Counter, "odd\"\\:name", "upstream_cx_total", 2),
            Stat::own(Kind::Gauge, "orlop.x", 5),
        ]
    }

    #[test]
    fn lines_have_envoys_names() {
        assert_eq!(
            text(stats()).lines().collect::<Vec<_>>(),
            [
                "http.inbound_0.0.0.0_8080;.downstream_rq_2xx: 3",
                "cluster.outbound|80||a.b;.upstream_cx_total: 1",
                "http.inbound_0.0.0.0_8080;.downstream_rq_5xx: 4",
                "cluster.odd\"\\_name.upstream_cx_total: 2",
                "orlop.x: 5",
            ]
        );
    }

    #[test]
    fn prometheus_has_each_metric_in_one_block_with_escaped_labels() {
        assert_eq!(
            prometheus(stats()).lines().collect::<Vec<_>>(),
            [
                "# TYPE envoy_cluster_upstream_cx_total counter",
                r#"envoy_cluster_upstream_cx_total{envoy_cluster_name="odd\"\\_name"} 2"#,
                r#"envoy_cluster_upstream_cx_total{envoy_cluster_name="outbound|80||a.b"} 1"#,
                "# TYPE envoy_http_downstream_rq_xx counter",
                r#"envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="inbound_0.0.0.0_8080"} 3"#,
                r#"envoy_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix="inbound_0.0.0.0_8080"} 4"#,
                "# TYPE orlop_x gauge",
                "orlop_x{} 5",
            ]
        );
    }
}
