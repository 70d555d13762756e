//! Sets every field of every message and looks at what becomes of it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use orlop_plan::inspect::{Inspection, inspect};
use orlop_plan::resource::FieldNote;
use orlop_proto::prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use orlop_proto::{Descriptors, ResourceType};
use serde_json::{Value, json};

use super::examples;
use super::pointer::Pointer;
use super::table::{Fate, Table};
use super::values::{Candidate, candidates, is_leaf};

impl Table {
    /// Tries everything. Fails with all that is accepted without a word and all that is refused under another name.
    pub fn probe(descriptors: &Descriptors) -> Result<Self> {
        let mut table = Self::default();
        for resource_type in [
            ResourceType::Cluster,
            ResourceType::ClusterLoadAssignment,
            ResourceType::Listener,
            ResourceType::RouteConfiguration,
            ResourceType::NameTable,
            ResourceType::Secret,
            ResourceType::ExtensionConfig,
            ResourceType::ProxyConfig,
        ] {
            let message = descriptors.message(resource_type.type_url()).context("a resource's message")?;
            for json in examples::of_resource(resource_type) {
                let mut probe =
                    Probe { descriptors, resource_type, table: &mut table, looked_into: BTreeSet::new() };
                let typed = match probe.inspect(&json)?.typed {
                    Ok(typed) => typed,
                    Err(error) => bail!("the example of a {resource_type} is refused: {error}"),
                };
                let base = Base { json, typed, silence_is_explained: false };
                probe.message(&message, "", 0, &Pointer::default(), &base)?;
            }
        }
        table.finish()?;
        Ok(table)
    }

    /// Fails where something is silent everywhere.
    fn finish(&mut self) -> Result<()> {
        for (message, fields) in &self.fields {
            for (field, holders) in fields {
                for (holder, entry) in holders {
                    if entry.fates.is_empty() {
                        let silent = &entry.silent;
                        self.failures.insert(format!(
                            "{message}.{field} in {holder:?} is accepted and changes nothing ({silent:?})"
                        ));
                    }
                }
            }
        }
        for ((message, field, holder), error) in std::mem::take(&mut self.incomplete) {
            // Another example may have been accepted.
            if self.holders(&message, &field).is_none_or(|holders| !holders.contains_key(&holder)) {
                self.failures.insert(format!("{message}.{field}: no example is accepted: {error}"));
            }
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        let failures: Vec<&str> = self.failures.iter().map(String::as_str).collect();
        bail!("{}", failures.join("\n"))
    }
}

/// An accepted resource to set fields on.
struct Base {
    json: Value,
    typed: String,
    /// The message that is looked into is itself without effect yet, which explains fields that change nothing.
    silence_is_explained: bool,
}

struct Probe<'t> {
    descriptors: &'t Descriptors,
    resource_type: ResourceType,
    table: &'t mut Table,
    /// Messages by the field that holds them, which example it is, and whether silence is explained there: what is said of a
    /// message within one that has no effect is not all that there is to say.
    looked_into: BTreeSet<(String, String, usize, bool)>,
}

/// What became of one value.
enum Trial {
    Met(Fate),
    Silent,
    /// Refused for something within it: the example is incomplete, or that is the point.
    Incomplete(String),
}

