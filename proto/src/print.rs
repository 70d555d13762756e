//! Messages as JSON for a reader, as Envoy's admin interface prints them: nothing that a control plane sends can make it
//! fail, and key material is not shown.

use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value as StructValue};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, SerializeOptions, Value};
use serde_json::Value as Json;

use crate::Descriptors;
use crate::json::ANY;
use crate::typed_struct::TypedStruct;

/// What stands in the place of a text that is not shown (`MessageUtil::redact` in Envoy).
const REDACTED: &str = "[redacted]";
/// Fields that Envoy's API marks as sensitive (`udpa.annotations.sensitive`), one full name a line, sorted.
const SENSITIVE: &str = include_str!("sensitive.txt");
/// `Any` values that lie deeper in one another than this are not opened; real configuration needs four levels.
const DEEPEST: usize = 16;

impl Descriptors {
    /// The JSON form of an `Any`, `@type` included.
    ///
    /// A value that cannot be read, because its type is not in the pool or because its bytes are not a message of that
    /// type, is printed as a `udpa.type.v1.TypedStruct` that names the type and says why: the rest of the message is not
    /// lost with it.
    pub fn print(&self, type_url: &str, value: &[u8]) -> Json {
        let any = Any { type_url: type_url.to_owned(), value: value.to_owned() };
        let printable = Printer(self).printable(any, 0);
        self.serialize(&printable).unwrap_or_else(|reason| {
            let typed_struct = opaque(type_url, &reason);
            // A struct of two strings always has a JSON form.
            self.serialize(&typed_struct).unwrap_or_default()
        })
    }

    fn serialize(&self, any: &Any) -> Result<Json, String> {
        let descriptor = self.message(ANY).ok_or("no descriptor of google.protobuf.Any")?;
        let mut dynamic = DynamicMessage::new(descriptor);
        dynamic.transcode_from(any).map_err(|error| error.to_string())?;
        let options = SerializeOptions::new().use_proto_field_name(true);
        dynamic
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| error.to_string())
    }
}

fn opaque(type_url: &str, reason: &str) -> Any {
    let reason = StructValue { kind: Some(Kind::StringValue(reason.to_owned())) };
    let body = TypedStruct {
        type_url: type_url.to_owned(),
        value: Some(Struct { fields: [("not_printed".to_owned(), reason)].into() }),
    };
    Any { type_url: TypedStruct::type_url(), value: body.encode_to_vec() }
}

struct Printer<'a>(&'a Descriptors);

impl Printer<'_> {
    /// The same value without secrets, and without anything in it that has no JSON form.
    fn printable(&self, any: Any, depth: usize) -> Any {
        let Some(descriptor) = self.0.message(&any.type_url) else {
            return opaque(&any.type_url, "this build has no descriptor of the type");
        };
        if depth == DEEPEST {
            return opaque(&any.type_url, "nested too deeply");
        }
        match DynamicMessage::decode(descriptor, any.value.as_slice()) {
            Err(error) => opaque(&any.type_url, &format!("malformed: {error}")),
            Ok(mut message) => {
                self.clean(&mut message, depth);
                Any { type_url: any.type_url, value: message.encode_to_vec() }
            }
        }
    }

    fn clean(&self, message: &mut DynamicMessage, depth: usize) {
        if message.descriptor().full_name() == ANY {
            if let Ok(any) = message.transcode_to::<Any>()
                && !any.type_url.is_empty()
            {
                // An `Any` becomes an `Any`.
                let _ = message.transcode_from(&self.printable(any, depth + 1));
            }
            return;
        }
        for (field, value) in message.fields_mut() {
            if is_sensitive(&field) {
                redact(value);
            } else {
                self.clean_value(value, depth);
            }
        }
    }

    fn clean_value(&self, value: &mut Value, depth: usize) {
        match value {
            Value::Message(message) => self.clean(message, depth),
            Value::List(list) if matches!(list.first(), Some(Value::Message(_))) => {
                for item in list {
                    self.clean_value(item, depth);
                }
            }
            Value::Map(map) => map.values_mut().for_each(|item| self.clean_value(item, depth)),
            _ => {}
        }
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
