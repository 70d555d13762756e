//! Messages as JSON for a reader, as Envoy's admin interface prints them: nothing that a control plane sends can make it
//! fail, and key material is not shown.

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value as StructValue};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, SerializeOptions, Value};
use serde_json::{Map, Value as Json, json};

use crate::Descriptors;
use crate::json::ANY;
use crate::typed_struct::TypedStruct;

/// What stands in the place of a text that is not shown (`MessageUtil::redact` in Envoy).
const REDACTED: &str = "[redacted]";
/// Fields that Envoy's API marks as sensitive (`udpa.annotations.sensitive`), one full name a line, sorted.
const SENSITIVE: &str = include_str!("sensitive.txt");
/// `Any` values that lie deeper in one another than this are not opened; real configuration needs four levels.
const DEEPEST: usize = 16;
/// The field that says why a value is not printed.
const NOT_PRINTED: &str = "not_printed";

impl Descriptors {
    /// The JSON form of an `Any`, `@type` included.
    ///
    /// A value that cannot be read, because its type is not in the pool or because its bytes are not a message of that
    /// type, is printed as a `udpa.type.v1.TypedStruct` that names the type and says why: the rest of the message is not
    /// lost with it.
    pub fn print(&self, type_url: &str, value: &[u8]) -> Json {
        let printed = Printer(self).open(type_url, value, 0).and_then(|mut message| {
            Printer(self).clean(&mut message, 0);
            to_json(&message)
        });
        let (type_url, json) = match printed {
            Ok(json) => (type_url.to_owned(), json),
            Err(reason) => {
                let not_printed = json!({ "type_url": type_url, "value": { NOT_PRINTED: reason } });
                (TypedStruct::type_url(), not_printed)
            }
        };
        let mut object = match json {
            Json::Object(object) => object,
            // Types that are not an object in JSON, as protobuf's JSON form has them in an `Any`.
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        object.insert("@type".to_owned(), type_url.into());
        object.into()
    }
}

fn to_json(message: &DynamicMessage) -> Result<Json, String> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| error.to_string())
}

/// What stands in the place of a value that is not printed.
fn opaque(type_url: &str, reason: &str) -> Any {
    let reason = StructValue { kind: Some(Kind::StringValue(reason.to_owned())) };
    let body = TypedStruct {
        type_url: type_url.to_owned(),
        value: Some(Struct { fields: [(NOT_PRINTED.to_owned(), reason)].into() }),
    };
    Any { type_url: TypedStruct::type_url(), value: body.encode_to_vec() }
}

#[derive(Clone, Copy)]
struct Printer<'a>(&'a Descriptors);

impl Printer<'_> {
    /// The message of an `Any` that lies this deep, or why there is none.
    fn open(self, type_url: &str, value: &[u8], depth: usize) -> Result<DynamicMessage, String> {
        let descriptor = self.0.message(type_url).ok_or("this build has no descriptor of the type")?;
        if depth == DEEPEST {
            return Err("nested too deeply".to_owned());
        }
        DynamicMessage::decode(descriptor, value).map_err(|error| format!("malformed: {error}"))
    }

    /// Takes out secrets, and what has no JSON form; says whether there was any.
    fn clean(self, message: &mut DynamicMessage, depth: usize) -> bool {
        if message.descriptor().full_name() == ANY {
            return self.clean_any(message, depth);
        }
        let mut changed = false;
        for (field, value) in message.fields_mut() {
            if is_sensitive(&field) {
                redact(value);
                changed = true;
            } else {
                changed |= self.clean_value(value, depth);
            }
        }
        changed
    }

    fn clean_value(self, value: &mut Value, depth: usize) -> bool {
        let mut changed = false;
        match value {
            Value::Message(message) => changed = self.clean(message, depth),
            Value::List(list) if matches!(list.first(), Some(Value::Message(_))) => {
                for item in list {
                    changed |= self.clean_value(item, depth);
                }
            }
            Value::Map(map) => {
                for item in map.values_mut() {
                    changed |= self.clean_value(item, depth);
                }
            }
            _ => {}
        }
        changed
    }

    fn clean_any(self, message: &mut DynamicMessage, depth: usize) -> bool {
        let Ok(any) = message.transcode_to::<Any>() else { return false };
        if any.type_url.is_empty() {
            return false;
        }
        let cleaned = match self.open(&any.type_url, &any.value, depth + 1) {
            Err(reason) => opaque(&any.type_url, &reason),
            Ok(mut inner) => {
                if !self.clean(&mut inner, depth + 1) {
                    return false;
                }
                Any { value: inner.encode_to_vec(), ..any }
            }
        };
        // An `Any` becomes an `Any`.
        let _ = message.transcode_from(&cleaned);
        true
    }
}

fn is_sensitive(field: &FieldDescriptor) -> bool {
    // Hundreds of fields are asked for each resource, and few names are on the list.
    SENSITIVE.lines().any(|name| name == field.full_name())
}

/// Hides the value and everything in it; that it was set stays visible.
fn redact(value: &mut Value) {
    match value {
        Value::String(text) => REDACTED.clone_into(text),
        Value::Bytes(bytes) => *bytes = REDACTED.into(),
        Value::Message(message) => redact_message(message),
        Value::List(list) => list.iter_mut().for_each(redact),
        Value::Map(map) => redact_map(map),
        Value::Bool(flag) => *flag = false,
        Value::I32(number) | Value::EnumNumber(number) => *number = 0,
        Value::I64(number) => *number = 0,
        Value::U32(number) => *number = 0,
        Value::U64(number) => *number = 0,
        Value::F32(number) => *number = 0.0,
        Value::F64(number) => *number = 0.0,
    }
}

fn redact_message(message: &mut DynamicMessage) {
    if message.descriptor().full_name() == ANY {
        // What it holds is not opened: the type says enough.
        if let Ok(any) = message.transcode_to::<Any>() {
            let _ = message.transcode_from(&opaque(&any.type_url, REDACTED));
        }
        return;
    }
    message.fields_mut().for_each(|(_, value)| redact(value));
}

fn redact_map(map: &mut std::collections::HashMap<MapKey, Value>) {
    map.values_mut().for_each(redact);
}
