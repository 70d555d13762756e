//! Writes the difference between what the maps hold for a workload and its new plan.
//!
//! The order leaves no gap: slots of new backend sets, then new and changed entries, then the defaults, then removals.
//! Each entry changes atomically. What the maps hold is a clone of the plan's tables, so that the next difference costs what
//! differs; after a failure in the middle it is what had been written by then.

use std::sync::Arc;
use std::time::Instant;

use orlop_abi::{
    ANY, Address, FrontendKey, FrontendValue, InboundKey, LISTENERS_PER_WORKLOAD, NO_POLICY, Port, Workload,
    inbound, outbound, workload_flags,
};
use orlop_plan::exclusion::Exclusions;
use orlop_plan::kernel::{BackendSet, Frontend, InboundAction, KernelPlan, OutboundAction, SourcePolicy};
use orlop_shared_map::{Change, Pool, SharedMap};

use crate::error::Error;
use crate::exclusions::ExclusionTables;
use crate::maps::{Capacities, MapName, MapUsage, Maps};
use crate::policies::Policies;
use crate::slices::{Acquired, Slice, Slices};
use crate::slots::{self, Layout};

/// How many entries a plan changed, over all maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Entries that were not there before.
    pub inserted: usize,
    /// Entries that have another action or other backends.
    pub updated: usize,
    /// Entries that are gone.
    pub removed: usize,
    /// Destinations and ports that are left to the proxy for want of room in the maps.
    pub without_room: usize,
}

/// What the maps hold for one workload.
#[derive(Debug, Default)]
pub(crate) struct Written {
    frontends: SharedMap<Frontend, OutboundAction>,
    inbound: SharedMap<u16, InboundAction>,
    /// Frontends for any address.
    any_address: usize,
    defaults: Workload,
    /// The policies that are referred to, one reference each time; after a failure those of two plans.
    held: Vec<Arc<SourcePolicy>>,
}

/// The maps that plans are written to, and who uses what of them.
pub(crate) struct Tables {
    pub(crate) maps: Maps,
    capacities: Capacities,
    slices: Slices,
    exclusions: ExclusionTables,
    policies: Policies,
    frontends: u32,
    inbound: u32,
}

impl Tables {
    pub(crate) fn new(maps: Maps, capacities: Capacities) -> Self {
        let slices = Slices::new(capacities.of(MapName::Backends));
        let exclusions = ExclusionTables::default();
        let policies = Policies::new(capacities.of(MapName::Sources));
        Self { maps, capacities, slices, exclusions, policies, frontends: 0, inbound: 0 }
    }

    /// Makes the maps hold `plan` for the workload, and tells `changed` of each frontend what it was and is. An error before the first write leaves them as they were.
    pub(crate) fn apply(
        &mut self,
        workload: u32,
        written: &mut Written,
        plan: &KernelPlan,
        flags: u8,
        mut changed: impl FnMut(Frontend, Option<&OutboundAction>, Option<&OutboundAction>),
    ) -> Result<Applied, Error> {
        let frontends = written.frontends.diff(&plan.frontends);
        let inbound = written.inbound.diff(&plan.inbound);
        let any_address = frontends.iter().filter(|change| change.key().addr.is_none()).fold(
            written.any_address,
            |count, change| match change {
                Change::Added(..) => count + 1,
                Change::Changed(..) => count,
                Change::Removed(..) => count - 1,
            },
        );
        let mut defaults = defaults(plan, flags, any_address > 0)?;
        check_room(&frontends, self.frontends, self.capacities, MapName::Frontends)?;
        check_room(&inbound, self.inbound, self.capacities, MapName::Inbound)?;
        let held = self.hold(plan)?;
        defaults.policy = self.policies.number(&plan.default_inbound);
        let entries = match self.prepare(workload, &frontends) {
            Ok(entries) => entries,
            Err(error) => {
                self.let_go(&held);
                return Err(error);
            }
        };

        let mut done = Done::default();
        let outcome = self.write_frontends(entries, &mut done).and_then(|()| {
            let defaults = (defaults != written.defaults).then_some(defaults);
            self.write_the_rest(workload, &inbound, defaults, &frontends, &mut done)
        });
        if outcome.is_ok() {
            for change in &frontends {
                changed(*change.key(), change.before(), change.after());
            }
        }
        drop((frontends, inbound));
        match outcome {
            Ok(()) => {
                self.let_go(&written.held);
                let KernelPlan { frontends, inbound, .. } = plan.clone();
                *written = Written { frontends, inbound, any_address, defaults, held };
                Ok(done.applied)
            }
            Err(error) => {
                written.note(done);
                written.held.extend(held);
                Err(error)
            }
        }
    }

