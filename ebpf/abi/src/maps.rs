//! Keys and values of the maps.

use core::mem::{align_of, size_of};

use crate::address::{Address, Port};
use crate::connections::ClusterName;

/// Workload indices are below this, so that they fit the tag of an [`InboundValue`].
pub const MAX_WORKLOADS: u32 = 1 << 16;

/// Whose a connection is: value of `PODS`, and the one entry of a program's `STEERED`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pod {
    /// Zero before the pod is enrolled and after it was released: nothing is done for it.
    pub enrolled: u32,
    /// Its index.
    pub workload: u32,
    /// Its IPv4 address, zero if it has none.
    pub ip4: Address,
    /// Its IPv6 address, zero if it has none.
    pub ip6: Address,
}

impl Pod {
    /// Whether the address is the pod's own.
    #[inline]
    #[must_use]
    pub fn has(&self, address: Address) -> bool {
        address == self.ip4 || address == self.ip6
    }
}

/// Key of `FRONTENDS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrontendKey {
    /// The workload that connects.
    pub workload: u32,
    /// Where to; [`ANY`](crate::ANY) matches every address that has no frontend of its own at this port.
    pub address: Address,
    /// Where to.
    pub port: Port,
    /// Zero.
    pub padding: u16,
}

impl FrontendKey {
    /// The key's fingerprint, repeated in the value.
    ///
    /// The kernel may hand the memory of an element that was just replaced to another key while a program still reads
    /// it (`kernel/bpf/memalloc.c` frees for immediate reuse). The program compares the fingerprint after reading, so
    /// it never acts on another frontend's value.
    #[inline]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        self.address.folded().rotate_left(7) ^ ((self.port.0 as u32) << 16) ^ self.workload
    }
}

/// Value of `FRONTENDS`. Two machine words, which the kernel writes one after the other.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontendValue {
    /// [`FrontendKey::tag`] of the key.
    pub tag: u32,
    /// One of [`outbound`].
    pub action: u8,
    /// Bits of [`balance_flags`], for [`outbound::BALANCE`].
    pub flags: u8,
    /// How many backends [`balance_flags::LEAST`] compares; at most [`MAX_CHOICES`].
    pub choices: u8,
    /// Zero.
    pub padding: u8,
    /// First slot of the slice of `BACKENDS`, for [`outbound::BALANCE`].
    pub base: u32,
    /// Slots in the slice's first table, for [`outbound::BALANCE`].
    pub count: u32,
}

/// More backends than this are never compared for one choice: the verifier wants an end.
pub const MAX_CHOICES: u8 = 8;

/// Bits of [`FrontendValue::flags`].
pub mod balance_flags {
    /// Of some backends drawn by weight, the one with the fewest open connections for its weight is taken.
    pub const LEAST: u8 = 1;
    /// The first table holds groups, of which one is drawn; see [`Backend::group`](super::Backend::group).
    pub const GROUPED: u8 = 2;
    /// The slot before the slice holds a limit; see [`Backend::limit`](super::Backend::limit).
    pub const LIMITED: u8 = 4;
}

/// What the connect hook does.
pub mod outbound {
    /// The destination stays as the application asked for it.
    pub const PASSTHROUGH: u8 = 0;
    /// The destination becomes one of the slice's backends.
    pub const BALANCE: u8 = 1;
    /// The socket is marked and loops to the proxy.
    pub const PROXY: u8 = 2;
    /// ECONNREFUSED.
    pub const BLOCK: u8 = 3;
}

/// Value of `BACKENDS`: one slot of a slice, which is an alias table (Vose, 1991).
///
/// A choice draws a slot and a fraction of 2³²; below `threshold` the slot's own backend is taken, else that of `alias`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Where the connection goes.
    pub address: Address,
    /// Where the connection goes.
    pub port: Port,
    /// Zero.
    pub padding: u16,
    /// Slot that takes the rest, counted from the slice's base.
    pub alias: u32,
    /// Share of this slot's draws that its own backend keeps, of 2³².
    pub threshold: u32,
    /// Relative weight, ≥ 1, for [`balance_flags::LEAST`].
    pub weight: u32,
}

impl Backend {
    /// A group in place of a backend: `count` slots, the first one `first` slots behind the slice's own first.
    #[inline]
    #[must_use]
    pub const fn group(first: u32, count: u32, alias: u32, threshold: u32) -> Self {
        Self {
            address: Address([first, count, 0, 0]),
            port: Port(0),
            padding: 0,
            alias,
            threshold,
            weight: 1,
        }
    }

    /// A group's first slot and their number.
    #[inline]
    #[must_use]
    pub const fn as_group(&self) -> (u32, u32) {
        let [first, count, ..] = self.address.0;
        (first, count)
    }

