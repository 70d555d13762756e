//! Which stats there are.

use std::collections::BTreeMap;
use std::time::Duration;

use orlop_l7_proxy::stats::PodStats;
use orlop_plan::snapshot::ResourceType;
use orlop_xds_client::StreamStatus;
use serde::Serialize;
use serde_json::Value as Json;

use super::stat::{Kind, Stat};
use crate::pod_admin::envoy_json::observability_name;
use crate::pod_admin::view::{Figures, Resources, ServerState};

/// By name, as Envoy sorts them.
pub(super) fn stats(figures: &Figures, uptime: Duration) -> Vec<Stat> {
    let mut stats = Vec::new();
    server(figures, uptime, &mut stats);
    managers(&figures.resources, &mut stats);
    streams(&figures.resources.stream, &mut stats);
    if let Some(proxy) = &figures.proxy {
        clusters(&figures.resources, proxy, &mut stats);
        outliers(&figures.resources, &mut stats);
        names(&figures.resources, &mut stats);
        http(proxy, &mut stats);
        own("proxy", &Proxy::from(proxy), &mut stats);
    }
    stats.extend(figures.istio.iter().map(|((name, labels), sum)| Stat::istio(name, labels, sum)));
    if let Some(kernel) = &figures.kernel {
        own("kernel", kernel, &mut stats);
    }
    stats.sort_by(|a, b| a.name.cmp(&b.name));
    stats
}

fn server(figures: &Figures, uptime: Duration, stats: &mut Vec<Stat>) {
    // `ServerInfo.State` by its number.
    let number = match figures.state {
        ServerState::Live => 0,
        ServerState::PreInitializing => 2,
        ServerState::Initializing => 3,
    };
    let connections = figures.proxy.as_ref().map_or(0, |proxy| proxy.active);
    stats.extend([
        Stat::envoy(Kind::Gauge, "server.live", u64::from(figures.state == ServerState::Live)),
        Stat::envoy(Kind::Gauge, "server.state", number),
        Stat::envoy(Kind::Gauge, "server.uptime", uptime.as_secs()),
        Stat::envoy(Kind::Gauge, "server.total_connections", connections),
    ]);
}

fn managers(resources: &Resources, stats: &mut Vec<Stat>) {
    let held = |kind| resources.held.iter().filter(|held| held.resource_type == kind).count();
    let mut count = |kind, accepted: usize, active, warming| {
        let held = held(kind);
        stats.push(Stat::envoy(Kind::Gauge, active, number(accepted.saturating_sub(held))));
        stats.push(Stat::envoy(Kind::Gauge, warming, number(held)));
    };
    count(
        ResourceType::Cluster,
        resources.clusters.len(),
        "cluster_manager.active_clusters",
        "cluster_manager.warming_clusters",
    );
    count(
        ResourceType::Listener,
        resources.listeners.len(),
        "listener_manager.total_listeners_active",
        "listener_manager.total_listeners_warming",
    );
}

/// Envoy counts updates of clusters and listeners by type as well, the others by resource.
fn streams(stream: &StreamStatus, stats: &mut Vec<Stat>) {
    let connected = u64::from(stream.connected_since.is_some());
    stats.push(Stat::envoy(Kind::Gauge, "control_plane.connected_state", connected));
    for (kind, status) in &stream.types {
        let (prefix, make): (_, fn(Kind, &str, u64) -> Stat) = match kind {
            ResourceType::Cluster => ("cluster_manager.cds", Stat::envoy),
            ResourceType::Listener => ("listener_manager.lds", Stat::envoy),
            ResourceType::ClusterLoadAssignment => ("orlop.xds.eds", Stat::own),
            ResourceType::RouteConfiguration => ("orlop.xds.rds", Stat::own),
            ResourceType::Secret => ("orlop.xds.sds", Stat::own),
            ResourceType::ExtensionConfig => ("orlop.xds.ecds", Stat::own),
            ResourceType::NameTable => ("orlop.xds.nds", Stat::own),
            ResourceType::ProxyConfig => ("orlop.xds.pcds", Stat::own),
        };
        stats.push(make(Kind::Counter, &format!("{prefix}.update_success"), status.acked));
        stats.push(make(Kind::Counter, &format!("{prefix}.update_rejected"), status.nacked));
    }
}

