//! Messages to and from protobuf's JSON form, nested `Any` values included.
//!
//! JSON is read strictly: a field that the message lacks is an error, as it is for Envoy. Field names may be
//! written in either case; they are printed as in the `.proto` files and in Envoy's documentation.

use std::error::Error;

use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, ReflectMessage, SerializeOptions, Value};
use serde::Deserializer;
use serde_json::Value as Json;
use serde_path_to_error::{Path, Segment, Track};

use crate::{DecodeError, Descriptors, JsonError};

pub(crate) const ANY: &str = "google.protobuf.Any";

impl Descriptors {
    /// Reads the message `type_url` from a deserializer of any self-describing format, such as YAML. The text
    /// holds no `@type` of its own; nested `Any` values do.
    pub fn decode<'de, D>(&self, type_url: &str, deserializer: D) -> Result<Any, DecodeError<D::Error>>
    where
        D: Deserializer<'de>,
        D::Error: Error + 'static,
    {
        self.decode_at(type_url, deserializer).map_err(|failure| match failure {
            Failure::UnknownType => DecodeError::UnknownType { type_url: type_url.to_owned() },
            Failure::Invalid(path, source) => DecodeError::Invalid { path: path.to_string(), source },
        })
    }

    /// Reads the message `type_url` from its JSON form.
    pub fn from_json(&self, type_url: &str, json: &Json) -> Result<Any, JsonError> {
        self.decode_at(type_url, json).map_err(|failure| match failure {
            Failure::UnknownType => {
                JsonError::UnknownType { type_url: type_url.to_owned(), path: ".".into() }
            }
            Failure::Invalid(path, source) => {
                match at(json, &path).and_then(|any| any.get("@type")?.as_str()) {
                    Some(nested) if self.message(nested).is_none() => {
                        JsonError::UnknownType { type_url: nested.to_owned(), path: path.to_string() }
                    }
                    _ => JsonError::Invalid { path: path.to_string(), source },
                }
            }
        })
    }

    /// The JSON form of a message, without an `@type` of its own.
    pub fn to_json(&self, any: &Any) -> Result<Json, JsonError> {
        let type_url = &any.type_url;
        let message = self
            .message(type_url)
            .ok_or_else(|| JsonError::UnknownType { type_url: type_url.clone(), path: ".".into() })?;
        let dynamic = DynamicMessage::decode(message, any.value.as_slice())
            .map_err(|source| JsonError::Malformed { type_url: type_url.clone(), source })?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|source| {
            match self.unknown_type(&dynamic, "") {
                Some((type_url, path)) => JsonError::UnknownType { type_url, path },
                None => JsonError::Serialize { type_url: type_url.clone(), source },
            }
        })
    }

    fn decode_at<'de, D: Deserializer<'de>>(
        &self,
        type_url: &str,
        deserializer: D,
    ) -> Result<Any, Failure<D::Error>> {
        let message = self.message(type_url).ok_or(Failure::UnknownType)?;
        let mut track = Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(deserializer, &mut track);
        DynamicMessage::deserialize_with_options(message, deserializer, &DeserializeOptions::new())
            .map(|dynamic| Any { type_url: type_url.to_owned(), value: dynamic.encode_to_vec() })
            .map_err(|source| Failure::Invalid(track.path(), source))
    }

    /// The first `Any` within `message` whose type is not in the pool, and where it is.
    fn unknown_type(&self, message: &DynamicMessage, path: &str) -> Option<(String, String)> {
        if message.descriptor().full_name() == ANY {
            let any = message.transcode_to::<Any>().ok()?;
            let Some(nested) = self.message(&any.type_url) else {
                return Some((any.type_url, path.to_owned()));
            };
            return self.unknown_type(&DynamicMessage::decode(nested, any.value.as_slice()).ok()?, path);
        }
        message.fields().find_map(|(field, value)| {
            let dot = if path.is_empty() { "" } else { "." };
            self.unknown_type_in(value, &format!("{path}{dot}{}", field.name()))
        })
    }

    fn unknown_type_in(&self, value: &Value, path: &str) -> Option<(String, String)> {
        match value {
            Value::Message(message) => self.unknown_type(message, path),
            Value::List(list) => list
                .iter()
                .enumerate()
                .find_map(|(index, item)| self.unknown_type_in(item, &format!("{path}[{index}]"))),
            Value::Map(map) => {
                map.iter().find_map(|(key, item)| self.unknown_type_in(item, &format!("{path}[{key:?}]")))
            }
            _ => None,
        }
    }
}

enum Failure<E> {
    UnknownType,
    Invalid(Path, E),
}

/// The value at a path that serde reported.
fn at<'a>(json: &'a Json, path: &Path) -> Option<&'a Json> {
    path.iter().try_fold(json, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}
