//! The map.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::slice;
use std::sync::Arc;

use crate::build::Edit;
use crate::diff::{Change, diff};
use crate::iter::Iter;
use crate::node::Node;
use crate::{Pool, Value};

/// A map of which a clone costs nothing and of which equal ones share everything. Its order is arbitrary, and the same for
/// all maps of a pool.
pub struct SharedMap<K, V>(Root<K, V>);

/// Keys without values.
pub type SharedSet<K> = SharedMap<K, ()>;

enum Root<K, V> {
    Empty,
    /// The only entry: many maps have no more.
    One((K, V)),
    /// Two entries or more.
    Many(Shared<K, V>),
}

struct Shared<K, V> {
    node: Arc<Node<K, V>>,
    /// The pool's own.
    hasher: Arc<RandomState>,
}

impl<K: Clone, V: Clone> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Root::Empty => Root::Empty,
            Root::One(entry) => Root::One(entry.clone()),
            Root::Many(Shared { node, hasher }) => {
                Root::Many(Shared { node: Arc::clone(node), hasher: Arc::clone(hasher) })
            }
        })
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self(Root::Empty)
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
        match &self.0 {
            Root::Empty => 0,
            Root::One(_) => 1,
            Root::Many(shared) => shared.node.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Root::Empty)
    }

    /// Tells maps of one pool apart while they live: equal ones have the same. `None` for those of one entry or none.
    pub fn identity(&self) -> Option<usize> {
        match &self.0 {
            Root::Empty | Root::One(_) => None,
            Root::Many(shared) => Some(Arc::as_ptr(&shared.node).addr()),
        }
    }

    /// All entries.
    pub fn iter(&self) -> Iter<'_, K, V> {
        match &self.0 {
            Root::Empty => Iter::of(&[]),
            Root::One(entry) => Iter::of(slice::from_ref(entry)),
            Root::Many(shared) => Iter::below(&shared.node),
        }
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
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
        let (key, value) = match &self.0 {
            Root::Empty => None,
            Root::One(entry) => (entry.0.borrow() == key).then_some(entry),
            Root::Many(shared) => shared.node.get(shared.hasher.hash_one(key), key),
        }?;
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
        // What is said of the only entry that there is needs no nodes.
        if let [edit] = edits.as_slice()
            && self.iter().all(|(key, _)| *key == edit.key)
        {
            let only = edits.pop().and_then(|edit| Some((edit.key, edit.value?)));
            self.0 = only.map_or(Root::Empty, Root::One);
            return;
        }
        let node = self.nodes_on(pool);
        self.0 = match pool.after(node.as_ref(), &edits) {
            None => Root::Empty,
            Some(node) => match node.entries() {
                [only] => Root::One(only.clone()),
                _ => Root::Many(Shared { node, hasher: Arc::clone(pool.hasher()) }),
            },
        };
    }

    /// The map's nodes, made anew where they are another pool's.
    fn nodes_on(&self, pool: &mut Pool<K, V>) -> Option<Arc<Node<K, V>>> {
        if let Root::Many(shared) = &self.0
            && Arc::ptr_eq(&shared.hasher, pool.hasher())
        {
            return Some(Arc::clone(&shared.node));
        }
        let entry = |(key, value): (&K, &V)| Edit {
            hash: pool.hash(key),
            key: key.clone(),
            value: Some(value.clone()),
        };
        let mut entries: Vec<_> = self.iter().map(entry).collect();
        sort(&mut entries);
        pool.after(None, &entries)
    }

    /// What turns `self` into `new`. Costs what differs, for maps of one pool.
    pub fn diff<'a>(&'a self, new: &'a Self) -> Vec<Change<'a, K, V>> {
        if let (Root::Many(old), Root::Many(new)) = (&self.0, &new.0)
            && Arc::ptr_eq(&old.hasher, &new.hasher)
        {
            let mut changes = Vec::new();
            diff(&old.hasher, &old.node, &new.node, &mut changes);
            return changes;
        }
        let gone = self.iter().filter(|(key, _)| !new.contains_key(*key));
        let come = new.iter().filter_map(|(key, value)| match self.get(key) {
            None => Some(Change::Added(key, value)),
            Some(old) => (!old.is(value)).then_some(Change::Changed(key, old, value)),
        });
        gone.map(|(key, value)| Change::Removed(key, value)).chain(come).collect()
    }
}

impl<K: Clone + Ord + Hash, V: Value> SharedMap<K, V> {
    /// Feeds what tells the map from others of its pool.
    pub(crate) fn identify(&self, state: &mut impl Hasher) {
        match &self.0 {
            Root::Empty => {}
            Root::One((key, value)) => {
                key.hash(state);
                value.identity(state);
            }
            Root::Many(shared) => Arc::as_ptr(&shared.node).hash(state),
        }
    }
}

impl<K: Clone + Ord + Hash, V: Value> PartialEq for SharedMap<K, V> {
    /// Compares pointers where both maps are of one pool.
    fn eq(&self, other: &Self) -> bool {
        if let (Root::Many(mine), Root::Many(theirs)) = (&self.0, &other.0)
            && Arc::ptr_eq(&mine.hasher, &theirs.hasher)
        {
            return Arc::ptr_eq(&mine.node, &theirs.node);
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

fn sort<K: Ord, V>(edits: &mut [Edit<K, V>]) {
    edits.sort_by(|a, b| a.hash.cmp(&b.hash).then_with(|| a.key.cmp(&b.key)));
}
