//! Spans as Zipkin has them: version 2 of its JSON.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::b3::trace_id_text;
use super::span::Finished;
use crate::collect::Reporter;
use crate::stats::Direction;

/// The list of them.
pub(super) fn encode(reporter: &Reporter, batch: Vec<Finished>) -> Bytes {
    let spans: Vec<_> = batch.into_iter().map(|finished| span(reporter, finished)).collect();
    Value::Array(spans).to_string().into()
}

fn span(reporter: &Reporter, finished: Finished) -> Value {
    let Finished { span, direction, name, began, took, tags, code: _ } = finished;
    let mut endpoint = Map::new();
    endpoint.insert("serviceName".to_owned(), json!(&*reporter.service));
    match reporter.address {
        Some(IpAddr::V4(address)) => endpoint.insert("ipv4".to_owned(), json!(address)),
        Some(IpAddr::V6(address)) => endpoint.insert("ipv6".to_owned(), json!(address)),
        None => None,
    };
    endpoint.insert("port".to_owned(), json!(0));
    let tags = tags.into_iter().filter(|(_, value)| !value.is_empty());
    let tags: Map<_, _> = tags.map(|(name, value)| (name.into_owned(), Value::String(value))).collect();
    // `cr` and `ss` say once more when it ended.
    let (kind, ended) = match direction {
        Direction::Inbound => ("SERVER", "ss"),
        Direction::Outbound => ("CLIENT", "cr"),
    };
    let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut value = json!({
        "traceId": trace_id_text(span.trace_id),
        "id": format!("{:016x}", span.id),
        "name": name,
        "kind": kind,
        "timestamp": microseconds(began),
        "duration": microseconds(took).max(1),
        "annotations": [{"timestamp": microseconds(began + took), "value": ended}],
        "localEndpoint": endpoint,
        "tags": tags,
    });
    if let Some(fields) = value.as_object_mut() {
        if let Some(parent) = span.parent {
            fields.insert("parentId".to_owned(), json!(format!("{parent:016x}")));
        }
        if span.shared {
            fields.insert("shared".to_owned(), json!(true));
        }
    }
    value
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
