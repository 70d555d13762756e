//! Connect hooks: the way out of a connection is decided once, before its SYN.
//!
//! In: the destination that the application named. Out: the destination left alone, replaced by a backend, refused, or
//! the socket marked, so that the pod's routes loop it to `steer` with nothing rewritten.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{
    bpf_ktime_get_coarse_ns, bpf_map_lookup_elem, bpf_set_retval, bpf_setsockopt, bpf_sk_release,
};
use aya_ebpf::programs::SockAddrContext;
use orlop_abi::{
    ANY, Address, Connection, FrontendKey, FrontendValue, MARK, Pod, Port, Way, connection, flow, listener,
    listener_slot, outbound, workload_flags,
};

use crate::balance::{Choice, choose};
use crate::flow::{NOWHERE, decided};
use crate::maps::{FRONTENDS, LISTENERS, WORKLOADS, count, pod_of_cgroup};
use crate::track::{chosen, forget};
use crate::{dns, exclusion};

/// What a hook returns: let the connect go on.
pub const PROCEED: i32 = 1;
/// What a hook returns: fail the connect, with the error that `bpf_set_retval` was given.
const REFUSE: i32 = 0;

const ECONNREFUSED: i32 = 111;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
pub const IPPROTO_MPTCP: u32 = 262;
const SOL_SOCKET: i32 = 1;
const SO_MARK: i32 = 36;

/// How often a value that was replaced while it was read is read again before the connect is refused.
const READ_ATTEMPTS: u32 = 2;

/// What becomes of a connect.
enum Verdict {
    /// It goes on as it is.
    Leave,
    /// It goes to this backend.
    Rewrite(Connection),
    /// It fails with ECONNREFUSED.
    Refuse,
}

#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let transport = transport(addr);
    if transport == Transport::Other {
        return PROCEED;
    }
    let Some(pod) = pod_of_cgroup() else { return PROCEED };
    // SAFETY: `addr` is the program's context; the verifier checks every access to it.
    let (ip, port) = unsafe { ((*addr).user_ip4, (*addr).user_port) };
    match decide(ctx, pod, transport, Address::from_ip4_word(ip), Port(port as u16)) {
        Verdict::Leave => PROCEED,
        Verdict::Rewrite(connection) => {
            let Some(ip) = connection.way.address.ip4_word() else {
                // An IPv4 socket cannot reach an IPv6 backend.
                count(pod, |c| &mut c.failed_fast);
                return refuse();
            };
            count(pod, |c| &mut c.kernel_balanced);
            // SAFETY: as above; these two fields may be written by a connect4 program.
            unsafe {
                (*addr).user_ip4 = ip;
                (*addr).user_port = u32::from(connection.way.port.0);
            }
            chosen(ctx, pod, connection);
            PROCEED
        }
        Verdict::Refuse => refuse(),
    }
}

#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    let addr = ctx.sock_addr;
    let transport = transport(addr);
    if transport == Transport::Other {
        return PROCEED;
    }
    let Some(pod) = pod_of_cgroup() else { return PROCEED };
    // SAFETY: `addr` is the program's context; the verifier checks every access to it.
    let (ip, port) = unsafe {
        let ip = &(*addr).user_ip6;
        ([ip[0], ip[1], ip[2], ip[3]], (*addr).user_port)
    };
    match decide(ctx, pod, transport, Address(ip), Port(port as u16)) {
        Verdict::Leave => PROCEED,
        Verdict::Rewrite(connection) => {
            count(pod, |c| &mut c.kernel_balanced);
            let [a, b, c, d] = connection.way.address.0;
            // SAFETY: as above; these fields may be written by a connect6 program.
            unsafe {
                (*addr).user_ip6[0] = a;
                (*addr).user_ip6[1] = b;
                (*addr).user_ip6[2] = c;
                (*addr).user_ip6[3] = d;
                (*addr).user_port = u32::from(connection.way.port.0);
            }
            chosen(ctx, pod, connection);
            PROCEED
        }
        Verdict::Refuse => refuse(),
    }
}