/// Clusters that were used; several may share a name in statistics.
fn clusters(resources: &Resources, proxy: &PodStats, stats: &mut Vec<Stat>) {
    let mut by_name = BTreeMap::new();
    for (name, counted) in &proxy.clusters {
        let stored = resources.cluster(name);
        let sums: &mut [u64; 4] =
            by_name.entry(stored.map_or_else(|| name.clone(), observability_name)).or_default();
        let counted = [counted.connections, counted.connect_failures, counted.active, counted.requests];
        for (sum, value) in sums.iter_mut().zip(counted) {
            *sum += value;
        }
    }
    for (name, [connections, connect_failures, active, requests]) in by_name {
        stats.extend([
            Stat::cluster(Kind::Counter, &name, "upstream_cx_total", connections),
            Stat::cluster(Kind::Counter, &name, "upstream_cx_connect_fail", connect_failures),
            Stat::cluster(Kind::Gauge, &name, "upstream_cx_active", active),
            Stat::cluster(Kind::Counter, &name, "upstream_rq_total", requests),
        ]);
    }
}

/// Of clusters that detect outliers.
fn outliers(resources: &Resources, stats: &mut Vec<Stat>) {
    for (cluster, found) in &resources.outliers {
        let cluster = resources.cluster(cluster).map_or_else(|| cluster.clone(), observability_name);
        let mut add = |kind, name: &str, value| {
            stats.push(Stat::cluster(kind, &cluster, &format!("outlier_detection.ejections_{name}"), value));
        };
        add(Kind::Gauge, "active", found.ejections_active);
        add(Kind::Counter, "enforced_total", found.ejections_enforced_total);
        add(Kind::Counter, "overflow", found.ejections_overflow);
        for (reason, times) in &found.ejections_detected {
            add(Kind::Counter, &format!("detected_{reason}"), *times);
        }
        for (reason, times) in &found.ejections_enforced {
            add(Kind::Counter, &format!("enforced_{reason}"), *times);
        }
    }
}

/// Of clusters whose endpoints have names.
fn names(resources: &Resources, stats: &mut Vec<Stat>) {
    for (cluster, counted) in &resources.dns {
        let cluster = resources.cluster(cluster).map_or_else(|| cluster.clone(), observability_name);
        let counters =
            [("update_attempt", counted.update_attempt), ("update_failure", counted.update_failure)];
        stats.extend(counters.map(|(name, value)| Stat::cluster(Kind::Counter, &cluster, name, value)));
    }
}

fn http(proxy: &PodStats, stats: &mut Vec<Stat>) {
    for (prefix, counted) in &proxy.http {
        let completed = counted.answers.values().sum();
        stats.extend([
            Stat::http(Kind::Counter, prefix, "downstream_cx_total", counted.connections),
            Stat::http(Kind::Counter, prefix, "downstream_rq_total", counted.requests),
            Stat::http(Kind::Counter, prefix, "downstream_rq_completed", completed),
        ]);
        stats.extend(counted.answers.iter().map(|(class, value)| Stat::http_class(prefix, class, *value)));
        let of_filters = counted.filters.iter();
        stats.extend(of_filters.map(|(name, value)| Stat::http(Kind::Counter, prefix, name, *value)));
    }
    for (prefix, counted) in &proxy.local_rate_limits {
        stats.extend(counted.iter().map(|(name, value)| Stat::local_rate_limit(prefix, name, *value)));
    }
}

/// What the proxy counts and Envoy does not, or not for a whole pod.
#[derive(Serialize)]
struct Proxy<'a> {
    accepted_outbound: u64,
    accepted_inbound: u64,
    tcp_bytes_received: u64,
    tcp_bytes_sent: u64,
    panics: u64,
    spans_sent: u64,
    spans_dropped: u64,
    response_flags: &'a BTreeMap<&'static str, u64>,
    refused: &'a BTreeMap<&'static str, u64>,
}

impl<'a> From<&'a PodStats> for Proxy<'a> {
    fn from(stats: &'a PodStats) -> Self {
        Self {
            accepted_outbound: stats.accepted_outbound,
            accepted_inbound: stats.accepted_inbound,
            tcp_bytes_received: stats.bytes_received,
            tcp_bytes_sent: stats.bytes_sent,
            panics: stats.panics,
            spans_sent: stats.spans_sent,
            spans_dropped: stats.spans_dropped,
            response_flags: &stats.response_flags,
            refused: &stats.refused,
        }
    }
}

/// Every number of `counters` by the names of its fields; all of them are counters.
fn own(part: &str, counters: &impl Serialize, stats: &mut Vec<Stat>) {
    fn add(name: &str, value: &Json, stats: &mut Vec<Stat>) {
        if let Some(number) = value.as_u64() {
            stats.push(Stat::own(Kind::Counter, name, number));
        }
        for (field, value) in value.as_object().into_iter().flatten() {
            add(&format!("{name}.{field}"), value, stats);
        }
    }
    // Structs of numbers always have a JSON form.
    if let Ok(value) = serde_json::to_value(counters) {
        add(&format!("orlop.{part}"), &value, stats);
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