impl Probe<'_> {
    fn inspect(&self, json: &Value) -> Result<Inspection> {
        let any = self
            .descriptors
            .from_json(self.resource_type.type_url(), json)
            .with_context(|| format!("an example of a {}: {json}", self.resource_type))?;
        Ok(inspect(self.resource_type, &any.value))
    }

    fn message(
        &mut self,
        message: &MessageDescriptor,
        holder: &str,
        example: usize,
        at: &Pointer,
        base: &Base,
    ) -> Result<()> {
        let visit = (message.full_name().to_owned(), holder.to_owned(), example, base.silence_is_explained);
        if !self.looked_into.insert(visit) {
            return Ok(());
        }
        let order = message.fields().map(|field| field.name().to_owned()).collect();
        self.table.order.insert(message.full_name().to_owned(), order);
        for field in message.fields() {
            self.field(message, &field, holder, at, base)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        message: &MessageDescriptor,
        field: &FieldDescriptor,
        holder: &str,
        at: &Pointer,
        base: &Base,
    ) -> Result<()> {
        let mut incomplete = None;
        let mut refused = None;
        let mut answered = false;
        for (example, candidate) in
            candidates(self.descriptors, self.resource_type, field).into_iter().enumerate()
        {
            let (trial, next, place) = self.try_value(field, &candidate, at, base)?;
            match trial {
                Trial::Incomplete(ref error) => incomplete = Some(error.clone()),
                // One of many values, of which others are accepted.
                Trial::Met(Fate::Refused(ref reason)) if candidate.label.is_empty() => {
                    refused.get_or_insert_with(|| reason.clone());
                }
                Trial::Silent if base.silence_is_explained => {}
                Trial::Silent => {
                    answered = true;
                    let child = child(self.descriptors, field, &candidate);
                    let entry = self.table.entry(message.full_name(), field.name(), holder);
                    if child.is_some_and(|child| child.fields().len() > 0) {
                        // Its fields will say.
                        entry.fates.entry(Fate::Within).or_default().insert(candidate.label.clone());
                    } else {
                        entry.silent.insert(candidate.label.clone());
                    }
                }
                Trial::Met(ref fate) => {
                    answered = true;
                    let entry = self.table.entry(message.full_name(), field.name(), holder);
                    entry.fates.entry(fate.clone()).or_default().insert(candidate.label.clone());
                }
            }
            let explained = match trial {
                Trial::Met(Fate::NotYet(_)) => true,
                Trial::Met(Fate::Honoured | Fate::Within) | Trial::Silent => base.silence_is_explained,
                Trial::Met(Fate::NoEffect(_) | Fate::Refused(_) | Fate::RouteRefused)
                | Trial::Incomplete(_) => continue,
            };
            if let (Some(child), Some((json, typed))) = (child(self.descriptors, field, &candidate), next) {
                let holder = format!("{}.{}", message.name(), field.name());
                let next = Base { json, typed, silence_is_explained: explained };
                self.message(&child, &holder, example, &place, &next)?;
            }
        }
        let name = message.full_name();
        match (answered, refused, incomplete) {
            (true, ..) | (false, None, None) => {}
            (false, None, Some(_)) if base.silence_is_explained => {}
            (false, Some(reason), _) => {
                let entry = self.table.entry(name, field.name(), holder);
                entry.fates.entry(Fate::Refused(reason)).or_default().insert(String::new());
            }
            (false, None, Some(error)) => {
                let key = (name.to_owned(), field.name().to_owned(), holder.to_owned());
                self.table.incomplete.insert(key, error);
            }
        }
        Ok(())
    }

    /// What the example would be without a field that it has.
    fn without(&self, field: &FieldDescriptor, at: &Pointer, base: &Base) -> Result<Trial> {
        let mut json = base.json.clone();
        if let Some(object) = at.object(&mut json) {
            object.remove(field.name());
        }
        let same = self.inspect(&json)?.typed.is_ok_and(|typed| typed == base.typed);
        Ok(if same { Trial::Silent } else { Trial::Met(Fate::Honoured) })
    }

    /// Sets the field alone, or before or behind what the example has. The accepted resource comes with what was found.
    #[expect(clippy::type_complexity, reason = "three answers of one trial")]
    fn try_value(
        &self,
        field: &FieldDescriptor,
        candidate: &Candidate,
        at: &Pointer,
        base: &Base,
    ) -> Result<(Trial, Option<(Value, String)>, Pointer)> {
        let mut best = None;
        for (json, place) in placed(field, candidate, at, &base.json) {
            let inspection = self.inspect(&json)?;
            let names = Names::of(field, at, &place);
            let trial = judge(&inspection, &names, &base.typed);
            let trial = match trial {
                // It is what the example has: what would the example be without?
                Trial::Silent if at.field(field.name()).get(&base.json).is_some() && json == base.json => {
                    self.without(field, at, base)?
                }
                other => other,
            };
            if inspection.refused_routes.is_empty()
                && let Ok(typed) = inspection.typed
            {
                return Ok((trial, Some((json, typed)), place));
            }
            // Refused by its own name says more than refused for something within.
            match (&best, &trial) {
                (None, _) | (Some((Trial::Incomplete(_), _, _)), Trial::Met(_)) => {
                    best = Some((trial, None, place));
                }
                _ => {}
            }
        }
        best.context("a value has a place")
    }
}