    /// Inbound ports and defaults, then what is gone.
    fn write_the_rest(
        &mut self,
        workload: u32,
        inbound: &[Change<'_, u16, InboundAction>],
        defaults: Option<Workload>,
        frontends: &[Change<'_, Frontend, OutboundAction>],
        done: &mut Done,
    ) -> Result<(), Error> {
        for change in inbound {
            if let Some(action) = change.after() {
                let policy = self.policies.number(action);
                self.maps.set_inbound(
                    inbound_key(workload, *change.key()),
                    inbound_action(action),
                    policy,
                )?;
                self.inbound += u32::from(change.before().is_none());
                done.applied.count(change.before().is_none());
                done.inbound.push((*change.key(), Some(action.clone())));
            }
        }
        if let Some(defaults) = defaults {
            self.maps.set_workload(workload, defaults)?;
            done.defaults = Some(defaults);
            done.applied.updated += 1;
        }
        for change in frontends {
            if let Change::Removed(frontend, action) = change {
                self.maps.remove_frontend(frontend_key(workload, **frontend)?)?;
                self.frontends -= 1;
                self.release(action);
                done.applied.removed += 1;
                done.frontends.push((**frontend, None));
            }
        }
        for change in inbound {
            if let Change::Removed(port, _) = change {
                self.maps.remove_inbound(inbound_key(workload, **port))?;
                self.inbound -= 1;
                done.applied.removed += 1;
                done.inbound.push((**port, None));
            }
        }
        Ok(())
    }

    /// Goes on with other maps, of which one has grown and holds nothing yet.
    pub(crate) fn move_to(
        &mut self,
        mut maps: Maps,
        map: MapName,
        capacities: Capacities,
    ) -> Result<(), Error> {
        maps.take_over(&mut self.maps, map, self.capacities.of(MapName::Backends))?;
        (self.maps, self.capacities) = (maps, capacities);
        self.slices.grow(capacities.of(MapName::Backends));
        self.policies.grow(capacities.of(MapName::Sources));
        Ok(())
    }

    /// Removes everything that the maps hold for the workload, so that its index can be used again.
    pub(crate) fn clear(&mut self, workload: u32, written: &mut Written) -> Result<(), Error> {
        self.maps.clear_listeners(workload);
        self.apply(workload, written, &KernelPlan::default(), 0, |_, _, _| {})?;
        self.maps.connections.forget(workload)
    }

    /// Writes what annotations keep from being taken.
    pub(crate) fn exclude(&mut self, workload: u32, exclusions: &Exclusions) -> Result<(), Error> {
        let capacity = self.capacities.of(MapName::Ports);
        self.exclusions.write(&mut self.maps, capacity, workload, exclusions)
    }

    /// Removes that again.
    pub(crate) fn include(&mut self, workload: u32, exclusions: &Exclusions) -> Result<(), Error> {
        self.exclusions.clear(&mut self.maps, workload, exclusions)
    }

    pub(crate) fn usage(&self, workloads: u32) -> Vec<MapUsage> {
        let used = |map| match map {
            MapName::Frontends => self.frontends,
            MapName::Backends => self.slices.used(),
            MapName::Inbound => self.inbound,
            MapName::Workloads | MapName::Counters | MapName::Pods | MapName::Steered => workloads,
            MapName::Traffic | MapName::Limited | MapName::Connections | MapName::Attested => {
                self.maps.connections.entries(map)
            }
            MapName::Peers => self.maps.peers(),
            // Records come and go.
            MapName::Flows | MapName::Watched => 0,
            MapName::Listeners => workloads * LISTENERS_PER_WORKLOAD,
            MapName::Ports => self.exclusions.ports(),
            MapName::Ranges => self.exclusions.ranges(),
            MapName::Sources => self.policies.entries(),
        };
        let usage = |map| MapUsage { map, capacity: self.capacities.of(map), used: used(map) };
        MapName::ALL.into_iter().map(usage).collect()
    }

    /// Takes a reference on each policy of the plan. All or nothing.
    fn hold(&mut self, plan: &KernelPlan) -> Result<Vec<Arc<SourcePolicy>>, Error> {
        let mut held = Vec::new();
        for action in plan.inbound.values().chain([&plan.default_inbound]) {
            let InboundAction::BySource(policy) = action else { continue };
            if let Err(error) = self.policies.acquire(&mut self.maps, policy, Instant::now()) {
                self.let_go(&held);
                return Err(error);
            }
            held.push(Arc::clone(policy));
        }
        Ok(held)
    }

    fn let_go(&mut self, held: &[Arc<SourcePolicy>]) {
        for policy in held {
            self.policies.release(policy, Instant::now());
        }
    }

    /// Finds room for every backend set that the changes need and writes its slots. All or nothing.
    fn prepare<'a>(
        &mut self,
        workload: u32,
        changes: &[Change<'a, Frontend, OutboundAction>],
    ) -> Result<Vec<Entry<'a>>, Error> {
        let mut entries = Vec::new();
        for change in changes {
            let Some(action) = change.after() else { continue };
            match self.entry(workload, *change.key(), action) {
                Ok((key, value)) => {
                    entries.push(Entry { frontend: *change.key(), old: change.before(), action, key, value });
                }
                Err(error) => {
                    for Entry { action, .. } in entries {
                        self.release(action);
                    }
                    return Err(error);
                }
            }
        }
        Ok(entries)
    }

    fn entry(
        &mut self,
        workload: u32,
        frontend: Frontend,
        action: &OutboundAction,
    ) -> Result<(FrontendKey, FrontendValue), Error> {
        let key = frontend_key(workload, frontend)?;
        let mut value = FrontendValue {
            tag: key.tag(),
            action: outbound::BLOCK,
            flags: 0,
            choices: 0,
            padding: 0,
            base: 0,
            count: 0,
        };
        match action {
            // Nobody to connect to: refused rather than sent to a neighbour's slots.
            OutboundAction::Balance(set) if set.backends.is_empty() => {}
            OutboundAction::Balance(set) => {
                let (slice, layout) = self.slice(set)?;
                value.action = outbound::BALANCE;
                value.flags = layout.flags;
                value.choices = layout.choices;
                value.base = slice.base + layout.before_base;
                value.count = layout.count;
            }
            OutboundAction::Proxy => value.action = outbound::PROXY,
            OutboundAction::Passthrough => value.action = outbound::PASSTHROUGH,
            OutboundAction::Block => {}
        }
        Ok((key, value))
    }

    fn slice(&mut self, set: &Arc<BackendSet>) -> Result<(Slice, Layout), Error> {
        let full = |slices: &Slices| Error::MapFull {
            map: MapName::Backends,
            needed: u64::from(slices.used()) + set.backends.len() as u64,
            capacity: self.capacities.of(MapName::Backends),
        };
        let layout = Layout::of(set).ok_or_else(|| full(&self.slices))?;
        match self.slices.acquire(set, Instant::now()) {
            Some(Acquired::Shared(slice)) => Ok((slice, layout)),
            Some(Acquired::Fresh(slice)) => match self.maps.write_slice(slice, &slots::slots(set)) {
                Ok(()) => Ok((slice, layout)),
                Err(error) => {
                    self.slices.release(set, Instant::now());
                    Err(error)
                }
            },
            None => Err(full(&self.slices)),
        }
    }

    fn write_frontends(&mut self, entries: Vec<Entry<'_>>, done: &mut Done) -> Result<(), Error> {
        let mut entries = entries.into_iter();
        while let Some(Entry { frontend, old, action, key, value }) = entries.next() {
            if let Err(error) = self.maps.set_frontend(key, value) {
                self.release(action);
                for unwritten in entries {
                    self.release(unwritten.action);
                }
                return Err(error);
            }
            self.frontends += u32::from(old.is_none());
            done.applied.count(old.is_none());
            done.frontends.push((frontend, Some(action.clone())));
            if let Some(old) = old {
                self.release(old);
            }
        }
        Ok(())
    }

    /// Gives back the slice that an action that is no longer in the maps referred to.
    fn release(&mut self, action: &OutboundAction) {
        if let OutboundAction::Balance(set) = action {
            self.slices.release(set, Instant::now());
        }
    }
}

/// A frontend that is ready to be written; it holds a reference on its slice.
struct Entry<'a> {
    frontend: Frontend,
    old: Option<&'a OutboundAction>,
    action: &'a OutboundAction,
    key: FrontendKey,
    value: FrontendValue,
}

