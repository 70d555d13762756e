//! Accepted resources of one type, by name.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::interner::Parsed;
use crate::resource::FieldNote;

/// An accepted resource.
#[derive(Debug)]
pub struct Stored<T> {
    /// What is served.
    pub resource: Arc<T>,
    /// The protobuf bytes that it came as.
    pub bytes: Arc<[u8]>,
    /// The version that was accepted.
    pub version: String,
    /// What was accepted and has no effect yet.
    pub notes: Arc<[FieldNote]>,
}

/// Resources of one type by name.
#[derive(Debug)]
pub struct Store<T>(HashMap<Arc<str>, Stored<T>>);

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Store<T> {
    /// The resource of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.0.get(name).map(|stored| &stored.resource)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Stored<T>)> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, name: &str, version: &str, parsed: Parsed<T>) {
        let Parsed { resource, bytes, notes } = parsed;
        self.0.insert(name.into(), Stored { resource, bytes, version: version.to_owned(), notes });
    }

    pub(super) fn retain(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(&**name));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}
