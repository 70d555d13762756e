//! `HttpConnectionManager.Tracing` and `route.v3.Tracing`: which requests are traced, what is said of them, and where to.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::collector::Collector;
use super::format::FormatPart;

/// `Tracing` of a connection manager.
#[derive(Debug)]
pub struct Tracing {
    /// `provider`; without one, request ids are marked, and nothing else is done.
    pub provider: Option<Arc<TracingProvider>>,
    /// Which requests.
    pub sampling: Sampling,
    /// `custom_tags`
    pub custom_tags: Vec<CustomTag>,
    /// `max_path_tag_length`; Envoy's default is 256.
    pub max_path_tag_length: usize,
    /// `no_context_propagation`: the upstream is not told.
    pub no_context_propagation: bool,
}

/// `client_sampling`, `random_sampling` and `overall_sampling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Of requests whose client asks for a trace.
    pub client: Fraction,
    /// Of all others.
    pub random: Fraction,
    /// Of those that would be traced.
    pub overall: Fraction,
}

impl Sampling {
    /// Envoy's where nothing is said.
    pub const ALL: Self = Self { client: Fraction::ALL, random: Fraction::ALL, overall: Fraction::ALL };
}

/// A part of all requests, in Envoy's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// How many
    pub numerator: u32,
    /// of so many.
    pub denominator: u32,
}

impl Fraction {
    /// All of them.
    pub const ALL: Self = Self { numerator: 10_000, denominator: 10_000 };

    /// Whether it takes a request with this number.
    pub fn takes(self, number: u64) -> bool {
        number.checked_rem(u64::from(self.denominator)).is_some_and(|rest| rest < u64::from(self.numerator))
    }
}

/// `CustomTag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomTag {
    /// `tag`
    pub tag: Arc<str>,
    /// Where its value comes from.
    pub value: CustomTagValue,
}

/// Where a custom tag's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CustomTagValue {
    /// `literal`, and `environment`: of which nothing is set, so that it is always its default.
    Literal(String),
    /// `request_header`
    RequestHeader {
        /// `name`
        name: HeaderName,
        /// `default_value`; empty is none.
        otherwise: String,
    },
    /// `value`: operators as in access logs.
    Format(Vec<FormatPart>),
    /// `metadata` of RBAC's dry run.
    DryRun(DryRun),
}

/// What the filter `envoy.filters.http.rbac` leaves of shadow rules, in Istio's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DryRun {
    /// Of policies that allow (`istio_dry_run_allow_`), or else of those that deny.
    pub of_allow: bool,
    /// `shadow_effective_policy_id`, or else `shadow_engine_result`.
    pub policy: bool,
}

/// `provider`.
#[derive(Debug, PartialEq, Eq)]
pub enum TracingProvider {
    /// `envoy.tracers.opentelemetry`
    OpenTelemetry(OpenTelemetry),
    /// `envoy.tracers.zipkin`
    Zipkin(Zipkin),
}

/// `OpenTelemetryConfig`.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenTelemetry {
    /// `grpc_service`, `http_service`
    pub collector: Collector,
    /// The resource: `service_name` and what static detectors say.
    pub resource: Vec<(String, String)>,
    /// `set_telemetry_sdk_resource_attributes`
    pub names_sdk: bool,
    /// `set_instrumentation_scope`
    pub names_scope: bool,
    /// `max_cache_size`: how many spans may wait.
    pub max_cache_size: usize,
}

/// `ZipkinConfig`.
#[derive(Debug, PartialEq, Eq)]
pub struct Zipkin {
    /// `collector_service`, or the older fields that say the same.
    pub collector: Collector,
    /// `trace_id_128bit`
    pub trace_id_128bit: bool,
    /// `shared_span_context`: the span of what comes in is its client's.
    pub shared_span_context: bool,
    /// `USE_B3_WITH_W3C_PROPAGATION`
    pub with_w3c: bool,
}

impl TracingProvider {
    /// Where spans go.
    pub fn collector(&self) -> &Collector {
        match self {
            Self::OpenTelemetry(OpenTelemetry { collector, .. }) | Self::Zipkin(Zipkin { collector, .. }) => {
                collector
            }
        }
    }
}

/// `UuidRequestIdConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// `pack_trace_reason`: the id says whether the request is traced.
    pub pack_trace_reason: bool,
    /// `use_request_id_for_trace_sampling`
    pub use_for_trace_sampling: bool,
}

/// `Decorator` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decorator {
    /// `operation`: the span's name, as the other end is told it.
    pub operation: HeaderValue,
    /// `propagate`: the other end is told.
    pub propagate: bool,
}

/// `Tracing` of a route.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteTracing {
    /// In the place of the connection manager's.
    pub sampling: Sampling,
    /// `custom_tags`, before the connection manager's of the same name.
    pub custom_tags: Vec<CustomTag>,
}
