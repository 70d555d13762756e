//! Earliest deadline first: a schedule that visits entries in proportion to their weights (Envoy: `EdfScheduler`).

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Positions of a list, each due again after the inverse of its weight.
#[derive(Debug, Default)]
pub(super) struct EdfSchedule {
    now: f64,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Entries that are due at the same time come in the order in which they were added.
    order: u64,
    position: usize,
}

impl EdfSchedule {
    /// Adds a position, or adds it again with the weight that it has now.
    pub(super) fn add(&mut self, position: usize, weight: f64) {
        self.order += 1;
        self.queue.push(Reverse(Entry { deadline: self.now + 1.0 / weight, order: self.order, position }));
    }

    /// Takes the position that is due first; to stay in the schedule it has to be added again.
    pub(super) fn next(&mut self) -> Option<usize> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.deadline;
        Some(entry.position)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.deadline.total_cmp(&other.deadline).then(self.order.cmp(&other.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
