//! The difference between two maps, found by walking only where they differ.

use std::sync::Arc;

use crate::Value;
use crate::iter::Iter;
use crate::node::{LEVELS, Node, Slot};

/// One entry of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a, K, V> {
    /// New.
    Added(&'a K, &'a V),
    /// Another value than the old one, which comes first.
    Changed(&'a K, &'a V, &'a V),
    /// Gone.
    Removed(&'a K, &'a V),
}

impl<'a, K, V> Change<'a, K, V> {
    /// The key.
    pub fn key(&self) -> &'a K {
        match self {
            Self::Added(key, _) | Self::Changed(key, _, _) | Self::Removed(key, _) => key,
        }
    }

    /// The value before.
    pub fn before(&self) -> Option<&'a V> {
        match self {
            Self::Added(..) => None,
            Self::Changed(_, old, _) | Self::Removed(_, old) => Some(old),
        }
    }

    /// The value now.
    pub fn after(&self) -> Option<&'a V> {
        match self {
            Self::Added(_, new) | Self::Changed(_, _, new) => Some(new),
            Self::Removed(..) => None,
        }
    }
}

type Changes<'a, K, V> = Vec<Change<'a, K, V>>;

pub(crate) fn diff<'a, K: Eq, V: Value>(
    old: Option<&'a Node<K, V>>,
    new: Option<&'a Node<K, V>>,
) -> Changes<'a, K, V> {
    let mut changes = Vec::new();
    match (old, new) {
        (Some(old), Some(new)) => nodes(old, new, 0, &mut changes),
        (old, new) => {
            changes.extend(Iter::new(old).map(|(key, value)| Change::Removed(key, value)));
            changes.extend(Iter::new(new).map(|(key, value)| Change::Added(key, value)));
        }
    }
    changes
}

fn nodes<'a, K: Eq, V: Value>(
    old: &'a Node<K, V>,
    new: &'a Node<K, V>,
    level: u32,
    changes: &mut Changes<'a, K, V>,
) {
    if std::ptr::eq(old, new) {
        return;
    }
    if level == LEVELS {
        return lists(&entries(old), &entries(new), changes);
    }
    for position in 0..u16::BITS {
        let bit = 1 << position;
        match (old.slot(bit), new.slot(bit)) {
            (Slot::Child(old), Slot::Child(new)) if Arc::ptr_eq(old, new) => {}
            (Slot::Child(old), Slot::Child(new)) => nodes(old, new, level + 1, changes),
            (old, new) => lists(&below(&old), &below(&new), changes),
        }
    }
}

/// For short lists: one side has one entry at most, or all of one hash.
fn lists<'a, K: Eq, V: Value>(
    old: &[(&'a K, &'a V)],
    new: &[(&'a K, &'a V)],
    changes: &mut Changes<'a, K, V>,
) {
    for (key, value) in old {
        match new.iter().find(|(other, _)| other == key) {
            None => changes.push(Change::Removed(key, value)),
            Some((_, now)) if !value.is(now) => changes.push(Change::Changed(key, value, now)),
            Some(_) => {}
        }
    }
    let added = new.iter().copied().filter(|(key, _)| old.iter().all(|(other, _)| other != key));
    changes.extend(added.map(|(key, value)| Change::Added(key, value)));
}

fn entries<K, V>(node: &Node<K, V>) -> Vec<(&K, &V)> {
    node.entries().iter().map(|(key, value)| (key, value)).collect()
}

fn below<'a, K, V>(slot: &Slot<'a, K, V>) -> Vec<(&'a K, &'a V)> {
    match slot {
        Slot::Empty => Vec::new(),
        Slot::Entry((key, value)) => vec![(key, value)],
        Slot::Child(child) => Iter::new(Some(child)).collect(),
    }
}
