//! From a node and what changes below it to the node that comes after.

use std::cmp::Ordering;
use std::hash::Hash;
use std::sync::Arc;

use crate::node::{LEAF, LEVELS, Node, slot};
use crate::{Pool, Value};

/// A key's new value; `None` removes it.
pub(crate) struct Edit<K, V> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: Option<V>,
}

/// `node` after `edits`, which are sorted by hash and key and name each key once; `None` where nothing is left.
pub(crate) fn build<K, V>(
    pool: &mut Pool<K, V>,
    node: Option<&Arc<Node<K, V>>>,
    edits: &[Edit<K, V>],
    level: u32,
) -> Option<Arc<Node<K, V>>>
where
    K: Clone + Ord + Hash,
    V: Value,
{
    let Some(node) = node else { return fresh(pool, merged(Vec::new(), edits), level) };
    if edits.is_empty() {
        return Some(Arc::clone(node));
    }
    if node.children().is_empty() {
        let entries = hashed(pool, node.entries()).collect();
        return fresh(pool, merged(entries, edits), level);
    }
    let mut rest = edits;
    let mut position = 0;
    let children = std::array::from_fn(|_| {
        let here = rest.iter().take_while(|edit| slot(edit.hash, level) == position).count();
        let (here, behind) = rest.split_at_checked(here).unwrap_or_default();
        let child = node.children().get(position).and_then(Option::as_ref);
        rest = behind;
        position += 1;
        build(pool, child, here, level + 1)
    });
    let branch = Node::branch(children);
    if branch.len() > LEAF {
        return Some(pool.node(branch));
    }
    // None of the children is a branch: they would have more.
    let entries = branch.children().iter().flatten().flat_map(|child| child.entries());
    let entries = hashed(pool, entries).collect();
    fresh(pool, entries, level)
}

/// Entries in their order, where nothing was.
fn fresh<K, V>(pool: &mut Pool<K, V>, entries: Vec<(u64, (K, V))>, level: u32) -> Option<Arc<Node<K, V>>>
where
    K: Clone + Ord + Hash,
    V: Value,
{
    if entries.is_empty() {
        return None;
    }
    if entries.len() <= LEAF || level == LEVELS {
        return Some(pool.node(Node::leaf(entries)));
    }
    let mut rest = entries;
    let mut position = 0;
    let children = std::array::from_fn(|_| {
        let here = rest.partition_point(|(hash, _)| slot(*hash, level) <= position);
        let behind = rest.split_off(here);
        position += 1;
        fresh(pool, std::mem::replace(&mut rest, behind), level + 1)
    });
    Some(pool.node(Node::branch(children)))
}

fn hashed<'a, K, V>(
    pool: &Pool<K, V>,
    entries: impl IntoIterator<Item = &'a (K, V)>,
) -> impl Iterator<Item = (u64, (K, V))>
where
    K: Clone + Hash + 'a,
    V: Clone + 'a,
{
    entries.into_iter().map(|entry| (pool.hash(&entry.0), entry.clone()))
}

/// Entries after edits; both are in their order.
fn merged<K: Clone + Ord, V: Clone>(entries: Vec<(u64, (K, V))>, edits: &[Edit<K, V>]) -> Vec<(u64, (K, V))> {
    let mut all = Vec::with_capacity(entries.len() + edits.len());
    let mut edits = edits.iter().peekable();
    let edited = |edit: &Edit<K, V>| Some((edit.hash, (edit.key.clone(), edit.value.clone()?)));
    for (hash, entry) in entries {
        let order = |edit: &Edit<K, V>| edit.hash.cmp(&hash).then_with(|| edit.key.cmp(&entry.0));
        while let Some(edit) = edits.next_if(|edit| order(edit) == Ordering::Less) {
            all.extend(edited(edit));
        }
        match edits.next_if(|edit| order(edit) == Ordering::Equal) {
            Some(edit) => all.extend(edited(edit)),
            None => all.push((hash, entry)),
        }
    }
    all.extend(edits.filter_map(edited));
    all
}
