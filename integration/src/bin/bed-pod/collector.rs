//! A collector of spans, as paths of the HTTP server: OpenTelemetry's by gRPC and by HTTP, and Zipkin's. What has come is told
//! at `/collected`, in the form of Zipkin's JSON.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::{Buf, Bytes};
use envoy_types::pb::opentelemetry::proto::common::v1::any_value::Value as Any;
use envoy_types::pb::opentelemetry::proto::common::v1::{InstrumentationScope, KeyValue};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Response, StatusCode};
use prost::Message;
use serde_json::{Map, Value, json};

use crate::echo_http::{GRPC_STATUS, grpc};

const OTLP_GRPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const OTLP_HTTP: &str = "/v1/traces";
const ZIPKIN: &str = "/api/v2/spans";
const COLLECTED: &str = "/collected";

/// What has come so far.
#[derive(Debug, Default)]
pub(crate) struct Collected(RefCell<Vec<Value>>);

impl Collected {
    /// The answer, where the path is one of a collector.
    pub(crate) fn answer(
        &self,
        path: &str,
        headers: &HeaderMap,
        mut body: Bytes,
    ) -> Option<Response<UnsyncBoxBody<Bytes, Infallible>>> {
        let spans = match path {
            OTLP_GRPC => {
                // A flag, and the length of the one message.
                body.advance(body.len().min(5));
                open_telemetry(body)
            }
            OTLP_HTTP => open_telemetry(body),
            ZIPKIN => serde_json::from_slice(&body).unwrap_or_default(),
            COLLECTED => {
                return Some(whole(StatusCode::OK, Value::Array(self.0.borrow().clone()).to_string()));
            }
            _ => return None,
        };
        let told = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let way = json!({"path": path, "type": told("content-type"), "x-told": told("x-told")});
        for mut span in spans {
            if let Some(span) = span.as_object_mut() {
                span.insert("way".to_owned(), way.clone());
            }
            self.0.borrow_mut().push(span);
        }
        Some(match path {
            OTLP_GRPC => grpc([0; 5].to_vec(), HeaderMap::from_iter([(GRPC_STATUS, "0".parse().ok()?)])),
            ZIPKIN => whole(StatusCode::ACCEPTED, String::new()),
            _ => whole(StatusCode::OK, String::new()),
        })
    }
}

fn whole(status: StatusCode, body: String) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// `ExportTraceServiceRequest`, and what it is made of.
#[derive(Clone, PartialEq, Message)]
struct Request {
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
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

fn open_telemetry(body: Bytes) -> Vec<Value> {
    let request = Request::decode(body).unwrap_or_default();
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(&of_resource.resource.unwrap_or_default().attributes);
        for of_scope in of_resource.scope_spans {
            let scope = of_scope.scope.map(|scope| scope.name);
            spans.extend(of_scope.spans.into_iter().map(|span| {
                json!({
                    "traceId": hex(&span.trace_id),
                    "id": hex(&span.span_id),
                    "parentId": hex(&span.parent_span_id),
                    "state": span.trace_state,
                    "name": span.name,
                    "kind": match span.kind { 2 => "SERVER", 3 => "CLIENT", _ => "other" },
                    "status": span.status.map(|status| (status.code, status.message)),
                    "flags": span.flags,
                    "took": span.end >= span.start && span.start > 0,
                    "resource": resource,
                    "scope": scope,
                    "tags": attributes(&span.attributes),
                })
            }));
        }
    }
    spans
}

fn attributes(attributes: &[KeyValue]) -> Map<String, Value> {
    let value = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => Value::String(text.clone()),
        other => Value::String(format!("{other:?}")),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
