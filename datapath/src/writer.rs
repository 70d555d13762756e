//! Writes the difference between what the maps hold for a workload and its new plan.
//!
//! The order leaves no gap: slots of new backend sets, then new and changed entries, then the defaults, then removals.
//! Each entry changes atomically. What the maps hold is noted entry by entry, so that after a failure in the middle the
//! next difference is still right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use orlop_abi::{
    ANY, Address, FrontendKey, FrontendValue, InboundKey, Port, Workload, inbound, outbound, workload_flags,
};
use orlop_plan::kernel::{BackendSet, Frontend, InboundAction, KernelPlan, OutboundAction};

use crate::alias;
use crate::diff::{Change, changes};
use crate::error::Error;
use crate::maps::{Capacities, MapName, MapUsage, Maps};
use crate::slices::{Acquired, Slice, Slices};

/// How many entries a plan changed, over all maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Entries that were not there before.
    pub inserted: usize,
    /// Entries that have another action or other backends.
    pub updated: usize,
    /// Entries that are gone.
    pub removed: usize,
}

/// What the maps hold for one workload.
#[derive(Debug, Default)]
pub(crate) struct Written {
    frontends: BTreeMap<Frontend, OutboundAction>,
    inbound: BTreeMap<u16, InboundAction>,
    defaults: Workload,
}

/// The maps that plans are written to, and who uses what of them.
pub(crate) struct Tables {
    pub(crate) maps: Maps,
    capacities: Capacities,
    slices: Slices,
    frontends: u32,
    inbound: u32,
}

impl Tables {
    pub(crate) fn new(maps: Maps, capacities: Capacities) -> Self {
        let slices = Slices::new(capacities.of(MapName::Backends));
        Self { maps, capacities, slices, frontends: 0, inbound: 0 }
    }

    /// Makes the maps hold `plan` for the workload. An error before the first write leaves them as they were.
    pub(crate) fn apply(
        &mut self,
        workload: u32,
        written: &mut Written,
        plan: &KernelPlan,
        fail_open: bool,
    ) -> Result<Applied, Error> {
        let defaults = defaults(plan, fail_open)?;
        let frontends = changes(&written.frontends, &plan.frontends);
        let inbound = changes(&written.inbound, &plan.inbound);
        check_room(&frontends, self.frontends, self.capacities, MapName::Frontends)?;
        check_room(&inbound, self.inbound, self.capacities, MapName::Inbound)?;
        let mut applied = Applied::default();

        for entry in self.prepare(workload, &frontends)? {
            self.write_frontend(entry, written, &mut applied)?;
        }
        for change in &inbound {
            if let Change::Insert(port, action) | Change::Update(port, action) = change {
                self.maps.set_inbound(inbound_key(workload, *port), inbound_action(*action))?;
                let new = written.inbound.insert(*port, *action).is_none();
                self.inbound += u32::from(new);
                applied.count(new);
            }
        }
        if defaults != written.defaults {
            self.maps.set_workload(workload, defaults)?;
            written.defaults = defaults;
            applied.updated += 1;
        }
        for change in &frontends {
            if let Change::Remove(frontend) = change {
                self.maps.remove_frontend(frontend_key(workload, *frontend)?)?;
                self.frontends -= 1;
                self.release(written.frontends.remove(frontend));
                applied.removed += 1;
            }
        }
        for change in &inbound {
            if let Change::Remove(port) = change {
                self.maps.remove_inbound(inbound_key(workload, *port))?;
                self.inbound -= 1;
                written.inbound.remove(port);
                applied.removed += 1;
            }
        }
        Ok(applied)
    }

    /// Removes everything that the maps hold for the workload, so that its index can be used again.
    pub(crate) fn clear(&mut self, workload: u32, written: &mut Written) -> Result<(), Error> {
        let nothing = KernelPlan {
            frontends: BTreeMap::new(),
            default_outbound: OutboundAction::Passthrough,
            inbound: BTreeMap::new(),
            default_inbound: InboundAction::Direct,
        };
        self.maps.clear_listeners(workload);
        self.apply(workload, written, &nothing, false).map(drop)
    }

    pub(crate) fn usage(&self, workloads: u32) -> Vec<MapUsage> {
        let used = |map| match map {
            MapName::Frontends => self.frontends,
            MapName::Backends => self.slices.used(),
            MapName::Inbound => self.inbound,
            MapName::Workloads | MapName::Counters => workloads,
            MapName::Listeners => workloads * 4,
        };
        let usage = |map| MapUsage { map, capacity: self.capacities.of(map), used: used(map) };
        MapName::ALL.into_iter().map(usage).collect()
    }

