//! What was found of every field.

use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a field that is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// The typed resource depends on it.
    Honoured,
    /// It is a message that is taken apart: its fields have fates of their own.
    Within,
    /// It is accepted without the effect that Envoy would give it, and every workload's status says so.
    NotYet(String),
    /// It is accepted and has no effect by its nature.
    NoEffect(String),
    /// A route, or every route of a virtual host, that sets it answers 503, and every workload's status says so.
    RouteRefused,
    /// Whatever sets it is refused, by this field's path.
    Refused(String),
}

/// One field of one message, in one place: the field that holds the message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Fates, each with the values that meet it: names of an enum's values or types of an extension. Where the value does
    /// not matter there is none.
    pub fates: BTreeMap<Fate, BTreeSet<String>>,
    /// Values that change nothing, as the default does.
    pub(super) silent: BTreeSet<String>,
}

/// All fields of all messages that are looked into.
#[derive(Debug, Default)]
pub struct Table {
    /// By message, field, and the field that holds the message; empty for a resource.
    pub(super) fields: BTreeMap<String, BTreeMap<String, BTreeMap<String, Entry>>>,
    /// Every message's fields in the order of their numbers.
    pub(super) order: BTreeMap<String, Vec<String>>,
    /// Fields, by message and holder, for which an example had no place, and why.
    pub(super) incomplete: BTreeMap<(String, String, String), String>,
    /// What is wrong with the validators, or with the examples.
    pub(super) failures: BTreeSet<String>,
}

impl Table {
    pub(super) fn entry(&mut self, message: &str, field: &str, holder: &str) -> &mut Entry {
        let fields = self.fields.entry(message.to_owned()).or_default();
        fields.entry(field.to_owned()).or_default().entry(holder.to_owned()).or_default()
    }

    /// What becomes of a field, whatever holds its message; `None` where no validator looks into the message.
    pub fn fates(&self, message: &str, field: &str) -> Option<BTreeMap<&Fate, BTreeSet<&str>>> {
        let holders = self.fields.get(message)?.get(field)?;
        let mut all: BTreeMap<&Fate, BTreeSet<&str>> = BTreeMap::new();
        for (fate, values) in holders.values().flat_map(|entry| &entry.fates) {
            all.entry(fate).or_default().extend(values.iter().map(String::as_str));
        }
        Some(all)
    }

    /// Whether a value changes nothing, as the default does.
    pub(super) fn is_silent(&self, message: &str, field: &str, value: &str) -> bool {
        let holders = self.holders(message, field).into_iter().flatten();
        holders.into_iter().any(|(_, entry)| entry.silent.contains(value))
    }

    pub(super) fn holders(&self, message: &str, field: &str) -> Option<&BTreeMap<String, Entry>> {
        self.fields.get(message)?.get(field)
    }
}
