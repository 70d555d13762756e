//! Tracing: of connection managers and of routes.
//!
//! What Envoy would trace and the proxy does not, for its provider or a tag, holds nothing else up: it is noted as accepted
//! without effect.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3::{Decorator as ProtoDecorator, Tracing as RouteProto};
use envoy_types::pb::envoy::config::trace::v3::tracing::{Http, http::ConfigType};
use envoy_types::pb::envoy::config::trace::v3::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use envoy_types::pb::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::RequestIdExtension;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing as Proto;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::{
    EnvironmentResourceDetectorConfig, StaticConfigResourceDetectorConfig,
};
use envoy_types::pb::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use envoy_types::pb::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use envoy_types::pb::envoy::r#type::tracing::v3::CustomTag as ProtoTag;
use envoy_types::pb::envoy::r#type::tracing::v3::custom_tag::{Environment, Header, Literal, Metadata, Type};
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, Percent};
use envoy_types::pb::google::protobuf::UInt32Value;
use http::HeaderValue;
use prost::Name;

use super::at::{At, is_set, no_effect, refuse_set};
use super::collector;
use super::decode::Extension;
use super::format::format_parts;
use super::grpc_service::named;
use super::header::header_name;
use crate::resource::FieldError;
use crate::resource::collector::{Collector, CollectorProtocol};
use crate::resource::tracing::{
    CustomTag, CustomTagValue, Decorator, DryRun, Fraction, OpenTelemetry, RequestId, RouteTracing, Sampling,
    Tracing, TracingProvider, Zipkin,
};

/// Envoy's limit of the path in the tag `http.url`.
const DEFAULT_MAX_PATH_TAG_LENGTH: usize = 256;
/// Envoy's limit of spans that wait.
const DEFAULT_MAX_CACHE_SIZE: usize = 1024;
/// Where the RBAC filter leaves what became of shadow rules, in Istio's words.
const HTTP_RBAC: &str = "envoy.filters.http.rbac";

