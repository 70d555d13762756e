//! The nodes that are alive, so that an equal one is found instead of made again.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Weak};

use hashbrown::HashTable;

use crate::Value;
use crate::build::{Edit, build};
use crate::memory::Memory;
use crate::node::Node;

/// So many tables share the nodes: the dead of one are swept at a time, which keeps the longest pause short.
const TABLES: usize = 64;
/// A table that is smaller than this is not swept.
const SMALL: usize = 64;

/// Where the maps of one owner find their equal parts. It keeps nothing alive.
#[derive(Debug)]
pub struct Pool<K, V> {
    hasher: Arc<RandomState>,
    tables: Box<[Table<K, V>; TABLES]>,
    memory: Memory<K, V>,
}

#[derive(Debug)]
struct Table<K, V> {
    nodes: HashTable<(u64, Weak<Node<K, V>>)>,
    /// The size at which the dead are looked for again.
    sweep_at: usize,
}

impl<K, V> Default for Pool<K, V> {
    fn default() -> Self {
        let tables = std::array::from_fn(|_| Table { nodes: HashTable::new(), sweep_at: SMALL });
        Self { hasher: Arc::default(), tables: Box::new(tables), memory: Memory::default() }
    }
}

impl<K, V> Pool<K, V> {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nodes the maps of this pool have, each counted once.
    pub fn nodes(&self) -> usize {
        let nodes = self.tables.iter().flat_map(|table| &table.nodes);
        nodes.filter(|(_, node)| node.strong_count() > 0).count()
    }

    pub(crate) fn hasher(&self) -> &Arc<RandomState> {
        &self.hasher
    }

    pub(crate) fn hash(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is below its divisor")]
    fn table(&mut self, hash: u64) -> &mut Table<K, V> {
        // The table itself looks at the lowest and the highest bits.
        &mut self.tables[usize::from(hash.to_ne_bytes()[4]) % TABLES]
    }
}

impl<K: Clone + Ord + Hash, V: Value> Pool<K, V> {
    /// `node` after `edits`, which are sorted by hash and key and name each key once; `None` where nothing is left.
    pub(crate) fn after(
        &mut self,
        node: Option<&Arc<Node<K, V>>>,
        edits: &[Edit<K, V>],
    ) -> Option<Arc<Node<K, V>>> {
        if let Some(known) = self.memory.recall(node, edits) {
            return Some(known);
        }
        let after = build(self, node, edits, 0);
        self.memory.learn(node, edits, after.as_ref());
        after
    }
}

impl<K: Hash + Eq, V: Value> Pool<K, V> {
    /// The node that is equal to this one and alive, or else this one.
    pub(crate) fn node(&mut self, node: Node<K, V>) -> Arc<Node<K, V>> {
        let mut state = self.hasher.build_hasher();
        node.identity(&mut state);
        let hash = state.finish();
        let table = self.table(hash);
        let mut known = None;
        table.nodes.find(hash, |(other, weak)| {
            *other == hash && {
                known = weak.upgrade().filter(|known| node.is(known));
                known.is_some()
            }
        });
        if let Some(known) = known {
            return known;
        }
        if table.nodes.len() >= table.sweep_at {
            table.nodes.retain(|(_, node)| node.strong_count() > 0);
            table.sweep_at = SMALL.max(table.nodes.len() * 2);
        }
        let node = Arc::new(node);
        table.nodes.insert_unique(hash, (hash, Arc::downgrade(&node)), |(hash, _)| *hash);
        node
    }
}
