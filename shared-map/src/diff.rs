//! The difference between two maps, found by walking only where they differ.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash, RandomState};

use crate::Value;
use crate::iter::Iter;
use crate::node::Node;

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

/// What turns what is below `old` into what is below `new`; both are of the pool that hashes so.
pub(crate) fn diff<'a, K: Ord + Hash, V: Value>(
    hasher: &RandomState,
    old: &'a Node<K, V>,
    new: &'a Node<K, V>,
    changes: &mut Changes<'a, K, V>,
) {
    if std::ptr::eq(old, new) {
        return;
    }
    if old.children().is_empty() || new.children().is_empty() {
        return lists(hasher, Iter::below(old), Iter::below(new), changes);
    }
    for children in old.children().iter().zip(new.children()) {
        match children {
            (None, None) => {}
            (Some(old), Some(new)) => diff(hasher, old, new, changes),
            (Some(old), None) => {
                changes.extend(Iter::below(old).map(|(key, value)| Change::Removed(key, value)));
            }
            (None, Some(new)) => {
                changes.extend(Iter::below(new).map(|(key, value)| Change::Added(key, value)));
            }
        }
    }
}

/// Entries that come in the order of their hashes and keys.
fn lists<'a, K: Ord + Hash, V: Value>(
    hasher: &RandomState,
    old: Iter<'a, K, V>,
    new: Iter<'a, K, V>,
    changes: &mut Changes<'a, K, V>,
) {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((old, _)), Some((new, _))) if old == new => Ordering::Equal,
            (Some((old, _)), Some((new, _))) => (hasher.hash_one(old), old).cmp(&(hasher.hash_one(new), new)),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        changes.extend(match (before, after) {
            (Some((key, before)), Some((_, now))) => {
                (!before.is(now)).then_some(Change::Changed(key, before, now))
            }
            (Some((key, value)), None) => Some(Change::Removed(key, value)),
            (None, after) => after.map(|(key, value)| Change::Added(key, value)),
        });
    }
}
