//! The choice of a backend within a frontend's slice.
//!
//! In: the frontend's value. Out: a backend, in constant time for a choice by weight, in at most [`MAX_CHOICES`] looks at
//! `TRAFFIC` for a choice by open connections.

use aya_ebpf::helpers::bpf_get_prandom_u32;
use orlop_abi::{
    Backend, ClusterName, FrontendKey, FrontendValue, LimitedKey, MAX_CHOICES, NO_CLUSTER, Way, balance_flags,
};

use crate::maps::{BACKENDS, LIMITED, TRAFFIC};

/// What came of it.
pub enum Choice {
    /// This backend; the connection counts for the cluster.
    Taken(Backend, ClusterName),
    /// The cluster has as many open connections as it may.
    Overflow,
    /// The slice is not there.
    Nothing,
}

#[inline(always)]
pub fn choose(key: FrontendKey, frontend: &FrontendValue) -> Choice {
    let mut cluster = NO_CLUSTER;
    if frontend.flags & balance_flags::LIMITED != 0 {
        let Some(slot) = BACKENDS.get(frontend.base.wrapping_sub(1)) else { return Choice::Nothing };
        let (name, most) = slot.as_limit();
        // Connections that are being made on other CPUs are not counted yet: like Envoy's, the limit is not exact then.
        if open_in(&LimitedKey { workload: key.workload, cluster: name }) >= u64::from(most) {
            return Choice::Overflow;
        }
        cluster = name;
    }
    let (mut base, mut count) = (frontend.base, frontend.count);
    if frontend.flags & balance_flags::GROUPED != 0 {
        let Some(group) = draw(base, count) else { return Choice::Nothing };
        let (first, length) = group.as_group();
        (base, count) = (base.wrapping_add(first), length);
    }
    let taken = if frontend.flags & balance_flags::LEAST == 0 || count == 1 {
        draw(base, count)
    } else {
        least(key, base, count, frontend.choices)
    };
    match taken {
        Some(backend) => Choice::Taken(*backend, cluster),
        None => Choice::Nothing,
    }
}

/// One of a table's slots, by weight.
#[inline(always)]
fn draw(base: u32, count: u32) -> Option<&'static Backend> {
    if count == 1 {
        return BACKENDS.get(base);
    }
    // SAFETY: the helper takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    // The product's high word is a fair slot, its low word the fraction within the slot.
    let scaled = u64::from(random) * u64::from(count);
    let slot = BACKENDS.get(base.wrapping_add((scaled >> 32) as u32))?;
    if (scaled as u32) < slot.threshold {
        return Some(slot);
    }
    BACKENDS.get(base.wrapping_add(slot.alias))
}

/// Of some drawn slots, the one with the fewest open connections for its weight; the first one drawn of equals, so that
/// an idle set is balanced by weight.
#[inline(always)]
fn least(key: FrontendKey, base: u32, count: u32, choices: u8) -> Option<&'static Backend> {
    let mut best = draw(base, count)?;
    let mut fewest = load(key, best);
    for drawn in 1..MAX_CHOICES {
        if drawn >= choices || fewest == 0 {
            break;
        }
        let other = draw(base, count)?;
        let load = load(key, other);
        // As Envoy has it, the connection that is being made counts.
        if (load + 1) * u64::from(best.weight) < (fewest + 1) * u64::from(other.weight) {
            (best, fewest) = (other, load);
        }
    }
    Some(best)
}

/// Open connections of this frontend to the backend.
#[inline(always)]
fn load(frontend: FrontendKey, backend: &Backend) -> u64 {
    let way = Way { frontend, address: backend.address, port: backend.port, padding: 0 };
    // SAFETY: the words are changed atomically by other CPUs. Read in this order, the difference is never negative.
    TRAFFIC.get_ptr(&way).map_or(0, |traffic| unsafe {
        let closed = (&raw const (*traffic).closed).read_volatile();
        (&raw const (*traffic).opened).read_volatile().wrapping_sub(closed)
    })
}

#[inline(always)]
fn open_in(cluster: &LimitedKey) -> u64 {
    // SAFETY: a count is one word, which other CPUs change atomically.
    LIMITED.get_ptr(cluster).map_or(0, |count| unsafe { count.read_volatile() })
}
