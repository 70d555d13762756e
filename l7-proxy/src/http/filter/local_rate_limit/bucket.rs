//! Token buckets: how many requests may pass, and how fast more may. All workers of a pod take from the same ones.
//!
//! A bucket is one number: the moment at which it would have been empty, had it filled ever since at its rate and without
//! bound. What is in it follows from the time that has passed, so nothing has to fill it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use orlop_plan::resource::local_rate_limit::{LocalRateLimit, TokenBucket};

use crate::stats::{LimitCounters, PodCounters};

/// Lock-free; as Envoy has it, tokens come one by one and not all of an interval's at its end.
#[derive(Debug)]
pub(super) struct Bucket {
    max_tokens: f64,
    tokens_per_second: f64,
    began: Instant,
    /// Seconds since `began`, as the bits of an `f64`; before it where the bucket began full.
    empty_at: AtomicU64,
}

/// What was in a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Whether there was a token.
    pub(super) is_allowed: bool,
    /// How many whole ones are left.
    pub(super) remaining: u32,
    /// Seconds until there is a token.
    pub(super) next_in: f64,
}

impl Bucket {
    fn new(settings: TokenBucket) -> Self {
        let max_tokens = f64::from(settings.max_tokens);
        let tokens_per_second = f64::from(settings.tokens_per_fill) / settings.fill_interval.as_secs_f64();
        let empty_at = AtomicU64::new((-max_tokens / tokens_per_second).to_bits());
        Self { max_tokens, tokens_per_second, began: Instant::now(), empty_at }
    }

    /// Takes a token where there is one.
    pub(super) fn take(&self) -> Taken {
        self.take_at(self.began.elapsed().as_secs_f64())
    }

    fn take_at(&self, now: f64) -> Taken {
        let mut known = self.empty_at.load(Relaxed);
        loop {
            let full_since = now - self.max_tokens / self.tokens_per_second;
            let empty_at = f64::from_bits(known).max(full_since);
            let tokens = (now - empty_at) * self.tokens_per_second;
            if tokens < 1.0 {
                return self.taken(false, tokens);
            }
            let next = (empty_at + 1.0 / self.tokens_per_second).to_bits();
            match self.empty_at.compare_exchange_weak(known, next, Relaxed, Relaxed) {
                Ok(_) => return self.taken(true, tokens - 1.0),
                Err(newer) => known = newer,
            }
        }
    }

    fn taken(&self, is_allowed: bool, left: f64) -> Taken {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "no more than max_tokens, and no less than none"
        )]
        let remaining = left.max(0.0) as u32;
        Taken { is_allowed, remaining, next_in: (1.0 - left).max(0.0) / self.tokens_per_second }
    }
}

/// A pod's buckets. Each belongs to a filter or route of the pod's plan and goes with it, as in Envoy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buckets(Arc<Mutex<Known<Arc<Bucket>>>>);

/// What a worker knows of them.
#[derive(Debug)]
pub(crate) struct WorkerBuckets {
    /// Asked when the worker meets a limit for the first time.
    shared: Buckets,
    counters: Arc<PodCounters>,
    known: RefCell<Known<Counted>>,
}

/// A bucket, and what the worker counts of it.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) bucket: Arc<Bucket>,
    pub(super) counters: Arc<LimitCounters>,
}

/// By where the limit is in memory, which stays its own for as long as it is known here.
#[derive(Debug)]
struct Known<T>(HashMap<usize, (Weak<LocalRateLimit>, T)>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone> Known<T> {
    fn get_or(&mut self, limit: &Arc<LocalRateLimit>, new: impl FnOnce() -> T) -> T {
        let key = Arc::as_ptr(limit).addr();
        if let Some((_, known)) = self.0.get(&key) {
            return known.clone();
        }
        self.0.retain(|_, (limit, _)| limit.strong_count() > 0);
        let made = new();
        self.0.insert(key, (Arc::downgrade(limit), made.clone()));
        made
    }
}

impl WorkerBuckets {
    /// Of a pod's.
    pub(crate) fn of(shared: &Buckets, counters: &Arc<PodCounters>) -> Self {
        Self { shared: shared.clone(), counters: Arc::clone(counters), known: RefCell::default() }
    }

    pub(super) fn bucket(&self, limit: &Arc<LocalRateLimit>, settings: TokenBucket) -> Counted {
        self.known.borrow_mut().get_or(limit, || {
            let mut shared = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            Counted {
                bucket: shared.get_or(limit, || Arc::new(Bucket::new(settings))),
                counters: self.counters.limit(&limit.stat_prefix),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: TokenBucket =
        TokenBucket { max_tokens: 3, tokens_per_fill: 2, fill_interval: Duration::from_secs(1) };

    #[test]
    fn a_bucket_begins_full_and_fills_at_its_rate() {
        let bucket = Bucket::new(SETTINGS);
        let allowed = |now: f64, times: usize| (0..times).filter(|_| bucket.take_at(now).is_allowed).count();
        assert_eq!(allowed(0.0, 5), 3);
        assert_eq!(allowed(0.4, 1), 0, "less than a token has come");
        assert_eq!(allowed(0.5, 2), 1);
        assert_eq!(allowed(100.0, 5), 3, "no more than it holds");
    }

    #[test]
    fn what_is_left_is_told() {
        let bucket = Bucket::new(SETTINGS);
        let taken = bucket.take_at(0.0);
        assert_eq!((taken.is_allowed, taken.remaining), (true, 2));
        assert!(taken.next_in < 1e-9, "there is another one");
        let _two_more = (bucket.take_at(0.0), bucket.take_at(0.0));
        let taken = bucket.take_at(0.0);
        assert_eq!((taken.is_allowed, taken.remaining), (false, 0));
        assert!((taken.next_in - 0.5).abs() < 1e-9);
    }
}
