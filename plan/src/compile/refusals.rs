//! Listeners that were refused, or take a filter that was, and have no older version.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::classify::frontend_ip;
use crate::kernel::Frontend;
use crate::resource::listener::{Listener, TrafficDirection};
use crate::snapshot::{RefusedListener, ResourceType, Snapshot, discovered_filters};

/// What would have been listened to, and why it is not. There are few.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(BTreeMap<Arc<str>, Refusal>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    listener: RefusedListener,
    error: String,
}

impl Refusals {
    /// Brings one listener up to date. `None` if nothing changed; otherwise what it listened to before and does now.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        name: &Arc<str>,
        is_served: bool,
    ) -> Option<Vec<RefusedListener>> {
        let new = match snapshot.listeners().get(name) {
            None => snapshot.rejection(ResourceType::Listener, name).and_then(|rejection| {
                Some(Refusal { listener: rejection.listener.clone()?, error: rejection.error.to_string() })
            }),
            Some(_) if is_served => None,
            Some(listener) => of_filter(snapshot, listener),
        };
        if self.0.get(name) == new.as_ref() {
            return None;
        }
        let old = match new.clone() {
            Some(new) => self.0.insert(Arc::clone(name), new),
            None => self.0.remove(name),
        };
        Some(old.into_iter().chain(new).map(|refusal| refusal.listener).collect())
    }

    /// Name and refusal of the listener that would have taken connections to a destination.
    pub(crate) fn outbound(&self, frontend: Frontend) -> Option<(&str, &str)> {
        self.find(|listener| frontends(listener).any(|refused| refused == frontend))
    }

    pub(crate) fn outbound_elsewhere(&self) -> Option<(&str, &str)> {
        self.find(|listener| listener.takes_original_dst && listener.direction != TrafficDirection::Inbound)
    }

    pub(crate) fn inbound_elsewhere(&self) -> Option<(&str, &str)> {
        self.find(|listener| listener.takes_original_dst && listener.direction == TrafficDirection::Inbound)
    }

    /// Every destination that is refused.
    pub(crate) fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.0.values().flat_map(|refusal| frontends(&refusal.listener))
    }

    fn find(&self, takes: impl Fn(&RefusedListener) -> bool) -> Option<(&str, &str)> {
        let mut refusals = self.0.iter();
        let (name, refusal) = refusals.find(|(_, refusal)| takes(&refusal.listener))?;
        Some((name, &refusal.error))
    }
}

/// A listener that was accepted is refused with a filter that it takes by ECDS: without the filter it is not what it was
/// meant to be.
fn of_filter(snapshot: &Snapshot, listener: &Listener) -> Option<Refusal> {
    let mut missing = discovered_filters(listener)
        .filter(|filter| filter.default_config.is_none())
        .filter(|filter| snapshot.extensions().get(&filter.name).is_none());
    let rejection =
        missing.find_map(|filter| snapshot.rejection(ResourceType::ExtensionConfig, &filter.name))?;
    let listener = RefusedListener {
        addresses: listener.addresses.clone(),
        takes_original_dst: listener.takes_original_dst(),
        direction: listener.direction,
    };
    Some(Refusal { listener, error: format!("extension configuration {}", rejection.error) })
}

/// The destinations that a refused listener would have had of its own.
pub(super) fn frontends(listener: &RefusedListener) -> impl Iterator<Item = Frontend> {
    let own = !listener.takes_original_dst && listener.direction != TrafficDirection::Inbound;
    let addresses = listener.addresses.iter().filter(move |_| own);
    addresses.map(|address| Frontend { addr: frontend_ip(address.ip()), port: address.port() })
}
