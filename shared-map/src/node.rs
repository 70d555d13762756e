//! A node of the trie.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::Value;

/// Bits of a hash that one level looks at.
const BITS: u32 = 4;
/// The level below which there are no more bits: keys with the same hash stand there side by side.
pub(crate) const LEVELS: u32 = u64::BITS / BITS;

/// Which of a node's 16 slots a hash falls into.
pub(crate) fn slot(hash: u64, level: u32) -> u16 {
    let shift = u64::BITS - BITS * (level + 1);
    1 << ((hash >> shift) & 0xf)
}

/// Entries and children, each in the order of their slots; at the lowest level entries alone, in the order of their keys.
/// Never empty, and below the root never a single entry: that stands in the parent.
#[derive(Debug)]
pub(crate) struct Node<K, V> {
    /// Entries here and below.
    pub(crate) len: usize,
    slots: Slots,
    entries: Box<[(K, V)]>,
    children: Box<[Arc<Node<K, V>>]>,
}

/// Which slots hold an entry and which a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Slots {
    entries: u16,
    children: u16,
}

/// What a slot holds.
pub(crate) enum Slot<'a, K, V> {
    Empty,
    Entry(&'a (K, V)),
    Child(&'a Arc<Node<K, V>>),
}

/// A node in the making.
pub(crate) struct Draft<K, V> {
    slots: Slots,
    entries: Vec<(K, V)>,
    children: Vec<Arc<Node<K, V>>>,
}

impl<K, V> Default for Draft<K, V> {
    fn default() -> Self {
        Self { slots: Slots::default(), entries: Vec::new(), children: Vec::new() }
    }
}

impl<K, V> Draft<K, V> {
    /// Slots come in their order.
    pub(crate) fn entry(&mut self, slot: u16, entry: (K, V)) {
        self.slots.entries |= slot;
        self.entries.push(entry);
    }

    pub(crate) fn child(&mut self, slot: u16, child: Arc<Node<K, V>>) {
        self.slots.children |= slot;
        self.children.push(child);
    }

    /// For the lowest level, in the order of the keys.
    pub(crate) fn same_hash(entries: Vec<(K, V)>) -> Self {
        Self { slots: Slots::default(), entries, children: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.children.is_empty()
    }

    /// The entry, if it is the only one.
    pub(crate) fn into_single(mut self) -> Result<(K, V), Self> {
        if self.children.is_empty()
            && self.entries.len() == 1
            && let Some(entry) = self.entries.pop()
        {
            return Ok(entry);
        }
        Err(self)
    }

    pub(crate) fn into_node(self) -> Node<K, V> {
        let Self { slots, entries, children } = self;
        let len = entries.len() + children.iter().map(|child| child.len).sum::<usize>();
        Node { len, slots, entries: entries.into(), children: children.into() }
    }
}

impl<K: Hash + Eq, V: Value> Draft<K, V> {
    pub(crate) fn identity(&self, state: &mut impl Hasher) {
        for (key, value) in &self.entries {
            key.hash(state);
            value.identity(state);
        }
        for child in &self.children {
            Arc::as_ptr(child).hash(state);
        }
    }

    /// Whether `node` is what this would become.
    pub(crate) fn is(&self, node: &Node<K, V>) -> bool {
        let children = self.children.iter().zip(&node.children);
        let entries = self.entries.iter().zip(&node.entries);
        self.slots == node.slots
            && self.entries.len() == node.entries.len()
            && children.into_iter().all(|(mine, theirs)| Arc::ptr_eq(mine, theirs))
            && entries.into_iter().all(|(mine, theirs)| mine.0 == theirs.0 && mine.1.is(&theirs.1))
    }
}

impl<K, V> Node<K, V> {
    pub(crate) fn entries(&self) -> &[(K, V)] {
        &self.entries
    }

    pub(crate) fn children(&self) -> &[Arc<Node<K, V>>] {
        &self.children
    }

    pub(crate) fn slot(&self, slot: u16) -> Slot<'_, K, V> {
        let before = slot - 1;
        let position = |slots: u16| (slots & before).count_ones() as usize;
        if self.slots.entries & slot != 0 {
            self.entries.get(position(self.slots.entries)).map_or(Slot::Empty, Slot::Entry)
        } else if self.slots.children & slot != 0 {
            self.children.get(position(self.slots.children)).map_or(Slot::Empty, Slot::Child)
        } else {
            Slot::Empty
        }
    }

    pub(crate) fn get<Q: Eq + ?Sized>(&self, hash: u64, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
    {
        let mut node = self;
        for level in 0..LEVELS {
            match node.slot(slot(hash, level)) {
                Slot::Empty => return None,
                Slot::Entry(entry) => return (entry.0.borrow() == key).then_some(entry),
                Slot::Child(child) => node = child,
            }
        }
        node.entries.iter().find(|entry| entry.0.borrow() == key)
    }
}