pub(super) fn tracing(value: Proto, at: &At<'_>) -> Option<Tracing> {
    let Proto {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = value;
    let provider = provider.and_then(|value| {
        let at = at.field("provider");
        noted(&at, "; no traces are made", || tracing_provider(value, &at))
    });
    if provider.is_none() {
        no_effect!(
            at; "refines a tracing provider, and there is none"; verbose, max_path_tag_length, spawn_upstream_span,
            operation, upstream_operation, no_context_propagation
        );
    } else {
        let spawns = spawn_upstream_span.is_some_and(|flag| flag.value);
        for (field, is_set, reason) in [
            ("verbose", verbose, "spans have no events"),
            ("operation", is_set(&operation), "spans have the names of decorators"),
            ("upstream_operation", is_set(&upstream_operation), "spans have the names of decorators"),
            ("spawn_upstream_span", spawns, "a span is one of a request, not of each of its attempts"),
        ] {
            if is_set {
                at.field(field).not_yet(reason);
            }
        }
    }
    let client = match client_sampling {
        None => Some(Fraction { numerator: 100, denominator: 100 }),
        // Envoy takes whole percents here.
        Some(value) => percent(value, 100, f64::trunc, &at.field("client_sampling")),
    };
    let of_ten_thousand = |value: Option<Percent>, field| match value {
        None => Some(Fraction::ALL),
        Some(value) => percent(value, 10_000, f64::round, &at.field(field)),
    };
    let random = of_ten_thousand(random_sampling, "random_sampling");
    let overall = of_ten_thousand(overall_sampling, "overall_sampling");
    Some(Tracing {
        sampling: Sampling { client: client?, random: random?, overall: overall? },
        custom_tags: tags(custom_tags, at)?,
        max_path_tag_length: max_path_tag_length.map_or(DEFAULT_MAX_PATH_TAG_LENGTH, size),
        no_context_propagation,
        provider: provider.map(Into::into),
    })
}

pub(super) fn decorator(value: ProtoDecorator, at: &At<'_>) -> Option<Decorator> {
    let ProtoDecorator { operation, propagate } = value;
    let operation = HeaderValue::try_from(operation).ok();
    let operation = operation.or_else(|| at.field("operation").refuse("is not a header's value"));
    Some(Decorator { operation: operation?, propagate: propagate.is_none_or(|flag| flag.value) })
}

pub(super) fn route_tracing(value: RouteProto, at: &At<'_>) -> Option<RouteTracing> {
    let RouteProto {
        client_sampling,
        random_sampling,
        overall_sampling,
        custom_tags,
        operation,
        upstream_operation,
    } = value;
    for (field, is_set) in
        [("operation", is_set(&operation)), ("upstream_operation", is_set(&upstream_operation))]
    {
        if is_set {
            at.field(field).not_yet("spans have the names of decorators");
        }
    }
    let fraction = |value: Option<FractionalPercent>, field| match value {
        None => Some(Fraction::ALL),
        Some(value) => fraction(value, &at.field(field)),
    };
    let client = fraction(client_sampling, "client_sampling");
    let random = fraction(random_sampling, "random_sampling");
    let overall = fraction(overall_sampling, "overall_sampling");
    let sampling = Sampling { client: client?, random: random?, overall: overall? };
    Some(RouteTracing { sampling, custom_tags: tags(custom_tags, at)? })
}

/// A UUID; `None` is Envoy's own.
pub(super) fn request_id(value: Option<RequestIdExtension>, at: &At<'_>) -> Option<RequestId> {
    let own = RequestId { pack_trace_reason: true, use_for_trace_sampling: true };
    let Some(RequestIdExtension { typed_config: Some(any) }) = value else { return Some(own) };
    let at = at.field("typed_config");
    let extension = Extension::open(any, &at)?;
    if extension.type_name() != UuidRequestIdConfig::full_name() {
        return extension.refuse("request id extension", "", &at);
    }
    let UuidRequestIdConfig { pack_trace_reason, use_request_id_for_trace_sampling } =
        extension.message(&at)?;
    Some(RequestId {
        pack_trace_reason: pack_trace_reason.is_none_or(|flag| flag.value),
        use_for_trace_sampling: use_request_id_for_trace_sampling.is_none_or(|flag| flag.value),
    })
}

/// What `convert` makes of it; `None` where that is not done, which is noted, or not possible.
fn noted<T>(at: &At<'_>, follows: &str, convert: impl FnOnce() -> Option<T>) -> Option<T> {
    match at.apart(convert)? {
        Ok(converted) => Some(converted),
        Err(problems) => {
            for FieldError { path, reason } in problems {
                at.not_yet_below(&path, format!("{reason}{follows}"));
            }
            None
        }
    }
}

fn size(value: UInt32Value) -> usize {
    usize::try_from(value.value).unwrap_or(usize::MAX)
}

fn percent(value: Percent, denominator: u32, whole: fn(f64) -> f64, at: &At<'_>) -> Option<Fraction> {
    let Percent { value } = value;
    if !(0.0..=100.0).contains(&value) {
        return at.field("value").refuse(format!("{value} is not in 0..=100"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the denominator"
    )]
    let numerator = whole(value / 100.0 * f64::from(denominator)) as u32;
    Some(Fraction { numerator, denominator })
}

fn fraction(value: FractionalPercent, at: &At<'_>) -> Option<Fraction> {
    let FractionalPercent { numerator, denominator } = value;
    let denominator = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return at.field("denominator").refuse("is unknown"),
    };
    Some(Fraction { numerator, denominator })
}

fn tags(values: Vec<ProtoTag>, at: &At<'_>) -> Option<Vec<CustomTag>> {
    let tags = at.field("custom_tags").each(values, |value, at| {
        let ProtoTag { tag, r#type } = value;
        if tag.is_empty() {
            return at.field("tag").refuse("is empty");
        }
        let converted = noted(at, "; spans are without the tag", || tag_value(at.required(r#type)?, at));
        Some(converted.map(|value| CustomTag { tag: tag.into(), value }))
    })?;
    Some(tags.into_iter().flatten().collect())
}

fn tag_value(value: Type, at: &At<'_>) -> Option<CustomTagValue> {
    match value {
        Type::Literal(Literal { value }) => Some(CustomTagValue::Literal(value)),
        Type::Environment(Environment { name, default_value }) => {
            let at = at.field("environment");
            no_effect!(at; "is of a sidecar's environment, and there is none: the tag is its default"; name);
            Some(CustomTagValue::Literal(default_value))
        }
        Type::RequestHeader(Header { name, default_value }) => {
            let name = header_name(&name.to_ascii_lowercase(), &at.field("request_header").field("name"))?;
            Some(CustomTagValue::RequestHeader { name, otherwise: default_value })
        }
        Type::Value(format) => format_parts(&format, &at.field("value")).map(CustomTagValue::Format),
        Type::Metadata(value) => dry_run(value, &at.field("metadata")).map(CustomTagValue::DryRun),
    }
}

/// Of metadata, what Istio's own tags show: what would have become of the request by policies that are tried.
fn dry_run(value: Metadata, at: &At<'_>) -> Option<DryRun> {
    let Metadata { kind, metadata_key, default_value } = value;
    refuse_set!(at; default_value);
    let kind = kind.and_then(|MetadataKind { kind }| kind);
    if !matches!(kind, Some(metadata_kind::Kind::Request(_))) {
        return at.field("kind").unsupported("is supported as the request's alone");
    }
    let at = at.field("metadata_key");
    let MetadataKey { key, path } = at.required(metadata_key)?;
    let name = match path.as_slice() {
        [PathSegment { segment: Some(path_segment::Segment::Key(name)) }] if key == HTTP_RBAC => {
            name.as_str()
        }
        _ => "",
    };
    let dry_run = |of_allow, policy| Some(DryRun { of_allow, policy });
    match name {
        "istio_dry_run_allow_shadow_effective_policy_id" => dry_run(true, true),
        "istio_dry_run_allow_shadow_engine_result" => dry_run(true, false),
        "istio_dry_run_deny_shadow_effective_policy_id" => dry_run(false, true),
        "istio_dry_run_deny_shadow_engine_result" => dry_run(false, false),
        _ => at.unsupported("is supported for RBAC's dry run alone"),
    }
}

fn tracing_provider(value: Http, at: &At<'_>) -> Option<TracingProvider> {
    let Http { name, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    let at_config = at.field("typed_config");
    let ConfigType::TypedConfig(any) = at_config.required(config_type)?;
    let extension = Extension::open(any, &at_config)?;
    match extension.type_name() {
        known if known == OpenTelemetryConfig::full_name() => {
            open_telemetry(extension.message(&at_config)?, &at_config).map(TracingProvider::OpenTelemetry)
        }
        known if known == ZipkinConfig::full_name() => {
            zipkin(extension.message(&at_config)?, &at_config).map(TracingProvider::Zipkin)
        }
        _ => extension.refuse("tracing provider", &name, &at_config),
    }
}

fn open_telemetry(value: OpenTelemetryConfig, at: &At<'_>) -> Option<OpenTelemetry> {
    let OpenTelemetryConfig {
        grpc_service,
        http_service,
        exporter,
        service_name,
        resource_detectors,
        sampler,
        max_cache_size,
        set_telemetry_sdk_resource_attributes,
        set_service_name_resource_attribute,
        set_instrumentation_scope,
    } = value;
    refuse_set!(at; exporter, sampler);
    let collector = match (grpc_service, http_service) {
        (Some(service), None) => collector::grpc(service, &at.field("grpc_service")),
        (None, Some(service)) => collector::http(service, &at.field("http_service")),
        (None, None) => at.field("grpc_service").unsupported("is missing, and spans would go nowhere"),
        (Some(_), Some(_)) => at.field("http_service").refuse("stands beside grpc_service"),
    };
    let detected = at.field("resource_detectors").each(resource_detectors, detector);
    let mut resource = BTreeMap::new();
    if set_service_name_resource_attribute.is_none_or(|flag| flag.value) {
        // Envoy's where there is no name.
        let name = if service_name.is_empty() { "unknown_service:envoy".to_owned() } else { service_name };
        resource.insert("service.name".to_owned(), name);
    } else {
        no_effect!(at; "is not told"; service_name);
    }
    resource.extend(detected?.into_iter().flatten());
    Some(OpenTelemetry {
        collector: collector?,
        resource: resource.into_iter().collect(),
        names_sdk: set_telemetry_sdk_resource_attributes.is_none_or(|flag| flag.value),
        names_scope: set_instrumentation_scope.is_none_or(|flag| flag.value),
        max_cache_size: max_cache_size.map_or(DEFAULT_MAX_CACHE_SIZE, size),
    })
}

/// What a resource detector says of the resource.
fn detector(value: TypedExtensionConfig, at: &At<'_>) -> Option<Vec<(String, String)>> {
    let TypedExtensionConfig { name, typed_config } = value;
    no_effect!(at; "is named in errors alone"; name);
    let at = at.field("typed_config");
    let extension = Extension::open(at.required(typed_config)?, &at)?;
    match extension.type_name() {
        known if known == StaticConfigResourceDetectorConfig::full_name() => {
            let StaticConfigResourceDetectorConfig { attributes } = extension.message(&at)?;
            Some(
                attributes
                    .into_iter()
                    .filter(|(name, value)| !name.is_empty() && !value.is_empty())
                    .collect(),
            )
        }
        known if known == EnvironmentResourceDetectorConfig::full_name() => {
            let EnvironmentResourceDetectorConfig {} = extension.message(&at)?;
            at.no_effect("is of a sidecar's environment, and there is none");
            Some(Vec::new())
        }
        _ => extension.refuse("resource detector", &name, &at),
    }
}

fn zipkin(value: ZipkinConfig, at: &At<'_>) -> Option<Zipkin> {
    let ZipkinConfig {
        collector_cluster,
        collector_endpoint,
        trace_id_128bit,
        shared_span_context,
        collector_endpoint_version,
        collector_hostname,
        split_spans_for_request,
        trace_context_option,
        collector_service,
        timestamp_trace_ids,
    } = value;
    refuse_set!(at; split_spans_for_request, timestamp_trace_ids);
    if collector_endpoint_version != CollectorEndpointVersion::HttpJson as i32 {
        return at.field("collector_endpoint_version").unsupported("is supported as HTTP_JSON alone");
    }
    let with_w3c = match TraceContextOption::try_from(trace_context_option) {
        Ok(TraceContextOption::UseB3) => Some(false),
        Ok(TraceContextOption::UseB3WithW3cPropagation) => Some(true),
        Err(_) => at.field("trace_context_option").refuse("is unknown"),
    };
    let collector = if collector_service.is_some() {
        no_effect!(at; "stands beside collector_service"; collector_cluster, collector_endpoint, collector_hostname);
        collector::http(collector_service?, &at.field("collector_service"))
    } else {
        let cluster = named(collector_cluster, &at.field("collector_cluster"))?;
        Some(Collector {
            authority: if collector_hostname.is_empty() { cluster.clone() } else { collector_hostname },
            cluster: cluster.into(),
            protocol: CollectorProtocol::Http { path: collector_endpoint },
            timeout: collector::DEFAULT_TIMEOUT,
            headers: Vec::new(),
        })
    };
    Some(Zipkin {
        collector: collector?,
        trace_id_128bit,
        shared_span_context: shared_span_context.is_none_or(|flag| flag.value),
        with_w3c: with_w3c?,
    })
}
