//! `sk_lookup`: which socket takes an arriving SYN.
//!
//! Over loopback arrive connections that the connect hook marked: they go to the proxy's outbound listener, whose
//! accepted socket then has the original destination as its own address. From outside arrive the pod's clients: they go
//! to the application, to the proxy, or nowhere.

use aya_ebpf::bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup};
use aya_ebpf::programs::SkLookupContext;
use orlop_abi::{Address, InboundKey, inbound, listener_slot};

use crate::maps::{INBOUND, LISTENERS, WORKLOAD, WORKLOADS, count, is_pod};

/// The kernel goes on with its own lookup, or takes the socket that was assigned.
const PASS: u32 = 1;
/// The kernel answers with a reset.
const DROP: u32 = 0;

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
/// `lo` is the first interface of every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;
/// Without it the kernel would hash the chosen listener's SO_REUSEPORT group again and might take another.
const FLAGS: u64 = BPF_SK_LOOKUP_F_NO_REUSEPORT as u64;

#[inline(always)]
pub fn steer(ctx: &SkLookupContext) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: `lookup` is the program's context; the verifier checks every access to it.
    let (protocol, family, ifindex) =
        unsafe { ((*lookup).protocol, (*lookup).family, (*lookup).ingress_ifindex) };
    if protocol != IPPROTO_TCP {
        return PASS;
    }
    let ipv6 = family != AF_INET;
    let (local, remote) = addresses(lookup, ipv6);
    if ifindex != LOOPBACK_IFINDEX {
        // The kernel takes the interface from the route, so a connection of the pod to its own address is here as well.
        let arrives = is_pod(local) && !is_pod(remote);
        return if arrives { arrival(ctx, ipv6) } else { PASS };
    }
    // The pod's own address over loopback is the proxy's hop to the application, which is bound to `lo`.
    if is_pod(local) || local.is_loopback() || local.is_link_local_v6() {
        return PASS;
    }
    match LISTENERS.redirect_sk_lookup(ctx, listener_slot(WORKLOAD.load(), false, ipv6), FLAGS) {
        Ok(()) => PASS,
        Err(_) => {
            // It was there at connect and went away before the SYN came.
            count(|c| &mut c.failed_fast);
            DROP
        }
    }
}

#[inline(always)]
fn arrival(ctx: &SkLookupContext, ipv6: bool) -> u32 {
    match arrival_action(ctx) {
        inbound::DIRECT => {
            count(|c| &mut c.inbound_direct);
            PASS
        }
        inbound::PROXY => {
            match LISTENERS.redirect_sk_lookup(ctx, listener_slot(WORKLOAD.load(), true, ipv6), FLAGS) {
                Ok(()) => {
                    count(|c| &mut c.inbound_proxied);
                    PASS
                }
                Err(_) => {
                    count(|c| &mut c.inbound_failed_fast);
                    DROP
                }
            }
        }
        _ => {
            count(|c| &mut c.inbound_dropped);
            DROP
        }
    }
}

/// The port's action, else the workload's default. A value that was replaced while it was read is refused.
#[inline(always)]
fn arrival_action(ctx: &SkLookupContext) -> u8 {
    let workload = WORKLOAD.load();
    // SAFETY: the context's field; the verifier checks the access.
    let key = InboundKey { workload, port: unsafe { (*ctx.lookup).local_port } };
    let Some(value) = INBOUND.get_ptr(&key) else {
        return WORKLOADS.get(workload).map_or(inbound::DROP, |defaults| defaults.inbound);
    };
    // SAFETY: a value is one aligned word, and every bit pattern is valid for it.
    let value: orlop_abi::InboundValue = unsafe { core::mem::transmute(value.cast::<u64>().read_volatile()) };
    if value.tag == key.tag() { value.action } else { inbound::DROP }
}

/// Where the SYN goes, and where it comes from.
#[inline(always)]
fn addresses(lookup: *mut bpf_sk_lookup, ipv6: bool) -> (Address, Address) {
    // Both families are read whatever the packet's (the other one is zero), and by volatile loads: from one load in each
    // branch the compiler makes a single one at a computed offset, which the verifier refuses within a context.
    // SAFETY: the context's fields; the verifier checks every access.
    unsafe {
        let local = address(&raw const (*lookup).local_ip4, &raw const (*lookup).local_ip6, ipv6);
        (local, address(&raw const (*lookup).remote_ip4, &raw const (*lookup).remote_ip6, ipv6))
    }
}

/// # Safety
///
/// The pointers must be to fields of the program's context.
#[inline(always)]
unsafe fn address(ip4: *const u32, ip6: *const [u32; 4], ipv6: bool) -> Address {
    // SAFETY: by contract.
    let (ip4, ip6) = unsafe {
        let word = |index| ip6.cast::<u32>().add(index).read_volatile();
        (ip4.read_volatile(), [word(0), word(1), word(2), word(3)])
    };
    if ipv6 { Address(ip6) } else { Address::from_ip4_word(ip4) }
}
