//! From a node and what changes below it to the node that comes after.

use std::hash::Hash;
use std::sync::Arc;

use crate::node::{Draft, LEVELS, Node, Slot, slot};
use crate::{Pool, Value};

/// A key's new value; `None` removes it.
pub(crate) struct Edit<K, V> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: Option<V>,
}

/// What stands in a parent's slot.
pub(crate) enum Built<K, V> {
    Empty,
    Entry((K, V)),
    Node(Arc<Node<K, V>>),
}

/// `node` after `edits`, which are sorted by hash and key and name each key once.
pub(crate) fn build<K, V>(
    pool: &mut Pool<K, V>,
    node: Option<&Node<K, V>>,
    edits: &[Edit<K, V>],
    level: u32,
) -> Built<K, V>
where
    K: Clone + Ord + Hash,
    V: Value,
{
    if level == LEVELS {
        return finish(pool, Draft::same_hash(merged(node.map_or(&[], Node::entries), edits)));
    }
    let mut draft = Draft::default();
    let mut rest = edits;
    for position in 0..u16::BITS {
        let bit = 1_u16 << position;
        let here = rest.iter().take_while(|edit| slot(edit.hash, level) == bit).count();
        let Some((here, behind)) = rest.split_at_checked(here) else { break };
        rest = behind;
        let built = match node.map_or(Slot::Empty, |node| node.slot(bit)) {
            Slot::Empty if here.is_empty() => continue,
            Slot::Entry(entry) if here.is_empty() => Built::Entry(entry.clone()),
            Slot::Child(child) if here.is_empty() => Built::Node(Arc::clone(child)),
            Slot::Empty => fresh(pool, here, level + 1),
            Slot::Entry(entry) => beside(pool, entry, here, level + 1),
            Slot::Child(child) => build(pool, Some(child), here, level + 1),
        };
        match built {
            Built::Empty => {}
            Built::Entry(entry) => draft.entry(bit, entry),
            Built::Node(child) => draft.child(bit, child),
        }
    }
    finish(pool, draft)
}

/// Edits where nothing was.
fn fresh<K, V>(pool: &mut Pool<K, V>, edits: &[Edit<K, V>], level: u32) -> Built<K, V>
where
    K: Clone + Ord + Hash,
    V: Value,
{
    match edits {
        [Edit { value: None, .. }] => Built::Empty,
        [Edit { key, value: Some(value), .. }] => Built::Entry((key.clone(), value.clone())),
        _ => build(pool, None, edits, level),
    }
}

/// Edits where one entry was.
fn beside<K, V>(pool: &mut Pool<K, V>, entry: &(K, V), edits: &[Edit<K, V>], level: u32) -> Built<K, V>
where
    K: Clone + Ord + Hash,
    V: Value,
{
    if edits.iter().any(|edit| edit.key == entry.0) {
        return fresh(pool, edits, level);
    }
    if edits.iter().all(|edit| edit.value.is_none()) {
        return Built::Entry(entry.clone());
    }
    let hash = pool.hash(&entry.0);
    let stays = Edit { hash, key: entry.0.clone(), value: Some(entry.1.clone()) };
    let mut all: Vec<_> = edits
        .iter()
        .map(|edit| Edit { hash: edit.hash, key: edit.key.clone(), value: edit.value.clone() })
        .chain([stays])
        .collect();
    sort(&mut all);
    build(pool, None, &all, level)
}

pub(crate) fn sort<K: Ord, V>(edits: &mut [Edit<K, V>]) {
    edits.sort_by(|a, b| a.hash.cmp(&b.hash).then_with(|| a.key.cmp(&b.key)));
}

/// Entries of one hash after edits; both are in the order of their keys.
fn merged<K: Clone + Ord, V: Clone>(entries: &[(K, V)], edits: &[Edit<K, V>]) -> Vec<(K, V)> {
    let untouched = entries.iter().filter(|entry| edits.iter().all(|edit| edit.key != entry.0)).cloned();
    let set = edits.iter().filter_map(|edit| Some((edit.key.clone(), edit.value.clone()?)));
    let mut all: Vec<_> = untouched.chain(set).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn finish<K: Hash + Eq, V: Value>(pool: &mut Pool<K, V>, draft: Draft<K, V>) -> Built<K, V> {
    if draft.is_empty() {
        return Built::Empty;
    }
    match draft.into_single() {
        Ok(entry) => Built::Entry(entry),
        Err(draft) => Built::Node(pool.node(draft)),
    }
}
