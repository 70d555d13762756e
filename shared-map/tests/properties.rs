//! A shared map is a map, has one form, and shares what is equal.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use orlop_shared_map::{Change, Pool, SharedMap};
use proptest::collection::vec;
use proptest::prelude::*;

/// A key of which many have the same hash, so that the lowest level is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u8);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0 % 3).hash(state);
    }
}

/// Several leaves of them.
const KEYS: u8 = 150;

type Steps = Vec<Vec<(u8, Option<u8>)>>;

fn steps() -> impl Strategy<Value = Steps> {
    vec(vec((0..KEYS, prop::option::weighted(0.7, 0..3_u8)), 1..60), 1..12)
}

/// What stays after all steps.
fn model<K: Ord>(steps: &Steps, key: impl Fn(u8) -> K) -> BTreeMap<K, u8> {
    let mut model = BTreeMap::new();
    for (number, value) in steps.iter().flatten() {
        match value {
            Some(value) => model.insert(key(*number), *value),
            None => model.remove(&key(*number)),
        };
    }
    model
}

fn after<K: Clone + Ord + Hash>(
    pool: &mut Pool<K, u8>,
    steps: &Steps,
    key: impl Fn(u8) -> K,
) -> SharedMap<K, u8> {
    let mut map = SharedMap::new();
    for step in steps {
        map.edit(pool, step.iter().map(|(number, value)| (key(*number), *value)));
    }
    map
}

fn sorted<K: Ord + Clone>(map: &SharedMap<K, u8>) -> Vec<(K, u8)> {
    let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.clone(), *value)).collect();
    entries.sort();
    entries
}

fn edits(of: &[(u8, Option<u8>)]) -> impl Iterator<Item = (u32, Option<u8>)> {
    of.iter().map(|(number, value)| (u32::from(*number), *value))
}

fn is_a_map<K>(steps: &Steps, key: impl Fn(u8) -> K + Copy) -> Result<(), TestCaseError>
where
    K: Clone + Ord + Hash + std::fmt::Debug,
{
    let mut pool = Pool::new();
    let map = after(&mut pool, steps, key);
    let model = model(steps, key);
    prop_assert_eq!(map.len(), model.len());
    prop_assert_eq!(map.is_empty(), model.is_empty());
    for number in 0..KEYS {
        prop_assert_eq!(map.get(&key(number)), model.get(&key(number)));
    }
    prop_assert_eq!(sorted(&map), model.clone().into_iter().collect::<Vec<_>>());
    // Whatever way led here, it is the same place.
    let mut straight = SharedMap::new();
    for (key, value) in model.into_iter().rev() {
        straight.insert(&mut pool, key, value);
    }
    let nodes = pool.nodes();
    prop_assert!(map == straight);
    drop(straight);
    prop_assert_eq!(pool.nodes(), nodes);
    drop(map);
    prop_assert_eq!(pool.nodes(), 0);
    Ok(())
}

fn difference_leads_over<K>(
    one: &Steps,
    other: &Steps,
    key: impl Fn(u8) -> K + Copy,
) -> Result<(), TestCaseError>
where
    K: Clone + Ord + Hash + std::fmt::Debug,
{
    let mut pool = Pool::new();
    let (old, new) = (after(&mut pool, one, key), after(&mut pool, other, key));
    let mut led: BTreeMap<_, _> = sorted(&old).into_iter().collect();
    for change in old.diff(&new) {
        match change {
            Change::Added(key, value) => prop_assert_eq!(led.insert(key.clone(), *value), None),
            Change::Changed(key, before, value) => {
                prop_assert!(before != value);
                prop_assert_eq!(led.insert(key.clone(), *value), Some(*before));
            }
            Change::Removed(key, value) => prop_assert_eq!(led.remove(key), Some(*value)),
        }
    }
    prop_assert_eq!(led.into_iter().collect::<Vec<_>>(), sorted(&new));
    // A map of another pool differs in the same entries.
    let foreign = after(&mut Pool::new(), other, key);
    prop_assert_eq!(old.diff(&new).len(), old.diff(&foreign).len());
    prop_assert!(new == foreign);
    prop_assert_eq!(old == foreign, old == new);
    Ok(())
}

