//! What annotations keep from being taken, and which ports are probed. Entries do not change while the programs are attached, and few pods have any.

use aya_ebpf::maps::lpm_trie::Key;
use orlop_abi::{Address, Pod, Port, PortKey, RangeKey, exclusion, workload_flags};

use crate::dns;
use crate::maps::{PORTS, RANGES, WORKLOADS, count};

/// Whether a connect is not to be taken; counts it.
#[inline(always)]
pub fn outbound(pod: &Pod, address: Address, port: Port) -> bool {
    let Some(flags) = flags(pod) else { return false };
    let excluded = match said_of_port(pod, port.host_order(), false) {
        exclusion::EXCLUDED => true,
        by_port => match said_of_address(pod, address) {
            exclusion::EXCLUDED => true,
            exclusion::INCLUDED => false,
            _ => by_port != exclusion::INCLUDED && flags & workload_flags::ONLY_INCLUDED_OUTBOUND != 0,
        },
    };
    if excluded {
        count(pod, |c| &mut c.excluded);
    }
    excluded
}

/// Whether questions to resolvers are not to be taken, of which ports alone speak; counts it.
#[inline(always)]
pub fn dns(pod: &Pod) -> bool {
    let excluded =
        flags(pod).is_some() && said_of_port(pod, dns::PORT.host_order(), false) == exclusion::EXCLUDED;
    if excluded {
        count(pod, |c| &mut c.excluded);
    }
    excluded
}

/// Whether an arrival is not to be taken; counts it.
#[inline(always)]
pub fn inbound(pod: &Pod, port: u16) -> bool {
    let Some(flags) = flags(pod) else { return false };
    let excluded = match said_of_port(pod, port, true) {
        exclusion::EXCLUDED => true,
        exclusion::INCLUDED => false,
        _ => flags & workload_flags::ONLY_INCLUDED_INBOUND != 0,
    };
    if excluded {
        count(pod, |c| &mut c.inbound_excluded);
    }
    excluded
}

/// Whether the port is one that is probed.
#[inline(always)]
pub fn is_probed(pod: &Pod, port: u16) -> bool {
    WORKLOADS.get(pod.workload).is_some_and(|workload| workload.flags & workload_flags::PROBED != 0)
        && of_port(pod, port, true) & exclusion::PROBED != 0
}

/// The workload's flags, if it has exclusions.
#[inline(always)]
fn flags(pod: &Pod) -> Option<u8> {
    let flags = WORKLOADS.get(pod.workload)?.flags;
    if flags & workload_flags::EXCLUSIONS != 0 { Some(flags) } else { None }
}

#[inline(always)]
fn said_of_port(pod: &Pod, port: u16, inbound: bool) -> u32 {
    of_port(pod, port, inbound) & exclusion::SAID
}

#[inline(always)]
fn of_port(pod: &Pod, port: u16, inbound: bool) -> u32 {
    let key = PortKey { workload: pod.workload, port, inbound: inbound as u16 };
    // SAFETY: entries do not change while this program is attached.
    unsafe { PORTS.get(key) }.map_or(0, |said| *said)
}

#[inline(always)]
fn said_of_address(pod: &Pod, address: Address) -> u32 {
    let key = Key::new(RangeKey::BITS, RangeKey { workload: pod.workload, address });
    RANGES.get(key).map_or(0, |said| *said)
}
