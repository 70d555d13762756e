//! The difference between two sorted tables, in one pass.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What turns an entry of the old table into the new one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change<K, V> {
    Insert(K, V),
    Update(K, V),
    Remove(K),
}

/// The changes from `old` to `new`, in the order of the keys.
pub(crate) fn changes<K: Ord + Copy, V: Eq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> Vec<Change<K, V>> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut changes = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return changes,
        };
        let before = if order == Ordering::Greater { None } else { old.next() };
        let after = if order == Ordering::Less { None } else { new.next() };
        match (before, after) {
            (Some((_, a)), Some((_, b))) if a == b => {}
            (Some(_), Some((key, value))) => changes.push(Change::Update(*key, value.clone())),
            (None, Some((key, value))) => changes.push(Change::Insert(*key, value.clone())),
            (Some((key, _)), None) => changes.push(Change::Remove(*key)),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn applied_to_the_old_table_the_changes_make_the_new_one(
            old in prop::collection::btree_map(0_u8..20, 0_u8..3, 0..20),
            new in prop::collection::btree_map(0_u8..20, 0_u8..3, 0..20),
        ) {
            let mut table = old.clone();
            for change in changes(&old, &new) {
                match change {
                    Change::Insert(key, value) => prop_assert_eq!(table.insert(key, value), None),
                    Change::Update(key, value) => prop_assert!(table.insert(key, value) != Some(value)),
                    Change::Remove(key) => prop_assert!(table.remove(&key).is_some()),
                }
            }
            prop_assert_eq!(table, new);
        }
    }

    #[test]
    fn equal_tables_have_no_changes() {
        let table = BTreeMap::from([(1, 'a'), (2, 'b')]);
        assert_eq!(changes(&table, &table.clone()), []);
    }
}
