//! What was accepted and is not served yet, and what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::snapshot::ResourceType;

/// A resource that was accepted and is not served yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Its kind.
    pub resource_type: ResourceType,
    /// Its name.
    pub name: String,
    /// The kind of what it waits for.
    pub waiting_for_type: ResourceType,
    /// The name of what it waits for.
    pub waiting_for: String,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource_type, name, waiting_for_type, waiting_for } = self;
        write!(f, "{resource_type} `{name}` waits for {waiting_for_type} `{waiting_for}`")
    }
}

/// A resource by kind and name.
pub(super) type Named = (ResourceType, Arc<str>);

/// Listeners and route configurations whose newest version waits, in both directions.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    by_waiter: BTreeMap<Named, Named>,
    by_awaited: BTreeMap<Named, BTreeSet<Named>>,
}

impl Waiting {
    /// `waiter` waits for this now, or for nothing.
    pub(super) fn set(&mut self, waiter: &Named, awaited: Option<Named>) {
        if let Some(before) = self.by_waiter.remove(waiter)
            && let Some(waiters) = self.by_awaited.get_mut(&before)
        {
            waiters.remove(waiter);
            if waiters.is_empty() {
                self.by_awaited.remove(&before);
            }
        }
        if let Some(awaited) = awaited {
            self.by_waiter.insert(waiter.clone(), awaited.clone());
            self.by_awaited.entry(awaited).or_default().insert(waiter.clone());
        }
    }

    /// Who waits for it.
    pub(super) fn waiters(&self, kind: ResourceType, name: &Arc<str>) -> impl Iterator<Item = &Named> {
        // Most of the time nobody waits for anything.
        let awaited = (!self.by_awaited.is_empty()).then(|| self.by_awaited.get(&(kind, Arc::clone(name))));
        awaited.flatten().into_iter().flatten()
    }

    /// Everybody, and what for.
    pub(super) fn iter(&self) -> impl Iterator<Item = Held> {
        self.by_waiter.iter().map(|((resource_type, name), (waiting_for_type, waiting_for))| Held {
            resource_type: *resource_type,
            name: name.to_string(),
            waiting_for_type: *waiting_for_type,
            waiting_for: waiting_for.to_string(),
        })
    }
}
