//! `/clusters`: `envoy.admin.v3.Clusters`, or Envoy's lines. What is counted for a cluster is in `/stats`; of a single
//! endpoint there is what outlier detection knows.

use std::io::{self, Write};

use hyper::{Response, StatusCode};
use orlop_l7_proxy::stats::OutlierHost;
use orlop_plan::resource::cluster::{Cluster, ClusterDiscovery};
use orlop_plan::resource::endpoint::{ClusterLoadAssignment, HealthStatus, LbEndpoint, LocalityLbEndpoints};
use orlop_plan::snapshot::ResourceType;
use regex::Regex;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::answer::{Body, Format, text, write_json};
use super::envoy_json::{address, locality, observability_name};
use super::query::Query;
use super::server::Pod;
use super::stream::stream;
use super::view::{Resources, StoredResource};

#[derive(Debug, Serialize)]
struct ClusterStatus<'a> {
    name: &'a str,
    added_via_api: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    host_statuses: Vec<Json>,
    circuit_breakers: Json,
    observability_name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    eds_service_name: &'a str,
}

pub(super) async fn answer(pod: &Pod, query: &Query) -> Response<Body> {
    let filter = match query.regex("filter") {
        Ok(filter) => filter,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("Invalid regex: {error}\n")),
    };
    match Format::asked(query) {
        Format::Json => {
            let print = move |resources: &Resources, out: &mut dyn Write| {
                write_json(&Clusters { resources, filter: filter.as_ref() }, out)
            };
            stream(pod, Format::Json, print).await
        }
        Format::Text => {
            let print = move |resources: &Resources, out: &mut dyn Write| {
                served(resources, filter.as_ref()).try_for_each(|stored| write_lines(resources, stored, out))
            };
            stream(pod, Format::Text, print).await
        }
    }
}

/// `envoy.admin.v3.Clusters`, made while it is written.
struct Clusters<'a> {
    resources: &'a Resources,
    filter: Option<&'a Regex>,
}

impl Serialize for Clusters<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Message<T: Serialize> {
            cluster_statuses: T,
        }
        struct Statuses<'a>(&'a Clusters<'a>);
        impl Serialize for Statuses<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Clusters { resources, filter } = self.0;
                serializer.collect_seq(served(resources, *filter).map(|stored| status(resources, stored)))
            }
        }
        Message { cluster_statuses: Statuses(self) }.serialize(serializer)
    }
}

/// The clusters that are in force.
fn served<'a>(
    resources: &'a Resources,
    filter: Option<&'a Regex>,
) -> impl Iterator<Item = &'a StoredResource<Cluster>> {
    resources.clusters.iter().filter(move |stored| {
        filter.is_none_or(|filter| filter.is_match(&stored.name))
            && !resources.is_held(ResourceType::Cluster, &stored.name)
    })
}

fn status<'a>(resources: &Resources, stored: &'a StoredResource<Cluster>) -> ClusterStatus<'a> {
    let cluster = &stored.resource;
    let limits = &cluster.circuit_breakers;
    let hosts = localities(resources, cluster)
        .iter()
        .flat_map(|locality| locality.endpoints.iter().map(move |endpoint| (locality, endpoint)))
        .map(|(locality, endpoint)| {
            host_status(locality, endpoint, resources.outlier(&stored.name, endpoint.address))
        });
    ClusterStatus {
        name: &stored.name,
        added_via_api: true,
        host_statuses: hosts.collect(),
        circuit_breakers: json!({ "thresholds": [{
            "max_connections": limits.max_connections,
            "max_pending_requests": limits.max_pending_requests,
            "max_requests": limits.max_requests,
            "max_retries": limits.max_retries,
        }]}),
        observability_name: observability_name(stored),
        eds_service_name: eds_service_name(cluster),
    }
}

