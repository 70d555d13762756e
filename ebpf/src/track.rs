//! What is known of each connection that the kernel balanced, and how many of them are open.
//!
//! A connect notes its choice by its socket; the SYN makes it count; the socket's way back to `TCP_CLOSE` ends it,
//! whatever led there: the last `close`, a reset, a time-out, a failed connect, `AF_UNSPEC`. Forks and duplicated
//! descriptors share the socket, so they count once.

use core::arch::asm;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_ANY, BPF_NOEXIST, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
};
use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_skc_to_mptcp_sock};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use orlop_abi::{Connection, LimitedKey, NO_CLUSTER, Pod, SocketKey, Traffic, connection};

use crate::connect::IPPROTO_MPTCP;
use crate::maps::{CONNECTIONS, LIMITED, TRAFFIC, count, pod_of_cgroup};
use crate::{attest, flow};

// The states of a socket, of `tcp_states.h`.
pub const TCP_ESTABLISHED: u32 = 1;
pub const TCP_SYN_SENT: u32 = 2;
const TCP_FIN_WAIT2: u32 = 5;
pub const TCP_CLOSE: u32 = 7;
pub const TCP_CLOSE_WAIT: u32 = 8;
const TCP_LAST_ACK: u32 = 9;
const TCP_CLOSING: u32 = 11;
/// What a `sock_ops` program returns: the kernel takes the reply, of which there is none.
pub const DONE: u32 = 1;

/// Notes what was chosen for the socket that connects.
#[inline(always)]
pub fn chosen(ctx: &SockAddrContext, pod: &Pod, connection: Connection) {
    let Some(key) = key(ctx) else { return };
    if CONNECTIONS.insert(&key, &connection, u64::from(BPF_ANY)).is_err() {
        count(pod, |c| &mut c.untracked);
    }
}

/// Forgets what was chosen for the socket: it connects elsewhere now.
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    let Some(key) = key(ctx) else { return };
    // A look takes no lock, and nearly always there is nothing.
    if CONNECTIONS.get_ptr(&key).is_some() {
        let _ = CONNECTIONS.remove(&key);
    }
}

/// By what the socket that connects is known. The SYN of Multipath TCP is sent by another socket, the first subflow.
#[inline(always)]
fn key(ctx: &SockAddrContext) -> Option<SocketKey> {
    // SAFETY: the verifier checks the accesses to the context; its socket is null or valid.
    let (socket, protocol) = unsafe { ((*ctx.sock_addr).__bindgen_anon_1.sk, (*ctx.sock_addr).protocol) };
    if socket.is_null() {
        return None;
    }
    if protocol == IPPROTO_MPTCP {
        return Some(socket as SocketKey);
    }
    // SAFETY: the helper takes the context of such a program.
    Some(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) })
}

/// `sock_ops` of the pod's sockets.
#[inline(always)]
pub fn track(ctx: &SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            opened(ctx);
            attest::connecting(ctx);
        }
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => {
            closed(ctx);
            attest::closed(ctx);
        }
        _ => {}
    }
    DONE
}

/// The SYN is about to be sent.
#[inline(always)]
fn opened(ctx: &SockOpsContext) {
    let Some(pod) = pod_of_cgroup() else { return };
    let key = cookie(ctx);
    let Some(value) = CONNECTIONS.get_ptr_mut(&key).or_else(|| of_subflow(ctx, pod, key)) else { return };
    // SAFETY: the value is this socket's, which is locked; only a look from user space can meet the change.
    let connection = unsafe { &mut *value };
    if connection.state != connection::CHOSEN {
        return;
    }
    if ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32).is_err() {
        count(pod, |c| &mut c.untracked);
        return;
    }
    let Some(traffic) = traffic(connection) else {
        count(pod, |c| &mut c.untracked);
        return;
    };
    // SAFETY: the entry of a map, whose words are changed atomically.
    atomic_add(unsafe { &raw mut (*traffic).opened }, 1);
    if connection.cluster != NO_CLUSTER && !add(&limited(connection)) {
        connection.cluster = NO_CLUSTER;
        count(pod, |c| &mut c.untracked);
    }
    connection.state = connection::OPEN;
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let key = cookie(ctx);
    let Some(value) = CONNECTIONS.get_ptr(&key) else { return };
    // SAFETY: as above.
    let connection = unsafe { *value };
    let _ = CONNECTIONS.remove(&key);
    if connection.state != connection::OPEN {
        return;
    }
    let end = End::of(ctx);
    if let Some(traffic) = TRAFFIC.get_ptr_mut(&connection.way) {
        // SAFETY: the entry of a map, whose words are changed atomically.
        unsafe {
            atomic_add(&raw mut (*traffic).sent, end.sent);
            atomic_add(&raw mut (*traffic).received, end.received);
            atomic_add(&raw mut (*traffic).retransmitted, u64::from(end.retransmitted));
            atomic_add(&raw mut (*traffic).closed, 1);
        }
    }
    if connection.cluster != NO_CLUSTER
        && let Some(count) = LIMITED.get_ptr_mut(&limited(&connection))
    {
        atomic_add(count, u64::MAX);
    }
    if let Some(pod) = pod_of_cgroup() {
        flow::ended(pod, &connection, &end);
    }
}

