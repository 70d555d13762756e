//! What became of a pod's questions.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Since the pod was enrolled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DnsCounters {
    /// Answered from the table.
    pub answered: u64,
    /// Forwarded to whomever it was sent to.
    pub forwarded: u64,
    /// Forwarded without an answer in time, or not forwarded because too many were: the client was told so (SERVFAIL).
    pub failed: u64,
    /// Dropped because it is no query.
    pub malformed: u64,
}

/// The same while it counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) answered: Counter,
    pub(crate) forwarded: Counter,
    pub(crate) failed: Counter,
    pub(crate) malformed: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    pub(crate) fn read(&self) -> DnsCounters {
        let Self { answered, forwarded, failed, malformed } = self;
        DnsCounters {
            answered: answered.get(),
            forwarded: forwarded.get(),
            failed: failed.get(),
            malformed: malformed.get(),
        }
    }
}
