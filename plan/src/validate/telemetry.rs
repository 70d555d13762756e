//! Istio's own filters for metrics: `istio.stats` and `istio.metadata_exchange`.

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use orlop_proto::peer_metadata::Config as PeerMetadata;
use orlop_proto::peer_metadata::config::discovery_method::MethodSpecifier as Discovery;
use orlop_proto::peer_metadata::config::propagation_method::MethodSpecifier as Propagation;
use orlop_proto::peer_metadata::config::{
    Baggage, DiscoveryMethod, IstioHeaders, PropagationMethod, UpstreamFilterState, WorkloadDiscovery,
};
use orlop_proto::stats::{MetricConfig, PluginConfig, Reporter};

use super::at::{At, no_effect, refuse_set};
use super::decode::Extension;
use crate::resource::telemetry::{IstioStats, MetricOverride, PeerExchange, ToldEndpoints};

/// Peers are known by headers and by what istiod says of endpoints.
const NOT_OF_SIDECARS: &str = "is a way that peers of sidecars do not use";

/// `istio.stats`. Metrics of one's own, and labels that are computed, are refused.
pub(super) fn stats(extension: &Extension, at: &At<'_>) -> Option<IstioStats> {
    let PluginConfig {
        debug,
        max_peer_cache_size,
        stat_prefix,
        field_separator,
        value_separator,
        disable_host_header_fallback,
        tcp_reporting_duration,
        metrics,
        definitions,
        reporter,
        rotation_interval,
        graceful_deletion_interval,
    } = extension.message(at)?;
    no_effect!(at; "is of an older form of Istio's metrics, and read no more"; debug, max_peer_cache_size, stat_prefix, field_separator, value_separator);
    no_effect!(at; "says how old a metric may be, which is never older than the question"; tcp_reporting_duration);
    no_effect!(at; "says when metrics that do not change any more are forgotten, which is with the workload"; rotation_interval, graceful_deletion_interval);
    if reporter != Reporter::Unspecified as i32 {
        let _: Option<()> = at.field("reporter").refuse("is a gateway's, and this is a workload");
    }
    refuse_set!(at; definitions);
    let overrides = at.field("metrics").each(metrics, |value, at| Some(metric_override(value, at)))?;
    Some(IstioStats { disable_host_header_fallback, overrides })
}

fn metric_override(value: MetricConfig, at: &At<'_>) -> MetricOverride {
    let MetricConfig { dimensions, name, tags_to_remove, r#match, drop } = value;
    refuse_set!(at; dimensions);
    if !r#match.is_empty() {
        let _: Option<()> = at.field("match").unsupported("is not supported");
    }
    MetricOverride { name, drop, tags_to_remove }
}

/// `istio.metadata_exchange` on HTTP. Istiod sends it as a struct. Of the ways to describe a peer, headers are understood.
pub(super) fn peer_metadata(extension: &Extension, at: &At<'_>) -> Option<PeerExchange> {
    let PeerMetadata {
        downstream_discovery,
        upstream_discovery,
        downstream_propagation,
        upstream_propagation,
        shared_with_upstream,
        additional_labels,
    } = match extension {
        Extension::Message(_) => extension.message(at)?,
        Extension::Struct { value, .. } => from_struct(extension, value, at),
    };
    no_effect!(at; "is of Envoy's own listeners behind this one"; shared_with_upstream);
    no_effect!(at; "is of labels that no metric has"; additional_labels);
    let hears = |methods: Vec<DiscoveryMethod>, field| hears(methods, &at.field(field));
    let tells = |methods: Vec<PropagationMethod>, field| tells(methods, &at.field(field));
    let clients = tells(downstream_propagation, "downstream_propagation");
    if let Some((i, IstioHeaders { skip_external_clusters })) = clients {
        let at = at.field("downstream_propagation").index(i).field("istio_headers");
        no_effect!(at; "is of endpoints, and these are clients"; skip_external_clusters);
    }
    let endpoints = tells(upstream_propagation, "upstream_propagation");
    Some(PeerExchange {
        hears_downstream: hears(downstream_discovery, "downstream_discovery"),
        hears_upstream: hears(upstream_discovery, "upstream_discovery"),
        tells_downstream: clients.is_some(),
        tells_upstream: match endpoints.map(|(_, headers)| headers) {
            None => ToldEndpoints::None,
            Some(IstioHeaders { skip_external_clusters: true }) => ToldEndpoints::OfTheMesh,
            Some(IstioHeaders { skip_external_clusters: false }) => ToldEndpoints::All,
        },
    })
}