/// How a field may be named.
struct Names {
    place: String,
    whole: String,
    oneof: Option<String>,
}

impl Names {
    fn of(field: &FieldDescriptor, at: &Pointer, place: &Pointer) -> Self {
        let oneof = field.containing_oneof();
        Self {
            place: place.to_string(),
            whole: at.field(field.name()).to_string(),
            oneof: oneof.map(|oneof| at.field(oneof.name()).to_string()),
        }
    }

    fn have(&self, path: &str) -> bool {
        path == self.place || path == self.whole || self.oneof.as_deref() == Some(path)
    }
}

/// The message that a value of the field is.
fn child(
    descriptors: &Descriptors,
    field: &FieldDescriptor,
    candidate: &Candidate,
) -> Option<MessageDescriptor> {
    let Kind::Message(message) = field.kind() else { return None };
    let message = if field.is_map() {
        let Kind::Message(value) = message.map_entry_value_field().kind() else { return None };
        value
    } else {
        message
    };
    if message.full_name() == "google.protobuf.Any" {
        return descriptors.message(&candidate.label);
    }
    (!is_leaf(message.full_name())).then_some(message)
}

/// The example with the value in its place.
fn placed(
    field: &FieldDescriptor,
    candidate: &Candidate,
    at: &Pointer,
    base: &Value,
) -> Vec<(Value, Pointer)> {
    let place = at.field(field.name());
    let set = |value: Value| {
        let mut json = base.clone();
        if let Some(object) = at.object(&mut json) {
            for other in field.containing_oneof().iter().flat_map(|oneof| oneof.fields().collect::<Vec<_>>())
            {
                object.remove(other.name());
            }
            object.insert(field.name().to_owned(), value);
        }
        json
    };
    let value = &candidate.json;
    if field.is_map() {
        return vec![(set(json!({ &candidate.key: value })), place.key(&candidate.key))];
    }
    if !field.is_list() {
        return vec![(set(value.clone()), place)];
    }
    let mut ways = vec![(set(json!([value])), place.index(0))];
    if let Some(present) = place.get(base).and_then(Value::as_array).filter(|present| !present.is_empty()) {
        let with = |index: usize| {
            let mut all = present.clone();
            all.insert(index, value.clone());
            (set(Value::Array(all)), place.index(index))
        };
        // What is there comes first: its order may matter.
        ways = vec![with(0), with(present.len()), (set(json!([value])), place.index(0))];
    }
    ways
}

fn judge(inspection: &Inspection, names: &Names, before: &str) -> Trial {
    let exactly = |notes: &[FieldNote]| {
        notes
            .iter()
            .find(|note| names.have(&note.path.to_string()))
            .map(|note| note.reason.clone().into_owned())
    };
    match &inspection.typed {
        Err(error) => {
            let paths = error.fields.iter().map(|field| (field.path.to_string(), field.reason.as_str()));
            for (path, reason) in paths {
                if names.have(&path) {
                    return Trial::Met(Fate::Refused(reason.to_owned()));
                }
            }
            Trial::Incomplete(error.to_string())
        }
        Ok(typed) => {
            if inspection.refused_routes.iter().any(|refused| names.have(&refused.error.path.to_string())) {
                Trial::Met(Fate::RouteRefused)
            } else if let Some(within) = inspection.refused_routes.first() {
                Trial::Incomplete(within.to_string())
            } else if let Some(reason) = exactly(&inspection.not_yet) {
                Trial::Met(Fate::NotYet(reason))
            } else if let Some(reason) = exactly(&inspection.no_effect) {
                Trial::Met(Fate::NoEffect(reason))
            } else if typed == before {
                Trial::Silent
            } else {
                Trial::Met(Fate::Honoured)
            }
        }
    }
}