/// What of a plan is in the maps already.
#[derive(Default)]
struct Done {
    applied: Applied,
    frontends: Vec<(Frontend, Option<OutboundAction>)>,
    inbound: Vec<(u16, Option<InboundAction>)>,
    defaults: Option<Workload>,
}

impl Written {
    /// What the maps hold for a destination.
    pub(crate) fn frontend(&self, frontend: Frontend) -> Option<&OutboundAction> {
        self.frontends.get(&frontend)
    }

    /// What they hold for a port.
    pub(crate) fn inbound_at(&self, port: u16) -> Option<&InboundAction> {
        self.inbound.get(&port)
    }

    /// After a failure in the middle.
    fn note(&mut self, done: Done) {
        let Done { applied: _, frontends, inbound, defaults } = done;
        self.frontends.edit(&mut Pool::new(), frontends);
        self.inbound.edit(&mut Pool::new(), inbound);
        self.defaults = defaults.unwrap_or(self.defaults);
        self.any_address = self.frontends.keys().filter(|frontend| frontend.addr.is_none()).count();
    }
}

impl Applied {
    fn count(&mut self, new: bool) {
        if new { self.inserted += 1 } else { self.updated += 1 }
    }
}

/// Insertions come before removals, so they need room of their own.
fn check_room<K, V>(
    changes: &[Change<'_, K, V>],
    used: u32,
    capacities: Capacities,
    map: MapName,
) -> Result<(), Error> {
    let inserted = changes.iter().filter(|change| matches!(change, Change::Added(..))).count();
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

fn inbound_action(action: &InboundAction) -> u8 {
    match action {
        InboundAction::BySource(_) => inbound::BY_SOURCE,
        InboundAction::Direct => inbound::DIRECT,
        InboundAction::Proxy => inbound::PROXY,
        InboundAction::Drop => inbound::DROP,
    }
}

fn defaults(plan: &KernelPlan, mut flags: u8, any_address: bool) -> Result<Workload, Error> {
    let outbound = match &plan.default_outbound {
        OutboundAction::Proxy => outbound::PROXY,
        OutboundAction::Passthrough => outbound::PASSTHROUGH,
        OutboundAction::Block => outbound::BLOCK,
        OutboundAction::Balance(_) => return Err(Error::BalancedDefault),
    };
    if any_address {
        flags |= workload_flags::ANY_ADDRESS;
    }
    let inbound = inbound_action(&plan.default_inbound);
    Ok(Workload { outbound, inbound, flags, padding: 0, policy: NO_POLICY, more_padding: 0 })
}
