//! What annotations keep from being taken and which ports are probed, as the maps hold it: written when a workload is enrolled, before its programs are
//! attached, and removed when it is released.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use orlop_abi::{Address, PortKey, RangeKey, exclusion, workload_flags};
use orlop_plan::exclusion::{Exclusions, Taken};

use crate::error::Error;
use crate::maps::{MapName, Maps};

/// The entries of all workloads.
#[derive(Debug, Default)]
pub(crate) struct ExclusionTables {
    ports: u32,
    ranges: u32,
}

impl ExclusionTables {
    /// Writes a workload's entries. Where they have no room, none is left.
    pub(crate) fn write(
        &mut self,
        maps: &mut Maps,
        capacity: u32,
        workload: u32,
        exclusions: &Exclusions,
    ) -> Result<(), Error> {
        let (ports, ranges) = (ports(workload, exclusions), ranges(workload, exclusions));
        for (map, used, new) in
            [(MapName::Ports, self.ports, ports.len()), (MapName::Ranges, self.ranges, ranges.len())]
        {
            let needed = u64::from(used) + new as u64;
            if needed > u64::from(capacity) {
                return Err(Error::MapFull { map, needed, capacity });
            }
        }
        for (key, said) in ports {
            maps.set_port(key, said)?;
            self.ports += 1;
        }
        for (bits, key, said) in ranges {
            maps.set_range(bits, key, said)?;
            self.ranges += 1;
        }
        Ok(())
    }

    /// Removes them.
    pub(crate) fn clear(
        &mut self,
        maps: &mut Maps,
        workload: u32,
        exclusions: &Exclusions,
    ) -> Result<(), Error> {
        for (key, _) in ports(workload, exclusions) {
            maps.remove_port(key)?;
            self.ports -= 1;
        }
        for (bits, key, _) in ranges(workload, exclusions) {
            maps.remove_range(bits, key)?;
            self.ranges -= 1;
        }
        Ok(())
    }

    pub(crate) fn ports(&self) -> u32 {
        self.ports
    }

    pub(crate) fn ranges(&self) -> u32 {
        self.ranges
    }
}

/// The bits of [`workload_flags`] that say which lookups are worth it.
pub(crate) fn flags(exclusions: &Exclusions) -> u8 {
    let bit = |holds: bool, flag| if holds { flag } else { 0 };
    bit(exclusions.exclude_something(), workload_flags::EXCLUSIONS)
        | bit(!exclusions.takes_outbound(), workload_flags::ONLY_INCLUDED_OUTBOUND)
        | bit(!exclusions.takes_inbound(), workload_flags::ONLY_INCLUDED_INBOUND)
        | bit(exclusions.probed_ports().next().is_some(), workload_flags::PROBED)
}

fn ports(workload: u32, exclusions: &Exclusions) -> Vec<(PortKey, u32)> {
    let outbound = exclusions.outbound_ports().map(|(port, taken)| ((port, 0), said(taken)));
    let inbound = exclusions.inbound_ports().map(|(port, taken)| ((port, 1), said(taken)));
    let probed = exclusions.probed_ports().map(|port| ((port, 1), exclusion::PROBED));
    let mut ports: BTreeMap<_, u32> = BTreeMap::new();
    for (key, value) in outbound.chain(inbound).chain(probed) {
        *ports.entry(key).or_default() |= value;
    }
    ports.into_iter().map(|((port, inbound), value)| (PortKey { workload, port, inbound }, value)).collect()
}

fn ranges(workload: u32, exclusions: &Exclusions) -> Vec<(u32, RangeKey, u32)> {
    let entry = |(range, taken): (IpNet, Taken)| {
        let before = match range.network() {
            IpAddr::V4(_) => RangeKey::BITS_BEFORE_IP4,
            IpAddr::V6(_) => RangeKey::BITS_BEFORE_IP6,
        };
        let bits = before + u32::from(range.prefix_len());
        (bits, RangeKey { workload, address: Address::from(range.network()) }, said(taken))
    };
    exclusions.ranges().map(entry).collect()
}

fn said(taken: Taken) -> u32 {
    match taken {
        Taken::Yes => exclusion::INCLUDED,
        Taken::No => exclusion::EXCLUDED,
    }
}