fn host_status(of: &LocalityLbEndpoints, endpoint: &LbEndpoint, outlier: Option<OutlierHost>) -> Json {
    let mut status = json!({
        "address": address(endpoint.address),
        "health_status": { "eds_health_status": eds_health_status(endpoint.health) },
        "weight": endpoint.weight,
        "locality": locality(&of.locality),
    });
    if let Json::Object(status) = &mut status {
        if !endpoint.about.hostname.is_empty() {
            status.insert("hostname".to_owned(), endpoint.about.hostname.clone().into());
        }
        if of.priority > 0 {
            status.insert("priority".to_owned(), of.priority.into());
        }
        let outlier = outlier.unwrap_or_default();
        if outlier.ejected
            && let Some(Json::Object(health)) = status.get_mut("health_status")
        {
            health.insert("failed_outlier_check".to_owned(), true.into());
        }
        for (name, rate) in [
            ("success_rate", outlier.success_rate),
            ("local_origin_success_rate", outlier.local_origin_success_rate),
        ] {
            status.extend(rate.map(|rate| (name.to_owned(), json!({ "value": rate }))));
        }
    }
    status
}

const fn eds_health_status(health: HealthStatus) -> &'static str {
    match health {
        HealthStatus::Healthy => "HEALTHY",
        HealthStatus::Degraded => "DEGRADED",
        HealthStatus::Unhealthy => "UNHEALTHY",
        HealthStatus::Draining => "DRAINING",
    }
}

fn health_flags(health: HealthStatus, ejected: bool) -> String {
    let eds = match health {
        HealthStatus::Healthy if !ejected => "healthy",
        HealthStatus::Healthy => "",
        HealthStatus::Degraded => "/degraded_eds_health",
        HealthStatus::Unhealthy => "/failed_eds_health",
        HealthStatus::Draining => "/eds_status_draining",
    };
    format!("{}{eds}", if ejected { "/failed_outlier_check" } else { "" })
}

fn eds_service_name(cluster: &Cluster) -> &str {
    match &cluster.discovery {
        ClusterDiscovery::Eds { service_name } => service_name,
        _ => "",
    }
}

fn localities<'a>(resources: &'a Resources, cluster: &'a Cluster) -> &'a [LocalityLbEndpoints] {
    let load_assignment: Option<&ClusterLoadAssignment> = match &cluster.discovery {
        ClusterDiscovery::Eds { service_name } => {
            resources.load_assignment(service_name).map(|stored| &*stored.resource)
        }
        ClusterDiscovery::Static(load_assignment) => Some(load_assignment),
        ClusterDiscovery::Dns(_) => resources.resolved(&cluster.name),
        ClusterDiscovery::OriginalDst { .. } => None,
    };
    load_assignment.map(|load_assignment| load_assignment.localities.as_slice()).unwrap_or_default()
}

fn write_lines(
    resources: &Resources,
    stored: &StoredResource<Cluster>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (name, cluster) = (&stored.name, &stored.resource);
    let limits = &cluster.circuit_breakers;
    writeln!(out, "{name}::observability_name::{}", observability_name(stored))?;
    for (limit, value) in [
        ("max_connections", limits.max_connections),
        ("max_pending_requests", limits.max_pending_requests),
        ("max_requests", limits.max_requests),
        ("max_retries", limits.max_retries),
    ] {
        writeln!(out, "{name}::default_priority::{limit}::{value}")?;
    }
    writeln!(out, "{name}::added_via_api::true")?;
    if let ClusterDiscovery::Eds { service_name } = &cluster.discovery {
        writeln!(out, "{name}::eds_service_name::{service_name}")?;
    }
    for of in localities(resources, cluster) {
        for endpoint in &of.endpoints {
            let host = format!("{name}::{}", endpoint.address);
            writeln!(out, "{host}::hostname::{}", endpoint.about.hostname)?;
            let outlier = resources.outlier(name, endpoint.address).unwrap_or_default();
            writeln!(out, "{host}::health_flags::{}", health_flags(endpoint.health, outlier.ejected))?;
            writeln!(out, "{host}::weight::{}", endpoint.weight)?;
            writeln!(out, "{host}::region::{}", of.locality.region)?;
            writeln!(out, "{host}::zone::{}", of.locality.zone)?;
            writeln!(out, "{host}::sub_zone::{}", of.locality.sub_zone)?;
            writeln!(out, "{host}::priority::{}", of.priority)?;
            // Envoy's "not known".
            let rate = |rate: Option<f64>| rate.unwrap_or(-1.0);
            writeln!(out, "{host}::success_rate::{}", rate(outlier.success_rate))?;
            writeln!(out, "{host}::local_origin_success_rate::{}", rate(outlier.local_origin_success_rate))?;
        }
    }
    Ok(())
}
