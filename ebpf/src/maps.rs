//! The maps, which all programs share, and how a program learns whose connection it sees.
//!
//! Capacities are the loader's: the one entry here is a placeholder. Hashes are not preallocated, so that memory goes
//! with what is configured.

use core::cell::UnsafeCell;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, bpf_cgroup_storage_key, bpf_map_def};
use aya_ebpf::helpers::bpf_get_local_storage;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, SockMap};
use orlop_abi::{
    Address, Backend, Connection, Counters, FourTuple, FrontendKey, FrontendValue, InboundKey, InboundValue,
    LimitedKey, Pod, PortKey, RangeKey, SocketKey, SourceKey, Traffic, Way, Workload,
};

#[map]
pub static FRONTENDS: HashMap<FrontendKey, FrontendValue> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
pub static BACKENDS: Array<Backend> = Array::with_max_entries(1, 0);

#[map]
pub static INBOUND: HashMap<InboundKey, InboundValue> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
pub static WORKLOADS: Array<Workload> = Array::with_max_entries(1, 0);

#[map]
pub static LISTENERS: SockMap = SockMap::with_max_entries(1, 0);

#[map]
pub static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
pub static RANGES: LpmTrie<RangeKey, u32> = LpmTrie::with_max_entries(1, 0);

#[map]
pub static SOURCES: LpmTrie<SourceKey, u32> = LpmTrie::with_max_entries(1, 0);

#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Whose a cgroup is, for the programs that are attached to it.
#[map]
static PODS: PodStorage = PodStorage::new();

/// How each socket was balanced. Not socket storage, whose two allocations for each connection cost several times as much.
#[map]
pub static CONNECTIONS: HashMap<SocketKey, Connection> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
pub static TRAFFIC: HashMap<Way, Traffic> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Open connections of clusters that may have only so many.
#[map]
pub static LIMITED: HashMap<LimitedKey, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Open connections whose maker the kernel has seen.
#[map]
pub static ATTESTED: HashMap<FourTuple, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// Addresses of workloads whose connections to each other are attested.
#[map]
pub static PEERS: HashMap<Address, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// What somebody is told.
#[map]
pub static FLOWS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// One word: whether somebody wants to be told.
#[map]
pub static WATCHED: Array<u32> = Array::with_max_entries(1, 0);

/// Whose the network namespace is: the one map that each `sk_lookup` program has for itself, because nothing else tells
/// it where it runs.
#[map]
static STEERED: Array<Pod> = Array::with_max_entries(1, 0);

/// `BPF_MAP_TYPE_CGROUP_STORAGE`, for which aya has no type: a value for each cgroup and attach type, which the kernel
/// hands to the program without a lookup.
#[repr(transparent)]
struct PodStorage(UnsafeCell<bpf_map_def>);

// SAFETY: the definition is the loader's to read; a program only takes its address.
unsafe impl Sync for PodStorage {}

impl PodStorage {
    const fn new() -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_CGROUP_STORAGE,
            key_size: size_of::<bpf_cgroup_storage_key>() as u32,
            value_size: size_of::<Pod>() as u32,
            max_entries: 0,
            map_flags: 0,
            id: 0,
            pinning: 0,
        }))
    }
}

/// The pod whose cgroup this program is attached to, wherever the calling process has gone meanwhile. `None` while it is
/// being enrolled or released.
#[inline(always)]
pub fn pod_of_cgroup() -> Option<&'static Pod> {
    // SAFETY: for a program of a cgroup the helper returns the attachment's value, never null, and it lives as long as
    // this run of the program.
    let pod = unsafe { &*bpf_get_local_storage(PODS.0.get().cast(), 0).cast::<Pod>() };
    (pod.enrolled != 0).then_some(pod)
}

/// The pod whose network namespace this program is attached to.
#[inline(always)]
pub fn pod_of_netns() -> Option<&'static Pod> {
    STEERED.get(0)
}

/// Adds one to a counter of the pod.
#[inline(always)]
pub fn count(pod: &Pod, counter: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(pod.workload) {
        // SAFETY: the map is per CPU and the program is not migrated while it runs.
        *counter(unsafe { &mut *counters }) += 1;
    }
}