    /// A limit in place of a backend: so many open connections for the cluster of this name.
    #[inline]
    #[must_use]
    pub const fn limit(cluster: ClusterName, connections: u32) -> Self {
        let [a, b] = cluster.0;
        let address = Address([a, b, 0, 0]);
        Self { address, port: Port(0), padding: 0, alias: 0, threshold: connections, weight: 1 }
    }

    /// A limit's cluster and connections.
    #[inline]
    #[must_use]
    pub const fn as_limit(&self) -> (ClusterName, u32) {
        let [a, b, ..] = self.address.0;
        (ClusterName([a, b]), self.threshold)
    }
}

/// Key of `INBOUND`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InboundKey {
    /// The workload that is connected to.
    pub workload: u32,
    /// Destination port, in host byte order as in `struct bpf_sk_lookup`.
    pub port: u32,
}

impl InboundKey {
    /// As [`FrontendKey::tag`]; here it is unique.
    #[inline]
    #[must_use]
    pub const fn tag(&self) -> u32 {
        self.workload << 16 | self.port
    }
}

/// Value of `INBOUND`. One machine word.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundValue {
    /// [`InboundKey::tag`] of the key.
    pub tag: u32,
    /// One of [`inbound`].
    pub action: u8,
    /// Zero.
    pub padding: u8,
    /// For [`inbound::BY_SOURCE`], see [`SourceKey::policy`].
    pub policy: u16,
}

/// What `sk_lookup` does with a connection that arrives.
pub mod inbound {
    /// To the application's listener.
    pub const DIRECT: u8 = 0;
    /// To the proxy's inbound listener.
    pub const PROXY: u8 = 1;
    /// Refused with a reset.
    pub const DROP: u8 = 2;
    /// One of the others, by who connects.
    pub const BY_SOURCE: u8 = 3;
}

/// The data of a key of `SOURCES`: who connects. The prefix that matches is that of the whole.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceKey {
    /// The number of a policy.
    pub policy: u32,
    /// Where from.
    pub address: Address,
}

/// No policy has this number.
pub const NO_POLICY: u16 = 0;

impl SourceKey {
    /// Bits of the data.
    pub const BITS: u32 = 160;
    /// Bits before those of an IPv6 address.
    pub const BITS_BEFORE_IP6: u32 = 32;
    /// Bits before those of an IPv4 address.
    pub const BITS_BEFORE_IP4: u32 = 128;
}

/// Values of `SOURCES`: one of [`inbound`], and bits.
pub mod source {
    /// What of the value is the action.
    pub const ACTION: u32 = 0xff;
    /// A policy is the reason.
    pub const DENIED: u32 = 0x100;
    /// Another action holds where the kernel has seen a workload of the node connect.
    pub const OF_WORKLOAD: u32 = 0x200;
    /// The other action and its reason, as the two above, are so many bits higher.
    pub const OF_WORKLOAD_SHIFT: u32 = 16;
}

/// Value of `WORKLOADS`: what holds where no frontend and no inbound port matches. One machine word.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Workload {
    /// One of [`outbound`] except [`outbound::BALANCE`].
    pub outbound: u8,
    /// One of [`inbound`].
    pub inbound: u8,
    /// Bits of [`workload_flags`].
    pub flags: u8,
    /// Zero.
    pub padding: u8,
    /// For [`inbound::BY_SOURCE`], see [`SourceKey::policy`].
    pub policy: u16,
    /// Zero.
    pub more_padding: u16,
}

/// Bits of [`Workload::flags`].
pub mod workload_flags {
    /// A connection that needs a proxy that is not there goes directly instead of being refused.
    pub const FAIL_OPEN: u8 = 1;
    /// There are any-address frontends: without the bit, the hook saves itself the second lookup.
    pub const ANY_ADDRESS: u8 = 2;
    /// There are entries of `PORTS` or `RANGES`, or one of the two bits that follow: without it, the hooks save themselves
    /// the lookups.
    pub const EXCLUSIONS: u8 = 4;
    /// Outbound traffic that no entry speaks of is not taken.
    pub const ONLY_INCLUDED_OUTBOUND: u8 = 8;
    /// Inbound traffic that no entry speaks of is not taken.
    pub const ONLY_INCLUDED_INBOUND: u8 = 16;
    /// There are entries of `PORTS` for ports that are probed.
    pub const PROBED: u8 = 32;
}

/// Key of `PORTS`: what annotations say of a port, and whether it is probed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// Whose.
    pub workload: u32,
    /// In host byte order.
    pub port: u16,
    /// Zero for the ports that the workload connects to, one for its own.
    pub inbound: u16,
}

/// The data of a key of `RANGES`: what annotations say of addresses. The prefix that matches is that of the whole.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RangeKey {
    /// Whose.
    pub workload: u32,
    /// Where to.
    pub address: Address,
}

