//! Counts by size.

use crate::stats::Counter;

/// The upper bounds of Envoy's buckets, each included, as `/stats/prometheus` has them; the last bucket has no bound.
pub const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// [`BOUNDS`] of whole numbers.
const WHOLE: [u64; BOUNDS.len()] = [
    0, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000,
    1_800_000, 3_600_000,
];

/// One worker's counts of values.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    sum: Counter,
}

impl Histogram {
    pub(super) fn record(&self, value: u64) {
        let bucket = WHOLE.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.inc();
        }
        self.sum.add(value);
    }
}

/// Counts of values, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistogramStats {
    /// How many values there were in each bucket alone; the last one is beyond all [`BOUNDS`].
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Of all values.
    pub sum: u64,
}

impl HistogramStats {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        for (bucket, added) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += added;
        }
        self.sum += other.sum;
    }

    pub(super) fn merge(&mut self, counted: &Histogram) {
        for (bucket, added) in self.buckets.iter_mut().zip(&counted.buckets) {
            *bucket += added.get();
        }
        self.sum += counted.sum.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 5, 3_600_000, 3_600_001] {
            histogram.record(value);
        }
        let mut stats = HistogramStats::default();
        stats.merge(&histogram);
        let filled: Vec<_> = stats.buckets.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert_eq!(filled, [(0, &1), (1, &1), (2, &2), (18, &1), (19, &1)]);
        assert_eq!((stats.count(), stats.sum), (6, 7_200_009));
    }
}
