//! What a workload's resources ask for on purpose and do not get yet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::{ResourceType, Snapshot, Store};
use crate::resource::FieldNote;

/// A field that is accepted and has no effect yet, in all resources of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutEffect {
    /// The kind of resource.
    pub resource_type: ResourceType,
    /// One of the resources.
    pub resource: String,
    /// Where in that resource, and what does not happen.
    pub note: FieldNote,
    /// In how many places of how many resources alike, this one counted.
    pub places: usize,
}

impl fmt::Display for WithoutEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource_type, resource, note, places } = self;
        match resource.as_str() {
            "" => write!(f, "{resource_type}: {note}")?,
            name => write!(f, "{resource_type} {name}: {note}")?,
        }
        match places {
            1 => Ok(()),
            places => write!(f, " (and {} more places)", places - 1),
        }
    }
}

impl Snapshot {
    /// What is accepted and has no effect yet: once for each field of each kind of resource, first by kind and name.
    pub fn without_effect(&self) -> &[WithoutEffect] {
        self.without_effect.get_or_init(|| self.find_without_effect())
    }

    fn find_without_effect(&self) -> Vec<WithoutEffect> {
        let mut all = BTreeMap::new();
        collect(ResourceType::Cluster, &self.clusters, &mut all);
        collect(ResourceType::ClusterLoadAssignment, &self.load_assignments, &mut all);
        collect(ResourceType::Listener, &self.listeners, &mut all);
        collect(ResourceType::RouteConfiguration, &self.routes, &mut all);
        collect(ResourceType::Secret, &self.secrets, &mut all);
        collect(ResourceType::ExtensionConfig, &self.extensions, &mut all);
        collect(ResourceType::NameTable, &self.name_table, &mut all);
        all.into_values().collect()
    }
}

/// By kind, the field's name without what stands before it, and the reason.
type ByField = BTreeMap<(ResourceType, String, Cow<'static, str>), WithoutEffect>;

fn collect<T>(resource_type: ResourceType, store: &Store<T>, all: &mut ByField) {
    for (name, stored) in store.iter() {
        for note in stored.notes.iter() {
            let key = (resource_type, note.path.last().to_owned(), note.reason.clone());
            let found = all.entry(key).or_insert_with(|| WithoutEffect {
                resource_type,
                resource: name.to_string(),
                note: note.clone(),
                places: 0,
            });
            found.places += 1;
            // The store has no order; what is told has one.
            if **name < *found.resource {
                (found.resource, found.note) = (name.to_string(), note.clone());
            }
        }
    }
}