impl RangeKey {
    /// Bits of the data.
    pub const BITS: u32 = 160;
    /// Bits before those of an IPv6 address.
    pub const BITS_BEFORE_IP6: u32 = 32;
    /// Bits before those of an IPv4 address.
    pub const BITS_BEFORE_IP4: u32 = 128;
}

/// Values of `PORTS` and `RANGES`: one of the first two, or none, and for a port a bit.
pub mod exclusion {
    /// What of the value is said by annotations.
    pub const SAID: u32 = 0xff;
    /// Traffic is not taken: it goes on as if there were no mesh.
    pub const EXCLUDED: u32 = 1;
    /// It is, although what no entry speaks of may not be.
    pub const INCLUDED: u32 = 2;
    /// What probes the node's pods goes straight to the application at this port.
    pub const PROBED: u32 = 0x100;
}

/// Value of `COUNTERS`, one a CPU. What happened to the connections of a workload since it was enrolled.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connects that the kernel sent to a backend.
    pub kernel_balanced: u64,
    /// Connects that were marked for the proxy.
    pub proxied: u64,
    /// Connects that were left as they were.
    pub passthrough: u64,
    /// Connects refused because the plan says so.
    pub blocked: u64,
    /// Connects refused because the cluster has as many open connections as it may.
    pub overflowed: u64,
    /// Balanced connects that could not be noted, for want of memory: not counted and never drained.
    pub untracked: u64,
    /// Flows that somebody was to be told of, and that found no place in `FLOWS`.
    pub flows_lost: u64,
    /// Connects refused because the proxy is not there, or has no listener of the family.
    pub failed_fast: u64,
    /// Connects let past a proxy that is not there.
    pub failed_open: u64,
    /// Arrivals left to the application.
    pub inbound_direct: u64,
    /// Arrivals steered to the proxy.
    pub inbound_proxied: u64,
    /// Arrivals refused because the plan says so.
    pub inbound_dropped: u64,
    /// Arrivals refused because a policy denies their source.
    pub inbound_denied: u64,
    /// Arrivals refused because the proxy is not there, or has no listener of the family.
    pub inbound_failed_fast: u64,
    /// DNS to the node: connects, and datagrams of sockets that are not connected.
    pub dns_captured: u64,
    /// DNS that went directly because the node does not answer it.
    pub dns_direct: u64,
    /// Connects and DNS that annotations keep from being taken.
    pub excluded: u64,
    /// Arrivals that annotations keep from being taken.
    pub inbound_excluded: u64,
    /// Probes that were left to the application.
    pub inbound_probes: u64,
    /// Arrivals left to the application because a workload of the node was seen to make them.
    pub inbound_attested: u64,
}

/// What a socket in `LISTENERS` is for.
pub mod listener {
    /// Takes the connections that the workload makes.
    pub const OUTBOUND: u32 = 0;
    /// Takes the connections that are made to the workload.
    pub const INBOUND: u32 = 1;
    /// Takes the workload's DNS over TCP.
    pub const DNS_TCP: u32 = 2;
    /// Takes the workload's DNS over UDP.
    pub const DNS_UDP: u32 = 3;
}

/// Slots of `LISTENERS` that a workload has.
pub const LISTENERS_PER_WORKLOAD: u32 = 8;

/// Index into `LISTENERS`, the SOCKMAP of the agent's sockets in pods: one an enrolled workload, use (of [`listener`]) and
/// family.
#[inline]
#[must_use]
pub const fn listener_slot(workload: u32, listener: u32, ipv6: bool) -> u32 {
    workload * LISTENERS_PER_WORKLOAD + listener * 2 + ipv6 as u32
}

const _: () = {
    assert!(size_of::<Pod>() == 40 && align_of::<Pod>() == 4);
    assert!(size_of::<FrontendKey>() == 24 && align_of::<FrontendKey>() == 4);
    assert!(size_of::<FrontendValue>() == 16 && align_of::<FrontendValue>() == 8);
    assert!(size_of::<Backend>() == 32 && align_of::<Backend>() == 4);
    assert!(size_of::<PortKey>() == 8 && align_of::<PortKey>() == 4);
    assert!(size_of::<RangeKey>() == 20 && align_of::<RangeKey>() == 4);
    assert!(size_of::<SourceKey>() == 20 && align_of::<SourceKey>() == 4);
    assert!(size_of::<InboundKey>() == 8 && align_of::<InboundKey>() == 4);
    assert!(size_of::<InboundValue>() == 8 && align_of::<InboundValue>() == 8);
    assert!(size_of::<Workload>() == 8 && align_of::<Workload>() == 8);
    assert!(size_of::<Counters>() == 160 && align_of::<Counters>() == 8);
};