fn hears(methods: Vec<DiscoveryMethod>, at: &At<'_>) -> bool {
    let mut hears = false;
    for (i, method) in methods.into_iter().enumerate() {
        let at = at.index(i);
        match method.method_specifier {
            Some(Discovery::IstioHeaders(IstioHeaders { skip_external_clusters })) => {
                hears = true;
                no_effect!(at.field("istio_headers"); "is of what is told, not of what is heard"; skip_external_clusters);
            }
            Some(Discovery::Baggage(Baggage {})) => at.field("baggage").no_effect(NOT_OF_SIDECARS),
            Some(Discovery::WorkloadDiscovery(WorkloadDiscovery {})) => {
                at.field("workload_discovery").no_effect(NOT_OF_SIDECARS);
            }
            Some(Discovery::UpstreamFilterState(UpstreamFilterState { peer_metadata_key })) => {
                let at = at.field("upstream_filter_state");
                at.no_effect(NOT_OF_SIDECARS);
                no_effect!(at; "is of a way that peers of sidecars do not use"; peer_metadata_key);
            }
            None => {}
        }
    }
    hears
}

/// The last of these methods that is by headers, and its place.
fn tells(methods: Vec<PropagationMethod>, at: &At<'_>) -> Option<(usize, IstioHeaders)> {
    let mut told = None;
    for (i, method) in methods.into_iter().enumerate() {
        match method.method_specifier {
            Some(Propagation::IstioHeaders(headers)) => told = Some((i, headers)),
            Some(Propagation::Baggage(Baggage {})) => {
                let _: Option<()> = at.index(i).field("baggage").unsupported("is not supported");
            }
            None => {}
        }
    }
    told
}

/// The message that a `TypedStruct` describes.
fn from_struct(extension: &Extension, value: &Struct, at: &At<'_>) -> PeerMetadata {
    const FIELDS: [&str; 6] = [
        "downstream_discovery",
        "upstream_discovery",
        "downstream_propagation",
        "upstream_propagation",
        "shared_with_upstream",
        "additional_labels",
    ];
    extension.expect_fields(&FIELDS, at);
    let discovery = |field| {
        elements(value, field)
            .map(|method| DiscoveryMethod { method_specifier: Some(discovery(method)) })
            .collect()
    };
    let propagation = |field| {
        elements(value, field)
            .map(|method| PropagationMethod { method_specifier: Some(propagation(method)) })
            .collect()
    };
    PeerMetadata {
        downstream_discovery: discovery("downstream_discovery"),
        upstream_discovery: discovery("upstream_discovery"),
        downstream_propagation: propagation("downstream_propagation"),
        upstream_propagation: propagation("upstream_propagation"),
        ..PeerMetadata::default()
    }
}

fn discovery(method: &Struct) -> Discovery {
    if method.fields.contains_key("istio_headers") {
        Discovery::IstioHeaders(IstioHeaders::default())
    } else if method.fields.contains_key("workload_discovery") {
        Discovery::WorkloadDiscovery(WorkloadDiscovery {})
    } else {
        Discovery::Baggage(Baggage {})
    }
}

fn propagation(method: &Struct) -> Propagation {
    let Some(headers) = method.fields.get("istio_headers") else {
        return Propagation::Baggage(Baggage {});
    };
    let skip_external_clusters = matches!(
        &headers.kind,
        Some(Kind::StructValue(headers)) if is_true(headers, "skip_external_clusters")
    );
    Propagation::IstioHeaders(IstioHeaders { skip_external_clusters })
}

fn elements<'a>(value: &'a Struct, field: &str) -> impl Iterator<Item = &'a Struct> + use<'a> {
    let list = match value.fields.get(field) {
        Some(Value { kind: Some(Kind::ListValue(ListValue { values })) }) => values.as_slice(),
        _ => &[],
    };
    list.iter().filter_map(|element| match &element.kind {
        Some(Kind::StructValue(element)) => Some(element),
        _ => None,
    })
}

/// A boolean of a `Struct`.
pub(super) fn is_true(fields: &Struct, key: &str) -> bool {
    matches!(fields.fields.get(key), Some(Value { kind: Some(Kind::BoolValue(true)) }))
}
