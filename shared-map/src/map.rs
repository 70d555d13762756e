//! The map.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use crate::build::{Built, Edit, build, sort};
use crate::diff::{Change, diff};
use crate::iter::Iter;
use crate::node::{Draft, Node, slot};
use crate::{Pool, Value};

/// A map of which a clone costs nothing and of which equal ones share everything. Its order is arbitrary, and the same for
/// all maps of a pool.
pub struct SharedMap<K, V> {
    root: Option<Root<K, V>>,
}

/// Keys without values.
pub type SharedSet<K> = SharedMap<K, ()>;

struct Root<K, V> {
    node: Arc<Node<K, V>>,
    /// The pool's own.
    hasher: Arc<RandomState>,
}

impl<K, V> Clone for Root<K, V> {
    fn clone(&self) -> Self {
        Self { node: Arc::clone(&self.node), hasher: Arc::clone(&self.hasher) }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone() }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K, V> SharedMap<K, V> {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.node.len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// All entries.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter::new(self.node())
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    fn node(&self) -> Option<&Node<K, V>> {
        self.root.as_ref().map(|root| &*root.node)
    }

    /// Where the content is: the same for equal maps of a pool.
    pub(crate) fn address(&self) -> *const () {
        self.root.as_ref().map_or(std::ptr::null(), |root| Arc::as_ptr(&root.node).cast())
    }
}

impl<K: Hash + Eq, V> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// A key as the map has it, and its value.
    pub fn get_key_value<Q>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let root = self.root.as_ref()?;
        let (key, value) = root.node.get(root.hasher.hash_one(key), key)?;
        Some((key, value))
    }

    /// Whether a key is there.
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get_key_value(key).is_some()
    }
}

impl<K: Clone + Ord + Hash, V: Value> SharedMap<K, V> {
    /// Sets one value.
    pub fn insert(&mut self, pool: &mut Pool<K, V>, key: K, value: V) {
        self.edit(pool, [(key, Some(value))]);
    }

    /// Removes one key.
    pub fn remove(&mut self, pool: &mut Pool<K, V>, key: K) {
        self.edit(pool, [(key, None)]);
    }

    /// Sets and removes (`None`) many at once, which costs less than one by one. The last value of a key counts.
    pub fn edit(&mut self, pool: &mut Pool<K, V>, edits: impl IntoIterator<Item = (K, Option<V>)>) {
        let mut edits: Vec<_> =
            edits.into_iter().map(|(key, value)| Edit { hash: pool.hash(&key), key, value }).collect();
        if edits.is_empty() {
            return;
        }
        sort(&mut edits);
        // The sort is stable; what came last is to stay.
        edits.reverse();
        edits.dedup_by(|later, first| later.key == first.key);
        edits.reverse();
        let node = self.nodes_on(pool);
        let node = match build(pool, node.as_deref(), &edits, 0) {
            Built::Empty => None,
            Built::Node(node) => Some(node),
            Built::Entry(entry) => {
                let mut draft = Draft::default();
                draft.entry(slot(pool.hash(&entry.0), 0), entry);
                Some(pool.node(draft))
            }
        };
        self.root = node.map(|node| Root { node, hasher: Arc::clone(pool.hasher()) });
    }

    /// The map's nodes, made anew where they are another pool's.
    fn nodes_on(&self, pool: &mut Pool<K, V>) -> Option<Arc<Node<K, V>>> {
        let root = self.root.as_ref()?;
        if Arc::ptr_eq(&root.hasher, pool.hasher()) {
            return Some(Arc::clone(&root.node));
        }
        let mut moved = Self::new();
        moved.edit(pool, self.iter().map(|(key, value)| (key.clone(), Some(value.clone()))));
        moved.root.map(|root| root.node)
    }

    /// What turns `self` into `new`. Costs what differs, for maps of one pool.
    pub fn diff<'a>(&'a self, new: &'a Self) -> Vec<Change<'a, K, V>> {
        if self.is_of_same_pool(new) {
            return diff(self.node(), new.node());
        }
        let gone = self.iter().filter(|(key, _)| !new.contains_key(*key));
        let come = new.iter().filter_map(|(key, value)| match self.get(key) {
            None => Some(Change::Added(key, value)),
            Some(old) => (!old.is(value)).then_some(Change::Changed(key, old, value)),
        });
        gone.map(|(key, value)| Change::Removed(key, value)).chain(come).collect()
    }

    fn is_of_same_pool(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(&mine.hasher, &theirs.hasher),
            _ => true,
        }
    }
}

impl<K: Clone + Ord + Hash, V: Value> PartialEq for SharedMap<K, V> {
    /// Compares pointers where both maps are of one pool.
    fn eq(&self, other: &Self) -> bool {
        if self.is_of_same_pool(other) {
            return self.address() == other.address();
        }
        self.len() == other.len()
            && self.iter().all(|(key, value)| other.get(key).is_some_and(|theirs| theirs.is(value)))
    }
}

impl<K: Clone + Ord + Hash, V: Value> Eq for SharedMap<K, V> {}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Clone + Ord + Hash, V: Value> FromIterator<(K, V)> for SharedMap<K, V> {
    /// A map of a pool of its own, which shares with nobody.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.edit(&mut Pool::new(), entries.into_iter().map(|(key, value)| (key, Some(value))));
        map
    }
}
