//! Spans as OpenTelemetry has them: `opentelemetry.proto.collector.trace.v1`, the fields that are written.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use envoy_types::pb::opentelemetry::proto::common::v1::any_value::Value;
use envoy_types::pb::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use orlop_plan::resource::tracing::OpenTelemetry;
use prost::Message;

use super::span::Finished;
use crate::stats::Direction;

/// The method of the service.
pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const NAME: &str = "orlop";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;
const SAMPLED: u32 = 1;

/// `ExportTraceServiceRequest`
#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "as the protocol has them")]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

/// The request that tells of them.
pub(super) fn encode(config: &OpenTelemetry, batch: Vec<Finished>) -> Bytes {
    let of_sdk = [
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", NAME),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let of_sdk = of_sdk.into_iter().filter(|_| config.names_sdk);
    let configured = config.resource.iter().map(|(name, value)| attribute(name.clone(), value.clone()));
    let attributes = of_sdk.map(|(name, value)| attribute(name, value)).chain(configured).collect();
    let scope = InstrumentationScope {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: config.names_scope.then_some(scope),
        spans: batch.into_iter().map(Span::from).collect(),
    };
    let of_resource =
        ResourceSpans { resource: Some(Resource { attributes }), scope_spans: vec![scope_spans] };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec().into()
}

impl From<Finished> for Span {
    fn from(finished: Finished) -> Self {
        let Finished { span, direction, name, began, took, tags, code } = finished;
        let began = since_1970(began);
        // OpenTelemetry's rule for spans of HTTP: what the client did wrong is an error of the client alone.
        let (kind, least_error) = match direction {
            Direction::Inbound => (SERVER, 500),
            Direction::Outbound => (CLIENT, 400),
        };
        Self {
            trace_id: span.trace_id.to_be_bytes().to_vec(),
            span_id: span.id.to_be_bytes().to_vec(),
            trace_state: span
                .state
                .map(|state| String::from_utf8_lossy(state.as_bytes()).into_owned())
                .unwrap_or_default(),
            parent_span_id: span.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
            name,
            kind,
            start_time_unix_nano: nanoseconds(began),
            end_time_unix_nano: nanoseconds(began + took),
            attributes: tags.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            status: (code >= least_error).then_some(Status { code: ERROR }),
            flags: SAMPLED,
        }
    }
}

fn attribute(name: impl Into<String>, value: impl Into<String>) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.into())) };
    KeyValue { key: name.into(), value: Some(value), ..KeyValue::default() }
}

fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