    /// Finds room for every backend set that the changes need and writes its slots. All or nothing.
    fn prepare(
        &mut self,
        workload: u32,
        changes: &[Change<Frontend, OutboundAction>],
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for change in changes {
            let (Change::Insert(frontend, action) | Change::Update(frontend, action)) = change else {
                continue;
            };
            match self.entry(workload, *frontend, action) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    for Entry { action, .. } in entries {
                        self.release(Some(action));
                    }
                    return Err(error);
                }
            }
        }
        Ok(entries)
    }

    fn entry(&mut self, workload: u32, frontend: Frontend, action: &OutboundAction) -> Result<Entry, Error> {
        let key = frontend_key(workload, frontend)?;
        let (code, slice) = match action {
            // Nobody to connect to: refused rather than sent to a neighbour's slots.
            OutboundAction::Balance(set) if set.backends.is_empty() => (outbound::BLOCK, None),
            OutboundAction::Balance(set) => (outbound::BALANCE, Some(self.slice(set)?)),
            OutboundAction::Proxy => (outbound::PROXY, None),
            OutboundAction::Passthrough => (outbound::PASSTHROUGH, None),
            OutboundAction::Block => (outbound::BLOCK, None),
        };
        let Slice { base, count } = slice.unwrap_or(Slice { base: 0, count: 0 });
        let value = FrontendValue { tag: key.tag(), action: code, padding: [0; 3], base, count };
        Ok(Entry { frontend, action: action.clone(), key, value })
    }

    fn slice(&mut self, set: &Arc<BackendSet>) -> Result<Slice, Error> {
        match self.slices.acquire(set, Instant::now()) {
            Some(Acquired::Shared(slice)) => Ok(slice),
            Some(Acquired::Fresh(slice)) => match self.maps.write_slice(slice, &alias::table(set)) {
                Ok(()) => Ok(slice),
                Err(error) => {
                    self.slices.release(set, Instant::now());
                    Err(error)
                }
            },
            None => Err(Error::MapFull {
                map: MapName::Backends,
                needed: u64::from(self.slices.used()) + set.backends.len() as u64,
                capacity: self.capacities.of(MapName::Backends),
            }),
        }
    }

    fn write_frontend(
        &mut self,
        entry: Entry,
        written: &mut Written,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        if let Err(error) = self.maps.set_frontend(entry.key, entry.value) {
            self.release(Some(entry.action));
            return Err(error);
        }
        let before = written.frontends.insert(entry.frontend, entry.action);
        self.frontends += u32::from(before.is_none());
        applied.count(before.is_none());
        self.release(before);
        Ok(())
    }

    /// Gives back the slice that an action that is no longer in the maps referred to.
    fn release(&mut self, action: Option<OutboundAction>) {
        if let Some(OutboundAction::Balance(set)) = action {
            self.slices.release(&set, Instant::now());
        }
    }
}

/// A frontend that is ready to be written; it holds a reference on its slice.
struct Entry {
    frontend: Frontend,
    action: OutboundAction,
    key: FrontendKey,
    value: FrontendValue,
}

impl Applied {
    fn count(&mut self, new: bool) {
        if new { self.inserted += 1 } else { self.updated += 1 }
    }
}

/// Insertions come before removals, so they need room of their own.
fn check_room<K, V>(
    changes: &[Change<K, V>],
    used: u32,
    capacities: Capacities,
    map: MapName,
) -> Result<(), Error> {
    let inserted = changes.iter().filter(|change| matches!(change, Change::Insert(..))).count();
    let (needed, capacity) = (u64::from(used) + inserted as u64, capacities.of(map));
    if needed > u64::from(capacity) { Err(Error::MapFull { map, needed, capacity }) } else { Ok(()) }
}

fn frontend_key(workload: u32, frontend: Frontend) -> Result<FrontendKey, Error> {
    let address = match frontend.addr {
        None => ANY,
        Some(ip) if ip.is_unspecified() || ip.to_canonical() != ip => {
            return Err(Error::AmbiguousFrontend(frontend));
        }
        Some(ip) => Address::from(ip),
    };
    Ok(FrontendKey { workload, address, port: Port::new(frontend.port), padding: 0 })
}

fn inbound_key(workload: u32, port: u16) -> InboundKey {
    InboundKey { workload, port: u32::from(port) }
}

fn inbound_action(action: InboundAction) -> u8 {
    match action {
        InboundAction::Direct => inbound::DIRECT,
        InboundAction::Proxy => inbound::PROXY,
        InboundAction::Drop => inbound::DROP,
    }
}

fn defaults(plan: &KernelPlan, fail_open: bool) -> Result<Workload, Error> {
    let outbound = match &plan.default_outbound {
        OutboundAction::Proxy => outbound::PROXY,
        OutboundAction::Passthrough => outbound::PASSTHROUGH,
        OutboundAction::Block => outbound::BLOCK,
        OutboundAction::Balance(_) => return Err(Error::BalancedDefault),
    };
    let any_address = plan.frontends.keys().any(|frontend| frontend.addr.is_none());
    let mut flags = 0;
    if fail_open {
        flags |= workload_flags::FAIL_OPEN;
    }
    if any_address {
        flags |= workload_flags::ANY_ADDRESS;
    }
    Ok(Workload { outbound, inbound: inbound_action(plan.default_inbound), flags, padding: [0; 5] })
}
