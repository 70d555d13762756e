//! A node of the trie.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::Value;

/// Bits of a hash that one level looks at.
const BITS: u32 = 2;
/// Children of a branch.
pub(crate) const WIDTH: usize = 1 << BITS;
/// The level below which there are no more bits: keys with the same hash stand there side by side.
pub(crate) const LEVELS: u32 = u64::BITS / BITS;
/// Most entries of a leaf above the lowest level. A change copies one leaf; more, and less is lost to what surrounds them.
pub(crate) const LEAF: usize = 32;

/// Which of a branch's children a hash falls into.
pub(crate) fn slot(hash: u64, level: u32) -> usize {
    let shift = u64::BITS - BITS * (level + 1);
    usize::from((hash >> shift).to_le_bytes()[0]) % WIDTH
}

/// The part of a hash that a leaf keeps of each entry: the last bits, which branches do not get to.
fn tag(hash: u64) -> u8 {
    hash.to_le_bytes()[0]
}

/// What is below one prefix of the hashes: a leaf where that is [`LEAF`] entries or fewer, or all of one hash.
#[derive(Debug)]
pub(crate) enum Node<K, V> {
    Leaf(Leaf<K, V>),
    Branch(Branch<K, V>),
}

/// Entries in the order of their hashes, and of their keys where these are the same. Never empty.
#[derive(Debug)]
pub(crate) struct Leaf<K, V> {
    /// Of as many entries as there is room for.
    tags: [u8; LEAF],
    entries: Box<[(K, V)]>,
}

/// More entries than a leaf holds.
#[derive(Debug)]
pub(crate) struct Branch<K, V> {
    /// Entries below.
    len: usize,
    children: Children<K, V>,
}

/// By the next bits of the hash.
pub(crate) type Children<K, V> = [Child<K, V>; WIDTH];

pub(crate) type Child<K, V> = Option<Arc<Node<K, V>>>;

impl<K, V> Node<K, V> {
    /// Entries with their hashes, in their order.
    pub(crate) fn leaf(entries: Vec<(u64, (K, V))>) -> Self {
        let mut tags = [0; LEAF];
        for (place, (hash, _)) in tags.iter_mut().zip(&entries) {
            *place = tag(*hash);
        }
        Self::Leaf(Leaf { tags, entries: entries.into_iter().map(|(_, entry)| entry).collect() })
    }

    pub(crate) fn branch(children: Children<K, V>) -> Self {
        let len = children.iter().flatten().map(|child| child.len()).sum();
        Self::Branch(Branch { len, children })
    }

    /// Entries here and below.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.entries.len(),
            Self::Branch(branch) => branch.len,
        }
    }

    /// The entries of a leaf.
    pub(crate) fn entries(&self) -> &[(K, V)] {
        match self {
            Self::Leaf(leaf) => &leaf.entries,
            Self::Branch(_) => &[],
        }
    }

    /// The children of a branch.
    pub(crate) fn children(&self) -> &[Child<K, V>] {
        match self {
            Self::Leaf(_) => &[],
            Self::Branch(branch) => &branch.children,
        }
    }

    pub(crate) fn get<Q: Eq + ?Sized>(&self, hash: u64, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
    {
        let mut node = self;
        let mut level = 0;
        loop {
            match node {
                Self::Leaf(leaf) => return leaf.get(hash, key),
                Self::Branch(branch) => node = branch.children.get(slot(hash, level))?.as_ref()?,
            }
            level += 1;
        }
    }
}

impl<K, V> Leaf<K, V> {
    fn get<Q: Eq + ?Sized>(&self, hash: u64, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
    {
        let tag = tag(hash);
        let tags = self.tags.iter().map(Some).chain(std::iter::repeat(None));
        let of_tag =
            self.entries.iter().zip(tags).filter(|(_, known)| known.is_none_or(|known| *known == tag));
        of_tag.map(|(entry, _)| entry).find(|entry| entry.0.borrow() == key)
    }
}

impl<K: Hash + Eq, V: Value> Node<K, V> {
    pub(crate) fn identity(&self, state: &mut impl Hasher) {
        for (key, value) in self.entries() {
            key.hash(state);
            value.identity(state);
        }
        for child in self.children() {
            child.as_ref().map(Arc::as_ptr).hash(state);
        }
    }

    /// Whether the two are equal, for nodes of one pool.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leaf(mine), Self::Leaf(theirs)) => {
                let both = || mine.entries.iter().zip(&theirs.entries);
                mine.entries.len() == theirs.entries.len()
                    && mine.tags == theirs.tags
                    && both().all(|(mine, theirs)| mine.0 == theirs.0 && mine.1.is(&theirs.1))
            }
            (Self::Branch(mine), Self::Branch(theirs)) => {
                let address = |child: &Child<K, V>| child.as_ref().map(Arc::as_ptr);
                mine.children.iter().map(address).eq(theirs.children.iter().map(address))
            }
            _ => false,
        }
    }
}
