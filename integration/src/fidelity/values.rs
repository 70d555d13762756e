//! Values to try for a field.

use orlop_proto::prost_reflect::{FieldDescriptor, Kind};
use orlop_proto::{Descriptors, ResourceType};
use serde_json::{Value, json};

use super::examples;

/// A value of a field, or of an element of it.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// An enum's value or an extension's type: what the fate may depend on.
    pub(super) label: String,
    /// The key, where the field is a map.
    pub(super) key: String,
    pub(super) json: Value,
}

fn plain(json: Value) -> Candidate {
    Candidate { label: String::new(), key: "key".to_owned(), json }
}

/// Everything that is worth trying for a field of a message in a resource of this type.
pub(super) fn candidates(
    descriptors: &Descriptors,
    resource_type: ResourceType,
    field: &FieldDescriptor,
) -> Vec<Candidate> {
    let keyed = examples::of_keys(field.full_name());
    if !keyed.is_empty() {
        let keyed = keyed.into_iter();
        return keyed.map(|(key, json)| Candidate { label: key.clone(), key, json }).collect();
    }
    let examples = examples::of_field(field.full_name());
    if !examples.is_empty() {
        return examples.into_iter().map(plain).collect();
    }
    let kind = if field.is_map() {
        match field.kind() {
            Kind::Message(entry) => entry.map_entry_value_field().kind(),
            other => other,
        }
    } else {
        field.kind()
    };
    match kind {
        // In a `oneof`, false may be another choice than none.
        Kind::Bool if field.containing_oneof().is_some() => flags(),
        Kind::Bool => vec![plain(json!(true))],
        Kind::String => ["x", "10.0.0.9", "/x", "x-test", "5xx", "tls", "*.example.com", "http"]
            .map(|text| plain(json!(text)))
            .into(),
        Kind::Bytes => vec![plain(json!("eA=="))],
        Kind::Float | Kind::Double => vec![plain(json!(7.0))],
        Kind::Enum(values) => {
            let values = values.values().filter(|value| value.number() != 0);
            values.map(|v| Candidate { label: v.name().to_owned(), ..plain(json!(v.name())) }).collect()
        }
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Any" => extensions(descriptors, resource_type, field),
            "google.protobuf.BoolValue" => flags(),
            "google.protobuf.Duration" => ["7s", "0s"].map(|time| plain(json!(time))).into(),
            "google.protobuf.StringValue" => vec![plain(json!("x"))],
            "google.protobuf.Struct" => vec![plain(json!({ "key": "value" }))],
            name if is_number(name) => [7, 0, 200].map(|number| plain(json!(number))).into(),
            name => examples::of_message(name).into_iter().map(plain).collect(),
        },
        _ => [1, 7, 200, 2].map(|number| plain(json!(number))).into(),
    }
}

fn flags() -> Vec<Candidate> {
    [true, false].map(|flag| Candidate { label: flag.to_string(), ..plain(json!(flag)) }).into()
}

fn is_number(message: &str) -> bool {
    ["UInt32Value", "UInt64Value", "Int32Value", "Int64Value", "DoubleValue", "FloatValue"]
        .iter()
        .any(|name| message.strip_prefix("google.protobuf.") == Some(*name))
}

/// Whether a message has a JSON form of its own and fields that nobody sets one by one.
pub(super) fn is_leaf(message: &str) -> bool {
    message.starts_with("google.protobuf.")
}

/// Every type that belongs to an extension point, and Istio's own, which may come as `TypedStruct`s as well.
fn extensions(
    descriptors: &Descriptors,
    resource_type: ResourceType,
    field: &FieldDescriptor,
) -> Vec<Candidate> {
    let prefix = examples::extension_prefix(resource_type, field.full_name());
    let pool = descriptors.pool();
    let of_envoy = pool.all_messages().filter(|message| {
        let in_package = message.parent_message().is_none() && message.full_name().starts_with(prefix);
        in_package && !prefix.is_empty()
    });
    let mut types: Vec<String> = of_envoy.map(|message| message.full_name().to_owned()).collect();
    types.extend(examples::ISTIO_TYPES.map(str::to_owned));
    let mut all = Vec::new();
    for name in types {
        let type_url = format!("type.googleapis.com/{name}");
        for mut json in examples::of_message(&name) {
            if let Some(object) = json.as_object_mut() {
                object.insert("@type".to_owned(), json!(type_url));
            }
            all.push(Candidate { label: name.clone(), ..plain(json) });
        }
        if examples::ISTIO_TYPES.contains(&name.as_str()) {
            let json = json!({
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "type_url": type_url,
                "value": {},
            });
            all.push(Candidate { label: format!("{name} (TypedStruct)"), ..plain(json) });
        }
    }
    all
}
