//! Which listener has which address, where several may ask for the same, as an older version that is still served and the
//! one that was given its address may: the last by name, so that the same listeners always make the same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::classify::frontend_ip;
use crate::kernel::Frontend;
use crate::proxy::OutboundListeners;
use crate::resource::listener::{Listener, TrafficDirection};

/// `None` is any address.
pub(super) type Claim = (Option<IpAddr>, u16);

/// The addresses that more than one listener asks for. There are hardly ever any.
#[derive(Debug, Clone, Default)]
pub(super) struct Contested(BTreeMap<Claim, BTreeSet<Arc<str>>>);

/// Addresses that change hands, and the names of those who get them.
pub(super) type Winners = BTreeMap<Claim, Option<Arc<str>>>;

/// The addresses that an outbound listener has of its own.
pub(super) fn claims(listener: &Listener) -> impl Iterator<Item = Claim> {
    let own = !listener.takes_original_dst() && listener.direction != TrafficDirection::Inbound;
    let addresses = listener.addresses.iter().filter(move |_| own);
    addresses.map(|address| (frontend_ip(address.ip()), address.port()))
}

impl Contested {
    /// A listener is served in another version, or for the first time, or no more.
    pub(super) fn replace(
        &mut self,
        served: &OutboundListeners,
        name: &Arc<str>,
        old: Option<&Listener>,
        new: Option<&Listener>,
        winners: &mut Winners,
    ) {
        for claim in old.into_iter().flat_map(claims) {
            self.give_up(claim, name, winners);
        }
        for claim in new.into_iter().flat_map(claims) {
            self.claim(served, claim, name, winners);
        }
    }

    fn give_up(&mut self, claim: Claim, name: &Arc<str>, winners: &mut Winners) {
        let Some(claimants) = self.0.get_mut(&claim) else {
            winners.insert(claim, None);
            return;
        };
        claimants.remove(name);
        winners.insert(claim, claimants.last().cloned());
        if claimants.len() < 2 {
            self.0.remove(&claim);
        }
    }

    fn claim(&mut self, served: &OutboundListeners, claim: Claim, name: &Arc<str>, winners: &mut Winners) {
        let holder = if let Some(winner) = winners.get(&claim) {
            winner.clone()
        } else {
            let (addr, port) = claim;
            served.own(Frontend { addr, port }).map(|listener| listener.name.as_str().into())
        };
        let winner = match holder {
            Some(holder) if holder != *name => {
                let claimants = self.0.entry(claim).or_default();
                claimants.extend([holder, Arc::clone(name)]);
                claimants.last().cloned()
            }
            _ => Some(Arc::clone(name)),
        };
        winners.insert(claim, winner);
    }
}