/// What the kernel knows of a connection that is over.
pub struct End {
    /// The state that it ended in.
    pub state: u32,
    /// See [`Traffic`].
    pub sent: u64,
    /// See [`Traffic`].
    pub received: u64,
    /// In microseconds.
    pub rtt: u32,
    /// See [`Traffic`].
    pub retransmitted: u32,
}

impl End {
    #[inline(always)]
    fn of(ctx: &SockOpsContext) -> Self {
        let state = ctx.arg(0);
        let ops = ctx.ops;
        // SAFETY: the context's fields; the verifier checks every access.
        let (acknowledged, received, rtt, retransmitted) =
            unsafe { ((*ops).bytes_acked, (*ops).bytes_received, (*ops).srtt_us, (*ops).total_retrans) };
        // The kernel counts SYN and FIN (RFC 9293 section 3.4). In these states this end's FIN has been acknowledged, in
        // the last two the other's has come. From FIN_WAIT2 it may have come, too, and is a byte too many then.
        let ours = u64::from(state != TCP_SYN_SENT)
            + u64::from(matches!(state, TCP_FIN_WAIT2 | TCP_LAST_ACK | TCP_CLOSING));
        let theirs = u64::from(matches!(state, TCP_LAST_ACK | TCP_CLOSING));
        // The smoothed time is kept in eighths.
        Self {
            state,
            sent: acknowledged.saturating_sub(ours),
            received: received.saturating_sub(theirs),
            rtt: rtt >> 3,
            retransmitted,
        }
    }
}

#[inline(always)]
fn cookie(ctx: &SockOpsContext) -> SocketKey {
    // SAFETY: the helper takes the context of such a program.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// What was noted for the socket of Multipath TCP whose first subflow this is, and now is the subflow's.
#[inline(always)]
fn of_subflow(ctx: &SockOpsContext, pod: &Pod, key: SocketKey) -> Option<*mut Connection> {
    // SAFETY: the context's socket is null or valid; the verifier checks that it was compared.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the helper takes any socket, and returns null for one that is no subflow.
    let whole = unsafe { bpf_skc_to_mptcp_sock(socket.cast()) };
    if whole.is_null() {
        return None;
    }
    let whole = whole as SocketKey;
    // SAFETY: the value is this socket's, which is locked.
    let connection = unsafe { *CONNECTIONS.get_ptr(&whole)? };
    let _ = CONNECTIONS.remove(&whole);
    if CONNECTIONS.insert(&key, &connection, u64::from(BPF_ANY)).is_err() {
        count(pod, |c| &mut c.untracked);
    }
    CONNECTIONS.get_ptr_mut(&key)
}

/// The entry for the connection's way, made if need be.
#[inline(always)]
fn traffic(connection: &Connection) -> Option<*mut Traffic> {
    if TRAFFIC.get_ptr(&connection.way).is_none() {
        let nothing = Traffic { opened: 0, closed: 0, sent: 0, received: 0, retransmitted: 0 };
        // Another CPU may be first.
        let _ = TRAFFIC.insert(&connection.way, &nothing, u64::from(BPF_NOEXIST));
    }
    TRAFFIC.get_ptr_mut(&connection.way)
}

#[inline(always)]
fn limited(connection: &Connection) -> LimitedKey {
    LimitedKey { workload: connection.way.frontend.workload, cluster: connection.cluster }
}

#[inline(always)]
fn add(key: &LimitedKey) -> bool {
    if LIMITED.get_ptr(key).is_none() {
        // Another CPU may be first.
        let _ = LIMITED.insert(key, &0, u64::from(BPF_NOEXIST));
    }
    let Some(count) = LIMITED.get_ptr_mut(key) else { return false };
    atomic_add(count, 1);
    true
}

/// `BPF_XADD`. For Rust the target has no atomics, because of those that its oldest processor lacks.
#[inline(always)]
fn atomic_add(word: *mut u64, value: u64) {
    // SAFETY: the caller's word is aligned and within a map's value, and the verifier checks the access.
    unsafe { asm!("lock *(u64 *)({word} + 0) += {value}", word = in(reg) word, value = in(reg) value) };
}
