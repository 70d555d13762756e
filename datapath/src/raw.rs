//! The shared structs as aya takes them: `aya::Pod` and the structs are both foreign here, hence the wrapper.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait; the one place where it is implemented")]

use orlop_abi::{
    Address, Backend, Connection, Counters, FourTuple, FrontendKey, FrontendValue, InboundKey, InboundValue,
    LimitedKey, Pod, PortKey, RangeKey, SourceKey, Traffic, Way, Workload,
};

/// A struct of the ABI, to be copied to or from a map byte by byte.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<T>(pub(crate) T);

// SAFETY: the structs are `repr(C)` of integers with their padding named, so every byte is initialised and every bit
// pattern is a value; their sizes are asserted where they are defined.
unsafe impl aya::Pod for Raw<Address> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<FrontendKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<FrontendValue> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Backend> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<InboundKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<InboundValue> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<PortKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<RangeKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<SourceKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Workload> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Counters> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Pod> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Way> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Traffic> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<LimitedKey> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<Connection> {}
// SAFETY: as above.
unsafe impl aya::Pod for Raw<FourTuple> {}

/// A record of `FLOWS`, which the kernel aligns to eight bytes.
pub(crate) fn from_bytes(record: &[u8]) -> Option<orlop_abi::Flow> {
    if record.len() < size_of::<orlop_abi::Flow>() {
        return None;
    }
    // SAFETY: there are as many bytes as the struct has, and every bit pattern is a value; nothing is assumed of alignment.
    Some(unsafe { record.as_ptr().cast::<orlop_abi::Flow>().read_unaligned() })
}
