//! What streams know of the resources that they gave to their consumers, kept once for all streams that know the same.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use orlop_shared_map::{Pool, SharedMap, Value};

/// Resources of one type that were given to a consumer, by name.
pub(crate) type HeldResources = SharedMap<Arc<str>, Held>;

/// What is known of a resource that was given to a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    /// Empty once a batch with it was rejected, so that no server believes it to be in force.
    pub(crate) version: Arc<str>,
    /// Of the accepted bytes.
    pub(crate) digest: Option<u64>,
}

impl Value for Held {
    fn is(&self, other: &Self) -> bool {
        self == other
    }

    fn identity(&self, state: &mut impl Hasher) {
        self.hash(state);
    }
}

/// Shared by the streams of a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    /// Keyed by client, so nobody can aim for equal digests.
    hasher: RandomState,
    pool: Arc<Mutex<Pool<Arc<str>, Held>>>,
}

impl Shared {
    pub(crate) fn digest(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }

    pub(crate) fn edit(&self, held: &mut HeldResources, edits: Vec<(Arc<str>, Option<Held>)>) {
        if !edits.is_empty() {
            held.edit(&mut self.pool.lock().unwrap_or_else(PoisonError::into_inner), edits);
        }
    }
}
