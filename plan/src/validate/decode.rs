//! From bytes to protobuf messages, without losing a field.

use std::cell::RefCell;

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
use orlop_proto::typed_struct::TypedStruct;
use prost::Message;
use serde_json::Value as Json;

use super::at::{At, Findings};
use super::unknown_fields::unknown_bytes;
use crate::resource::{FieldError, FieldPath, ResourceError};

/// Decodes and converts a whole resource; every problem of it is in the error.
pub(super) fn resource<M: Message + Default, T>(
    bytes: &[u8],
    findings: &RefCell<Findings>,
    name: impl FnOnce(&M) -> String,
    convert: impl FnOnce(M, &At<'_>) -> Option<T>,
) -> Result<T, ResourceError> {
    let message = M::decode(bytes).map_err(|error| ResourceError {
        name: String::new(),
        fields: vec![FieldError { path: FieldPath::root(), reason: format!("does not decode: {error}") }],
    })?;
    let name = name(&message);
    let at = At::root(findings);
    whole(&message, bytes, &at);
    let converted = convert(message, &at);
    let fields = findings.borrow_mut().take_problems();
    match converted {
        Some(resource) if fields.is_empty() => Ok(resource),
        _ => Err(ResourceError { name, fields }),
    }
}

/// An `Any` as the message that it was found to hold by its type URL.
pub(super) fn typed<M: Message + Default>(any: &Any, at: &At<'_>) -> Option<M> {
    match M::decode(any.value.as_slice()) {
        Ok(message) => {
            whole(&message, &any.value, at);
            Some(message)
        }
        Err(error) => at.refuse(format!("{} does not decode: {error}", any.type_url)),
    }
}

fn whole<M: Message>(message: &M, bytes: &[u8], at: &At<'_>) {
    let unknown = unknown_bytes(message, bytes);
    if unknown > 0 {
        let _: Option<()> =
            at.refuse(format!("has {unknown} bytes of fields that this version does not know"));
    }
}

/// What an extension's `typed_config` holds: a message, or a `TypedStruct` that describes one.
pub(super) enum Extension {
    Message(Any),
    Struct { type_url: String, value: Struct },
}

const TYPED_STRUCTS: [&str; 2] =
    ["type.googleapis.com/udpa.type.v1.TypedStruct", "type.googleapis.com/xds.type.v3.TypedStruct"];

impl Extension {
    /// Looks into a `TypedStruct`.
    pub(super) fn open(any: Any, at: &At<'_>) -> Option<Self> {
        if !TYPED_STRUCTS.contains(&any.type_url.as_str()) {
            return Some(Self::Message(any));
        }
        // Both messages are the same on the wire.
        let TypedStruct { type_url, value } = typed(&any, at)?;
        Some(Self::Struct { type_url, value: value.unwrap_or_default() })
    }

    /// The type's full name.
    pub(super) fn type_name(&self) -> &str {
        let type_url = match self {
            Self::Message(any) => &any.type_url,
            Self::Struct { type_url, .. } => type_url,
        };
        type_url.rsplit('/').next().unwrap_or_default()
    }

    /// The message, once its type is known.
    pub(super) fn message<M: Message + Default>(&self, at: &At<'_>) -> Option<M> {
        match self {
            Self::Message(any) => typed(any, at),
            Self::Struct { type_url, value } => {
                let descriptors = at.required(at.descriptors())?;
                match descriptors.from_json(type_url, &object(value)) {
                    Ok(any) => typed(&any, at),
                    Err(error) => at.refuse(format!("as a TypedStruct: {error}")),
                }
            }
        }
    }

    /// Refuses an extension that is not known, by name and type.
    pub(super) fn refuse<T>(&self, what: &str, name: &str, at: &At<'_>) -> Option<T> {
        let reason = format!("{what} {name:?} ({}) is not supported", self.type_name());
        if self.type_name().starts_with("envoy.") { at.unsupported(reason) } else { at.refuse(reason) }
    }

    /// Refuses fields other than `known` ones, where the fields are known to have no effect.
    pub(super) fn expect_fields(&self, known: &[&str], at: &At<'_>) {
        if let Self::Struct { value, .. } = self {
            for field in value.fields.keys().filter(|field| !known.contains(&field.as_str())) {
                let _: Option<()> = at.field("value").field(field).refuse("is not supported");
            }
        }
    }
}

/// 2⁵³
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// JSON that describes a message. Its numbers are all of floating point, also where the message has whole ones.
fn object(value: &Struct) -> Json {
    Json::Object(value.fields.iter().map(|(name, value)| (name.clone(), json(value))).collect())
}

fn json(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(flag)) => Json::Bool(*flag),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        #[expect(clippy::cast_possible_truncation, reason = "whole, and no larger than an f64 can be whole")]
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < LARGEST_WHOLE => {
            Json::from(*number as i64)
        }
        Some(Kind::NumberValue(number)) => Json::from(*number),
        Some(Kind::StructValue(value)) => object(value),
        Some(Kind::ListValue(list)) => Json::Array(list.values.iter().map(json).collect()),
    }
}

/// A string of a `Struct`.
pub(super) fn string_of<'a>(fields: &'a Struct, key: &str) -> Option<&'a str> {
    match fields.fields.get(key) {
        Some(Value { kind: Some(Kind::StringValue(text)) }) => Some(text),
        _ => None,
    }
}
