//! The maps, which all instances share, and the globals that make an instance one workload's own.
//!
//! Capacities are the loader's: the one entry here is a placeholder. Hashes are not preallocated, so that memory goes
//! with what is configured.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, SockMap};
use orlop_abi::{Address, Backend, Counters, FrontendKey, FrontendValue, InboundKey, InboundValue, Workload};

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
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Index of the workload that this instance serves.
#[unsafe(no_mangle)]
pub static WORKLOAD: Global<u32> = Global::new(0);

/// The pod's IPv4 address, zero if it has none.
#[unsafe(no_mangle)]
pub static POD_IP4: Global<[u32; 4]> = Global::new([0; 4]);

/// The pod's IPv6 address, zero if it has none.
#[unsafe(no_mangle)]
pub static POD_IP6: Global<[u32; 4]> = Global::new([0; 4]);

/// Whether the address is the pod's own.
#[inline(always)]
pub fn is_pod(address: Address) -> bool {
    address.0 == POD_IP4.load() || address.0 == POD_IP6.load()
}

/// Adds one to a counter of the workload.
#[inline(always)]
pub fn count(counter: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(WORKLOAD.load()) {
        // SAFETY: the map is per CPU and the program is not migrated while it runs.
        *counter(unsafe { &mut *counters }) += 1;
    }
}
