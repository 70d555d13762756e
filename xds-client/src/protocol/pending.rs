//! What of one type is on its way to the consumer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::Resource;

/// A response that the server waits to hear about.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) nonce: String,
    pub(super) version: String,
    /// Why it was refused, by the consumer or without it.
    pub(super) fault: Option<String>,
}

#[derive(Debug)]
pub(super) struct Upserted {
    pub(super) resource: Resource,
    /// Of its bytes.
    pub(super) digest: u64,
    /// When it dies unless it is prolonged.
    pub(super) deadline: Option<Instant>,
}

/// Received and not yet given to the consumer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) upserted: BTreeMap<Arc<str>, Upserted>,
    pub(super) removed: BTreeSet<Arc<str>>,
    pub(super) responses: Vec<Unanswered>,
}

impl Pending {
    pub(super) fn forget(&mut self, name: &str) {
        self.upserted.remove(name);
        self.removed.remove(name);
    }
}

/// At the consumer.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) digests: Vec<(Arc<str>, u64)>,
    /// Emptied when the stream ends: another stream's server does not know these nonces.
    pub(super) responses: Vec<Unanswered>,
}
