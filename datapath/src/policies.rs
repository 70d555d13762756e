//! Who may connect, as the maps hold it: each different policy has a number, and an entry of `SOURCES` for each of its ranges.
//!
//! A policy's entries never change while anything can read them: an inbound port is given the number of another policy, in one
//! word. Equal policies share one number, and one that nothing refers to any more rests before its entries are removed, as
//! with the slices of `BACKENDS`.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use orlop_abi::{Address, NO_POLICY, SourceKey, inbound, source};
use orlop_plan::kernel::{InboundAction, SourceAction, SourceActions, SourcePolicy};

use crate::error::Error;
use crate::maps::{MapName, Maps};

/// How long a policy rests. See `slices`.
const QUARANTINE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Policies {
    capacity: u32,
    /// Entries of `SOURCES`, resting ones included.
    entries: u32,
    numbers: HashMap<Arc<SourcePolicy>, (u16, usize)>,
    resting: VecDeque<(Instant, u16, Arc<SourcePolicy>)>,
    free: Vec<u16>,
    /// No number from this one on was ever given.
    fresh: u16,
}

impl Policies {
    pub(crate) fn new(capacity: u32) -> Self {
        let (numbers, resting, free) = (HashMap::new(), VecDeque::new(), Vec::new());
        Self { capacity, entries: 0, numbers, resting, free, fresh: NO_POLICY + 1 }
    }

    /// There is room for more entries now.
    pub(crate) fn grow(&mut self, capacity: u32) {
        self.capacity = capacity;
    }

    /// Entries that are not free.
    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    /// The number of an action's policy, which somebody holds.
    pub(crate) fn number(&self, action: &InboundAction) -> u16 {
        match action {
            InboundAction::BySource(policy) => {
                self.numbers.get(policy).map_or(NO_POLICY, |(number, _)| *number)
            }
            InboundAction::Direct | InboundAction::Proxy | InboundAction::Drop => NO_POLICY,
        }
    }

    /// Takes a reference on a policy, whose entries are there when this returns.
    pub(crate) fn acquire(
        &mut self,
        maps: &mut Maps,
        policy: &Arc<SourcePolicy>,
        now: Instant,
    ) -> Result<(), Error> {
        if let Some((_, references)) = self.numbers.get_mut(policy) {
            *references += 1;
            return Ok(());
        }
        self.reclaim(maps, now)?;
        let needed = u64::from(self.entries) + policy.sources().len() as u64;
        let number = self.free.last().copied().unwrap_or(self.fresh);
        if needed > u64::from(self.capacity) || number == u16::MAX {
            return Err(Error::MapFull { map: MapName::Sources, needed, capacity: self.capacity });
        }
        if self.free.pop().is_none() {
            self.fresh += 1;
        }
        let mut written = Ok(());
        for (range, actions) in policy.sources() {
            let (bits, key) = key(number, range);
            written = maps.set_source(bits, key, value(*actions));
            if written.is_err() {
                break;
            }
            self.entries += 1;
        }
        self.numbers.insert(Arc::clone(policy), (number, 1));
        if written.is_err() {
            self.release(policy, now);
        }
        written
    }

    /// Gives a reference back.
    pub(crate) fn release(&mut self, policy: &Arc<SourcePolicy>, now: Instant) {
        let Some((number, references)) = self.numbers.get_mut(policy) else { return };
        *references -= 1;
        if *references == 0 {
            self.resting.push_back((now, *number, Arc::clone(policy)));
            self.numbers.remove(policy);
        }
    }

    fn reclaim(&mut self, maps: &mut Maps, now: Instant) -> Result<(), Error> {
        while let Some((since, number, policy)) = self.resting.front()
            && now.saturating_duration_since(*since) >= QUARANTINE
        {
            for (range, _) in policy.sources() {
                let (bits, key) = key(*number, range);
                self.entries -= u32::from(maps.remove_source(bits, key)?);
            }
            self.free.push(*number);
            self.resting.pop_front();
        }
        Ok(())
    }
}

fn key(policy: u16, range: &IpNet) -> (u32, SourceKey) {
    let before = match range.network() {
        IpAddr::V4(_) => SourceKey::BITS_BEFORE_IP4,
        IpAddr::V6(_) => SourceKey::BITS_BEFORE_IP6,
    };
    let key = SourceKey { policy: u32::from(policy), address: Address::from(range.network()) };
    (before + u32::from(range.prefix_len()), key)
}

fn value(SourceActions { anybody, attested }: SourceActions) -> u32 {
    let of_workload =
        attested.map_or(0, |action| source::OF_WORKLOAD | said(action) << source::OF_WORKLOAD_SHIFT);
    said(anybody) | of_workload
}

fn said(action: SourceAction) -> u32 {
    match action {
        SourceAction::Direct => u32::from(inbound::DIRECT),
        SourceAction::Proxy => u32::from(inbound::PROXY),
        SourceAction::ProxyRefuses => u32::from(inbound::PROXY) | source::DENIED,
        SourceAction::Drop => u32::from(inbound::DROP) | source::DENIED,
    }
}