/// What the socket speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// Also the application's view of MPTCP.
    Tcp,
    Udp,
    /// SCTP, raw sockets.
    Other,
}

#[inline(always)]
fn transport(addr: *mut bpf_sock_addr) -> Transport {
    // SAFETY: `addr` is the program's context; the verifier checks every access to it.
    match unsafe { ((*addr).type_, (*addr).protocol) } {
        (SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP) => Transport::Tcp,
        (SOCK_DGRAM, IPPROTO_UDP) => Transport::Udp,
        _ => Transport::Other,
    }
}

/// What stays inside the pod is none of the mesh's business, as with Istio's own redirection rules.
#[inline(always)]
pub fn stays_inside(pod: &Pod, address: Address) -> bool {
    address.is_loopback() || address.is_link_local_v6() || pod.has(address)
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, pod: &Pod, transport: Transport, address: Address, port: Port) -> Verdict {
    if stays_inside(pod, address) {
        unmark(ctx);
        forget(ctx);
        return Verdict::Leave;
    }
    if port == dns::PORT && !exclusion::dns(pod) {
        let listener = if transport == Transport::Udp { listener::DNS_UDP } else { listener::DNS_TCP };
        if dns::answers(ctx, pod, listener, address.ip4_word().is_none()) {
            set_mark(ctx, MARK);
            forget(ctx);
            return Verdict::Leave;
        }
    }
    if transport == Transport::Udp || exclusion::outbound(pod, address, port) {
        unmark(ctx);
        forget(ctx);
        return Verdict::Leave;
    }
    let Some((frontend, target)) = target(pod, address, port) else {
        count(pod, |c| &mut c.failed_fast);
        return Verdict::Refuse;
    };
    let (verdict, event) = match target.action {
        outbound::BALANCE => {
            unmark(ctx);
            balance(pod, frontend, &target)
        }
        outbound::PROXY => {
            forget(ctx);
            to_proxy(ctx, pod, address.ip4_word().is_none())
        }
        outbound::PASSTHROUGH => {
            forget(ctx);
            unmark(ctx);
            count(pod, |c| &mut c.passthrough);
            (Verdict::Leave, flow::PASSED)
        }
        _ => {
            forget(ctx);
            unmark(ctx);
            count(pod, |c| &mut c.blocked);
            (Verdict::Refuse, flow::BLOCKED)
        }
    };
    // Of what is balanced, the end is told.
    if !matches!(verdict, Verdict::Rewrite(_)) {
        decided(pod, event, (address, port), NOWHERE);
    }
    verdict
}

#[inline(always)]
fn balance(pod: &Pod, frontend: FrontendKey, target: &FrontendValue) -> (Verdict, u32) {
    match choose(frontend, target) {
        Choice::Taken(backend, cluster) => {
            let connection = Connection {
                way: Way { frontend, address: backend.address, port: backend.port, padding: 0 },
                cluster,
                state: connection::CHOSEN,
                // SAFETY: the helper takes nothing and cannot fail.
                since: unsafe { bpf_ktime_get_coarse_ns() },
            };
            (Verdict::Rewrite(connection), flow::CLOSED)
        }
        Choice::Overflow => {
            count(pod, |c| &mut c.overflowed);
            (Verdict::Refuse, flow::OVERFLOWED)
        }
        Choice::Nothing => {
            count(pod, |c| &mut c.failed_fast);
            (Verdict::Refuse, flow::FAILED_FAST)
        }
    }
}

