//! The last changes that were made in a pool: when hundreds of equal maps are changed alike, one is built and the others find
//! what it came to.
//!
//! It keeps nothing alive, so a change is not remembered by its edits but by what it turned into what.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::Value;
use crate::build::Edit;
use crate::node::Node;

/// A push may change a map in several steps, and the maps take turns.
const CHANGES: usize = 8;

/// The last changes, the newest first.
#[derive(Debug)]
pub(crate) struct Memory<K, V>(VecDeque<Remembered<K, V>>);

#[derive(Debug)]
struct Remembered<K, V> {
    /// `None`: there was nothing.
    before: Option<Weak<Node<K, V>>>,
    after: Weak<Node<K, V>>,
    /// How many keys have another value after than before.
    differences: usize,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K: Hash + Eq, V: Value> Memory<K, V> {
    /// What `edits` make of `before`, where the same was asked not long ago and is alive.
    pub(crate) fn recall(
        &self,
        before: Option<&Arc<Node<K, V>>>,
        edits: &[Edit<K, V>],
    ) -> Option<Arc<Node<K, V>>> {
        self.0.iter().filter(|change| change.was_of(before)).find_map(|change| {
            let after = change.after.upgrade()?;
            let says_so = edits.iter().all(|edit| edit.holds_in(Some(&after)));
            // All that the edits change is so after, and it is as much as there was changed: nothing else was.
            (says_so && differences(before, edits) == change.differences).then_some(after)
        })
    }

    /// Remembers what `edits` have made of `before`.
    pub(crate) fn learn(
        &mut self,
        before: Option<&Arc<Node<K, V>>>,
        edits: &[Edit<K, V>],
        after: Option<&Arc<Node<K, V>>>,
    ) {
        let Some(after) = after else { return };
        self.0.truncate(CHANGES - 1);
        self.0.push_front(Remembered {
            before: before.map(Arc::downgrade),
            after: Arc::downgrade(after),
            differences: differences(before, edits),
        });
    }
}

impl<K, V> Remembered<K, V> {
    /// A node's address is not another's as long as something points there, be it weakly.
    fn was_of(&self, before: Option<&Arc<Node<K, V>>>) -> bool {
        self.before.as_ref().map(Weak::as_ptr) == before.map(Arc::as_ptr)
    }
}

impl<K: Hash + Eq, V: Value> Edit<K, V> {
    /// Whether the key is already as the edit has it.
    fn holds_in(&self, node: Option<&Arc<Node<K, V>>>) -> bool {
        let entry = node.and_then(|node| node.get(self.hash, &self.key));
        match (entry, &self.value) {
            (None, None) => true,
            (Some((_, is)), Some(value)) => is.is(value),
            _ => false,
        }
    }
}

fn differences<K: Hash + Eq, V: Value>(before: Option<&Arc<Node<K, V>>>, edits: &[Edit<K, V>]) -> usize {
    edits.iter().filter(|edit| !edit.holds_in(before)).count()
}
