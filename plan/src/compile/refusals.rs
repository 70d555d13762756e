//! Listeners that were refused and have no older version.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::classify::frontend_ip;
use crate::kernel::Frontend;
use crate::resource::listener::TrafficDirection;
use crate::snapshot::{RefusedListener, ResourceType, Snapshot};

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
    pub(super) fn update(&mut self, snapshot: &Snapshot, name: &Arc<str>) -> Option<Vec<RefusedListener>> {
        let rejection = snapshot
            .rejection(ResourceType::Listener, name)
            .filter(|_| snapshot.listeners().get(name).is_none());
        let new = rejection.and_then(|rejection| {
            Some(Refusal { listener: rejection.listener.clone()?, error: rejection.error.to_string() })
        });
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

/// The destinations that a refused listener would have had of its own.
pub(super) fn frontends(listener: &RefusedListener) -> impl Iterator<Item = Frontend> {
    let own = !listener.takes_original_dst && listener.direction != TrafficDirection::Inbound;
    let addresses = listener.addresses.iter().filter(move |_| own);
    addresses.map(|address| Frontend { addr: frontend_ip(address.ip()), port: address.port() })
}