/// The frontend at exactly this address, else the one for any address, else the workload's default. `None` if a value
/// was replaced faster than it could be read.
#[inline(always)]
fn target(pod: &Pod, address: Address, port: Port) -> Option<(FrontendKey, FrontendValue)> {
    let mut key = FrontendKey { workload: pod.workload, address, port, padding: 0 };
    match lookup(&key) {
        Found::Value(value) => return Some((key, value)),
        Found::Unstable => return None,
        Found::Nothing => {}
    }
    // A missing entry cannot happen: the loader sizes the map by the highest index.
    let defaults = WORKLOADS.get(pod.workload)?;
    if defaults.flags & workload_flags::ANY_ADDRESS != 0 {
        key.address = ANY;
        match lookup(&key) {
            Found::Value(value) => return Some((key, value)),
            Found::Unstable => return None,
            Found::Nothing => {}
        }
    }
    let value = FrontendValue {
        tag: 0,
        action: defaults.outbound,
        flags: 0,
        choices: 0,
        padding: 0,
        base: 0,
        count: 0,
    };
    Some((key, value))
}

enum Found {
    Value(FrontendValue),
    Nothing,
    Unstable,
}

/// Reads a frontend's value consistently, see [`FrontendKey::tag`].
#[inline(always)]
fn lookup(key: &FrontendKey) -> Found {
    for _ in 0..READ_ATTEMPTS {
        let Some(value) = FRONTENDS.get_ptr(key) else { return Found::Nothing };
        let words = value.cast::<u64>();
        // SAFETY: a value has two aligned words. The kernel writes the one with the tag first, so it is read last.
        let (slice, head) = unsafe { (words.add(1).read_volatile(), words.read_volatile()) };
        // SAFETY: two words are a value, and every bit pattern is valid for it.
        let value: FrontendValue = unsafe { core::mem::transmute([head, slice]) };
        if value.tag == key.tag() {
            return Found::Value(value);
        }
    }
    Found::Unstable
}

/// Marks the socket if the proxy listens: a marked SYN without a listener would be a black hole.
#[inline(always)]
fn to_proxy(ctx: &SockAddrContext, pod: &Pod, ipv6: bool) -> (Verdict, u32) {
    if is_there(listener_slot(pod.workload, listener::OUTBOUND, ipv6)) {
        set_mark(ctx, MARK);
        count(pod, |c| &mut c.proxied);
        return (Verdict::Leave, flow::PROXIED);
    }
    unmark(ctx);
    let fail_open = WORKLOADS.get(pod.workload).is_some_and(|w| w.flags & workload_flags::FAIL_OPEN != 0);
    if fail_open {
        count(pod, |c| &mut c.failed_open);
        (Verdict::Leave, flow::FAILED_OPEN)
    } else {
        count(pod, |c| &mut c.failed_fast);
        (Verdict::Refuse, flow::FAILED_FAST)
    }
}

/// Whether the slot holds a socket. The map's own entry and not a socket lookup, which anything in the pod that binds
/// the proxy's port would answer. The kernel empties the slot when the listener is closed.
#[inline(always)]
pub fn is_there(slot: u32) -> bool {
    let map = core::ptr::from_ref(&LISTENERS).cast_mut().cast();
    // SAFETY: the map's key is a `u32`; on a SOCKMAP the result is a referenced socket or null.
    let socket = unsafe { bpf_map_lookup_elem(map, core::ptr::from_ref(&slot).cast()) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and the reference is given back exactly once.
    unsafe { bpf_sk_release(socket) };
    true
}

/// Takes the mark from a socket that was sent to the proxy before and now goes elsewhere.
#[inline(always)]
pub fn unmark(ctx: &SockAddrContext) {
    // SAFETY: the context's socket is null or valid; the verifier checks that it was compared.
    let marked = unsafe {
        let socket = (*ctx.sock_addr).__bindgen_anon_1.sk;
        !socket.is_null() && (*socket).mark == MARK
    };
    if marked {
        set_mark(ctx, 0);
    }
}

#[inline(always)]
fn set_mark(ctx: &SockAddrContext, mut mark: u32) {
    let value = core::ptr::from_mut(&mut mark).cast();
    // SAFETY: `SO_MARK` takes an int, whose address and size are given. It cannot fail for a full socket.
    unsafe { bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_MARK, value, 4) };
}

#[inline(always)]
fn refuse() -> i32 {
    // SAFETY: sets what the system call returns; any negative errno is valid.
    unsafe { bpf_set_retval(-ECONNREFUSED) };
    REFUSE
}
