//! Which slots of `BACKENDS` hold which backend set.
//!
//! A slice never changes while anything can read it. Equal sets share one slice. A slice that is no longer referenced
//! rests for a while before it is used again, because a connect hook may have read a frontend's value and not yet the
//! slots: such a hook still finds what it looked for.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_plan::kernel::BackendSet;

use crate::slots::Layout;

/// How long a slice rests. A hook needs well below a microsecond, or some milliseconds if it is preempted.
const QUARANTINE: Duration = Duration::from_secs(1);

/// A run of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) base: u32,
    pub(crate) count: u32,
}

/// A slice for a set, and whether its slots still have to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// The set is there already.
    Shared(Slice),
    /// The slots are the caller's to write before anything refers to them.
    Fresh(Slice),
}

#[derive(Debug)]
pub(crate) struct Slices {
    capacity: u32,
    used: u32,
    /// Free runs by their first slot; neighbours are merged.
    free: BTreeMap<u32, u32>,
    resting: VecDeque<(Instant, Slice)>,
    sets: HashMap<Arc<BackendSet>, (Slice, usize)>,
}

impl Slices {
    pub(crate) fn new(capacity: u32) -> Self {
        let free = BTreeMap::from([(0, capacity)]);
        Self { capacity, used: 0, free, resting: VecDeque::new(), sets: HashMap::new() }
    }

    /// There are more slots now.
    pub(crate) fn grow(&mut self, capacity: u32) {
        self.insert_free(Slice { base: self.capacity, count: capacity.saturating_sub(self.capacity) });
        self.capacity = capacity;
    }

    /// Slots that are not free, resting ones included.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Takes a reference on `set`'s slice. `None` if no run of free slots is long enough.
    pub(crate) fn acquire(&mut self, set: &Arc<BackendSet>, now: Instant) -> Option<Acquired> {
        if let Some((slice, references)) = self.sets.get_mut(set) {
            *references += 1;
            return Some(Acquired::Shared(*slice));
        }
        self.reclaim(now);
        let count = Layout::of(set)?.slots;
        let (&base, &run) = self.free.iter().find(|(_, run)| **run >= count)?;
        self.free.remove(&base);
        if run > count {
            self.free.insert(base + count, run - count);
        }
        self.used += count;
        let slice = Slice { base, count };
        self.sets.insert(Arc::clone(set), (slice, 1));
        Some(Acquired::Fresh(slice))
    }

    /// Gives a reference back.
    pub(crate) fn release(&mut self, set: &Arc<BackendSet>, now: Instant) {
        let Some((slice, references)) = self.sets.get_mut(set) else { return };
        *references -= 1;
        if *references == 0 {
            self.resting.push_back((now, *slice));
            self.sets.remove(set);
        }
    }

    fn reclaim(&mut self, now: Instant) {
        while let Some((since, slice)) = self.resting.front().copied()
            && now.saturating_duration_since(since) >= QUARANTINE
        {
            self.resting.pop_front();
            self.used -= slice.count;
            self.insert_free(slice);
        }
    }

    fn insert_free(&mut self, Slice { mut base, mut count }: Slice) {
        if let Some(after) = self.free.remove(&(base + count)) {
            count += after;
        }
        if let Some((&before, &run)) = self.free.range(..base).next_back()
            && before + run == base
        {
            base = before;
            count += run;
        }
        if count > 0 {
            self.free.insert(base, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(first_port: u16, len: u16) -> Arc<BackendSet> {
        let backends = (first_port..first_port + len)
            .map(|port| orlop_plan::kernel::Backend { address: ([10, 0, 0, 1], port).into(), weight: 1 })
            .collect();
        Arc::new(BackendSet::weighted(backends))
    }

    #[test]
    fn equal_sets_share_a_slice_and_it_stays_until_the_last_reference_goes() {
        let (mut slices, now) = (Slices::new(10), Instant::now());
        let slice = Slice { base: 0, count: 3 };
        assert_eq!(slices.acquire(&set(1, 3), now), Some(Acquired::Fresh(slice)));
        assert_eq!(slices.acquire(&set(1, 3), now), Some(Acquired::Shared(slice)));
        slices.release(&set(1, 3), now);
        assert_eq!(slices.acquire(&set(1, 3), now), Some(Acquired::Shared(slice)));
    }

    #[test]
    fn a_released_slice_is_not_reused_before_it_has_rested() {
        let (mut slices, now) = (Slices::new(4), Instant::now());
        slices.acquire(&set(1, 3), now);
        slices.release(&set(1, 3), now);
        assert_eq!(slices.acquire(&set(5, 3), now + QUARANTINE / 2), None);
        let slice = Slice { base: 0, count: 3 };
        assert_eq!(slices.acquire(&set(5, 3), now + QUARANTINE), Some(Acquired::Fresh(slice)));
    }

    #[test]
    fn slots_that_are_added_join_the_free_ones_before_them() {
        let (mut slices, now) = (Slices::new(4), Instant::now());
        slices.acquire(&set(1, 3), now);
        assert_eq!(slices.acquire(&set(5, 3), now), None);
        slices.grow(8);
        assert_eq!(slices.acquire(&set(5, 5), now), Some(Acquired::Fresh(Slice { base: 3, count: 5 })));
    }

    proptest! {
        /// Whatever is acquired and released, no two live slices overlap, and everything comes back as one free run.
        #[test]
        fn live_slices_never_overlap(steps in prop::collection::vec((0_u16..12, 1_u16..9, any::<bool>()), 1..120)) {
            let mut slices = Slices::new(64);
            let mut now = Instant::now();
            let mut live: Vec<(Arc<BackendSet>, Slice)> = Vec::new();
            for (port, len, acquire) in steps {
                now += QUARANTINE / 3;
                if acquire {
                    let set = set(port * 100, len);
                    if let Some(Acquired::Shared(slice) | Acquired::Fresh(slice)) = slices.acquire(&set, now) {
                        live.push((set, slice));
                    }
                } else if !live.is_empty() {
                    let (set, _) = live.remove(usize::from(port) % live.len());
                    slices.release(&set, now);
                }
                for (a_set, a) in &live {
                    for (b_set, b) in &live {
                        let apart = a.base + a.count <= b.base || b.base + b.count <= a.base;
                        prop_assert!(apart || a_set == b_set);
                    }
                }
            }
            for (set, _) in live {
                slices.release(&set, now);
            }
            slices.reclaim(now + QUARANTINE);
            prop_assert_eq!(slices.used(), 0);
            prop_assert_eq!(slices.free, BTreeMap::from([(0, 64)]));
        }
    }
}
