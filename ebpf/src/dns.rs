//! DNS: what a pod sends to port 53 of whomever goes to the node's sockets in the pod, over loopback.
//!
//! Nothing is rewritten that an application could see: the datagram keeps its destination, `steer` finds the node's socket for
//! it, and the node answers in the name of whom was asked. Where the node has no socket for it (it is not to answer, or is no
//! more), it goes where the application sent it.
//!
//! A connected socket is marked, as one for the proxy is. `sendto` with a destination comes too late for a mark: the kernel
//! reads it before it runs the hook (`ipcm_init_sk` in `udp_sendmsg`). What it reads afterwards is the source address, so
//! the datagram gets one that the pod's rules send over loopback.

use aya_ebpf::programs::SockAddrContext;
use orlop_abi::{Address, DNS_SOURCE_V4, Pod, Port, listener, listener_slot};

use crate::connect::{PROCEED, is_there, stays_inside, unmark};
use crate::exclusion;
use crate::maps::{count, pod_of_cgroup};

/// Where resolvers listen.
pub const PORT: Port = Port::new(53);

/// In network byte order.
const SOURCE_V4: u32 = u32::from_ne_bytes(DNS_SOURCE_V4.octets());
const SOURCE_V6_LAST: u32 = 1_u32.to_be();

#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let Some(pod) = pod_of_cgroup() else { return PROCEED };
    // SAFETY: `addr` is the program's context; the verifier checks every access to it.
    let (ip, port, source) = unsafe { ((*addr).user_ip4, (*addr).user_port, (*addr).msg_src_ip4) };
    let source = if source == 0 { None } else { Some(Address::from_ip4_word(source)) };
    if captures(ctx, pod, Address::from_ip4_word(ip), Port(port as u16), source) {
        // SAFETY: as above; a sendmsg4 program may write the field.
        unsafe { (*addr).msg_src_ip4 = SOURCE_V4 };
    }
    PROCEED
}

#[inline(always)]
pub fn sendmsg6(ctx: &SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let Some(pod) = pod_of_cgroup() else { return PROCEED };
    // SAFETY: `addr` is the program's context; the verifier checks every access to it.
    let (ip, port, source) = unsafe {
        let (ip, source) = (&raw const (*addr).user_ip6, &raw const (*addr).msg_src_ip6);
        (words(ip), (*addr).user_port, words(source))
    };
    let source = if source == [0; 4] { None } else { Some(Address(source)) };
    if captures(ctx, pod, Address(ip), Port(port as u16), source) {
        // SAFETY: as above; a sendmsg6 program may write the fields.
        unsafe {
            (*addr).msg_src_ip6[0] = 0;
            (*addr).msg_src_ip6[1] = 0;
            (*addr).msg_src_ip6[2] = 0;
            (*addr).msg_src_ip6[3] = SOURCE_V6_LAST;
        }
    }
    PROCEED
}

/// Whether a datagram is to be carried to the node. `source` is the address that its socket is bound to.
#[inline(always)]
fn captures(ctx: &SockAddrContext, pod: &Pod, to: Address, port: Port, source: Option<Address>) -> bool {
    if port != PORT || stays_inside(pod, to) {
        // One datagram of a socket that was connected to a resolver before is lost here, as the mark was read already.
        unmark(ctx);
        return false;
    }
    // The node answers to the pod's address; a socket that is bound to another would not hear it.
    if source.is_some_and(|source| !pod.has(source)) {
        return false;
    }
    !exclusion::dns(pod) && answers(ctx, pod, listener::DNS_UDP, to.ip4_word().is_none())
}

/// Whether the node has a socket for the pod's DNS. A socket that is bound to a device does not see loopback's routes.
#[inline(always)]
pub fn answers(ctx: &SockAddrContext, pod: &Pod, listener: u32, ipv6: bool) -> bool {
    // SAFETY: the context's socket is null or valid; the verifier checks that it was compared.
    let bound = unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        !socket.is_null() && (*socket).bound_dev_if != 0
    };
    if !bound && is_there(listener_slot(pod.workload, listener, ipv6)) {
        count(pod, |c| &mut c.dns_captured);
        return true;
    }
    count(pod, |c| &mut c.dns_direct);
    false
}

/// # Safety
///
/// The pointer must be to a field of the program's context.
#[inline(always)]
unsafe fn words(ip6: *const [u32; 4]) -> [u32; 4] {
    // SAFETY: by contract. Volatile, so that the loads stay within the context one by one.
    let word = |index| unsafe { ip6.cast::<u32>().add(index).read_volatile() };
    [word(0), word(1), word(2), word(3)]
}
