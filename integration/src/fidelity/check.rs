//! Whether the table knows everything in a resource.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use envoy_types::pb::google::protobuf::Any;
use orlop_proto::Descriptors;
use orlop_proto::prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};

use super::table::{Fate, Table};

/// What a set of resources was found to set.
#[derive(Debug, Default)]
pub struct Seen {
    /// Fields, values of enums and types of extensions that the table has nothing to say about, with one place of each.
    pub unknown: BTreeMap<String, String>,
    /// Fields that are refused, with one place of each.
    pub refused: BTreeMap<String, String>,
    /// Fields that have no effect yet, with one place of each.
    pub not_yet: BTreeMap<String, String>,
    /// How many different fields were met.
    pub fields: BTreeMap<String, usize>,
}

impl Table {
    /// Walks all fields of a resource, into every extension, and adds what it sets to `seen`.
    pub fn look_up(&self, descriptors: &Descriptors, any: &Any, place: &str, seen: &mut Seen) -> Result<()> {
        let message = open(descriptors, any)?.with_context(|| format!("{}: unknown type", any.type_url))?;
        self.message(descriptors, &message, false, place, seen)
    }

    fn message(
        &self,
        descriptors: &Descriptors,
        message: &DynamicMessage,
        // What holds it has no effect yet, and so has whatever the table says nothing of.
        explained: bool,
        place: &str,
        seen: &mut Seen,
    ) -> Result<()> {
        for (field, value) in message.fields() {
            let at = format!("{place}.{}", field.name());
            for value in elements(value) {
                let name = message.descriptor().full_name().to_owned();
                self.field(descriptors, &name, &field, value, explained, &at, seen)?;
            }
        }
        for unknown in message.unknown_fields() {
            let name = message.descriptor().full_name().to_owned();
            seen.unknown.insert(format!("{name}, field number {}", unknown.number()), place.to_owned());
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a walk")]
    fn field(
        &self,
        descriptors: &Descriptors,
        message: &str,
        field: &FieldDescriptor,
        value: &Value,
        explained: bool,
        at: &str,
        seen: &mut Seen,
    ) -> Result<()> {
        let name = format!("{message}.{}", field.name());
        *seen.fields.entry(name.clone()).or_default() += 1;
        let Some(fates) = self.fates(message, field.name()) else {
            if explained {
                return Ok(());
            }
            seen.unknown.entry(name).or_insert_with(|| at.to_owned());
            return Ok(());
        };
        let extension = match value {
            Value::Message(nested) if nested.descriptor().full_name() == "google.protobuf.Any" => {
                Some(nested.transcode_to::<Any>()?)
            }
            _ => None,
        };
        let label =
            extension.as_ref().map_or_else(|| label(field, value), |any| type_label(descriptors, any));
        let met: Vec<&Fate> = fates
            .iter()
            .filter(|(_, values)| {
                label.as_ref().is_none_or(|label| values.contains("") || values.contains(label.as_str()))
            })
            .map(|(fate, _)| *fate)
            .collect();
        let named = label.as_ref().map_or(name.clone(), |label| format!("{name} = {label}"));
        let silent = label.as_ref().is_some_and(|label| self.is_silent(message, field.name(), label));
        let note = |list: &mut BTreeMap<String, String>| {
            list.entry(named.clone()).or_insert_with(|| at.to_owned());
        };
        if met.is_empty() && !silent && !explained && !is_default(field, value) {
            note(&mut seen.unknown);
        }
        if met.iter().any(|fate| matches!(fate, Fate::Refused(_) | Fate::RouteRefused)) {
            note(&mut seen.refused);
        }
        if met.iter().any(|fate| matches!(fate, Fate::NotYet(_))) {
            note(&mut seen.not_yet);
        }
        // Within what is refused or without effect as a whole nothing needs to be known.
        let whole = !met.iter().any(|fate| matches!(fate, Fate::Honoured | Fate::Within | Fate::NotYet(_)));
        if whole {
            return Ok(());
        }
        let nested = match (&extension, value) {
            (Some(any), _) => open(descriptors, any)?,
            (None, Value::Message(nested)) => Some(nested.clone()),
            _ => None,
        };
        match nested {
            Some(nested) if self.is_looked_into(nested.descriptor().full_name()) => {
                let explained = explained || met.iter().any(|fate| matches!(fate, Fate::NotYet(_)));
                self.message(descriptors, &nested, explained, at, seen)
            }
            _ => Ok(()),
        }
    }
}

fn open(descriptors: &Descriptors, any: &Any) -> Result<Option<DynamicMessage>> {
    let Some(descriptor) = descriptors.message(&any.type_url) else { return Ok(None) };
    Ok(Some(DynamicMessage::decode(descriptor, any.value.as_slice())?))
}

fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::List(list) => list.iter().collect(),
        Value::Map(map) => map.values().collect(),
        single => vec![single],
    }
}

/// What the fate of a field may depend on.
fn label(field: &FieldDescriptor, value: &Value) -> Option<String> {
    match (field.kind(), value) {
        (Kind::Enum(values), Value::EnumNumber(number)) => Some(
            values.get_value(*number).map_or_else(|| number.to_string(), |value| value.name().to_owned()),
        ),
        _ => None,
    }
}

/// An extension's type, and that of what a `TypedStruct` describes.
fn type_label(descriptors: &Descriptors, any: &Any) -> Option<String> {
    let message = open(descriptors, any).ok().flatten();
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if !name.ends_with("type.v1.TypedStruct") && !name.ends_with("type.v3.TypedStruct") {
        return Some(name.to_owned());
    }
    let type_url = message?.get_field_by_name("type_url")?.as_str()?.to_owned();
    Some(format!("{} (TypedStruct)", type_url.rsplit('/').next().unwrap_or_default()))
}

fn is_default(field: &FieldDescriptor, value: &Value) -> bool {
    matches!((field.kind(), value), (Kind::Enum(_), Value::EnumNumber(0)))
}