proptest! {
    #[test]
    fn it_is_a_map_of_one_form(steps in steps()) {
        is_a_map(&steps, u32::from)?;
        is_a_map(&steps, Key)?;
    }

    #[test]
    fn the_difference_leads_from_one_to_the_other(one in steps(), other in steps()) {
        difference_leads_over(&one, &other, u32::from)?;
        difference_leads_over(&one, &other, Key)?;
    }

    /// The second change may be the first one, a part of it, more than it, or another one.
    #[test]
    fn a_change_is_not_taken_for_another(start in steps(), first in steps(), keeps in vec(any::<bool>(), 60), more in steps()) {
        let mut pool = Pool::new();
        let start = after(&mut pool, &start, u32::from);
        let first: Vec<_> = first.into_iter().flatten().collect();
        let part = first.iter().zip(keeps.iter().cycle()).filter(|(_, keep)| **keep).map(|(edit, _)| *edit);
        let part: Vec<_> = part.collect();
        let with_more = first.iter().copied().chain(more.into_iter().flatten()).collect();
        let mut one = start.clone();
        one.edit(&mut pool, edits(&first));
        for second in [first, part, with_more] {
            let mut other = start.clone();
            other.edit(&mut pool, edits(&second));
            let mut model: BTreeMap<_, _> = sorted(&start).into_iter().collect();
            for (key, value) in edits(&second) {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            prop_assert_eq!(sorted(&other), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_map_goes_on_with_another_pool(one in steps(), other in steps()) {
        let mut map = after(&mut Pool::new(), &one, u32::from);
        let mut pool = Pool::new();
        for step in &other {
            map.edit(&mut pool, step.iter().map(|(number, value)| (u32::from(*number), *value)));
        }
        let all: Steps = one.into_iter().chain(other).collect();
        prop_assert!(map == after(&mut pool, &all, u32::from));
    }
}

#[test]
fn maps_that_differ_in_one_entry_share_the_rest() {
    let mut pool = Pool::new();
    let mut one = SharedMap::new();
    one.edit(&mut pool, (0..10_000_u32).map(|number| (number, Some(number))));
    let alone = pool.nodes();
    let mut other = one.clone();
    other.insert(&mut pool, 7, 8);
    assert!(pool.nodes() - alone <= 6, "{} more", pool.nodes() - alone);
    assert_eq!(one.diff(&other), [Change::Changed(&7, &7, &8)]);
    other.insert(&mut pool, 7, 7);
    assert!(one == other);
    assert_eq!(pool.nodes(), alone);
}

#[test]
fn what_many_maps_change_alike_is_built_once() {
    thread_local!(static HASHED: Cell<usize> = const { Cell::new(0) });
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Counting(u32);
    impl Hash for Counting {
        fn hash<H: Hasher>(&self, state: &mut H) {
            HASHED.set(HASHED.get() + 1);
            self.0.hash(state);
        }
    }
    let mut pool = Pool::new();
    let mut maps = vec![SharedMap::new(); 3];
    let mut change = |map: &mut SharedMap<Counting, u32>, keys: std::ops::Range<u32>| {
        let before = HASHED.get();
        map.edit(&mut pool, keys.clone().map(|key| (Counting(key), Some(key))));
        HASHED.get() - before
    };
    for keys in [0..1000, 10..11, 1000..1010] {
        let [first, others @ ..] = maps.as_mut_slice() else { unreachable!() };
        assert!(change(first, keys.clone()) > keys.len());
        for map in others {
            assert_eq!(change(map, keys.clone()), keys.len(), "each key is hashed, and nothing else");
            assert!(map == first);
        }
    }
}

#[test]
fn arcs_are_told_apart_by_where_they_point_to() {
    let mut pool = Pool::new();
    let mut map = SharedMap::new();
    let (one, equal) = (Arc::new("value"), Arc::new("value"));
    map.insert(&mut pool, 1, Arc::clone(&one));
    let before = map.clone();
    map.insert(&mut pool, 1, Arc::clone(&one));
    assert!(map == before);
    map.insert(&mut pool, 1, equal);
    assert!(map != before);
}

#[test]
fn the_last_of_several_edits_of_a_key_counts() {
    let mut map = SharedMap::new();
    map.edit(&mut Pool::new(), [(1, Some(1_u8)), (2, Some(2)), (1, None), (2, Some(3))]);
    assert_eq!(map.iter().collect::<Vec<_>>(), [(&2, &3)]);
}

#[test]
fn a_clone_is_read_on_other_threads() {
    let map: SharedMap<Arc<str>, u32> = [(Arc::from("a"), 1)].into_iter().collect();
    let there = map.clone();
    assert_eq!(std::thread::spawn(move || there.get("a").copied()).join().ok(), Some(Some(1)));
}
