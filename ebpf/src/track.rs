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
use orlop_abi::{Connection, NO_CLUSTER, OpenKey, Pod, SocketKey, connection};

use crate::connect::IPPROTO_MPTCP;
use crate::maps::{CONNECTIONS, OPEN, count, pod_of_cgroup};

const TCP_CLOSE: u32 = 7;
/// What a `sock_ops` program returns: the kernel takes the reply, of which there is none.
const DONE: u32 = 1;

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
        BPF_SOCK_OPS_TCP_CONNECT_CB => opened(ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => closed(ctx),
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
    let workload = connection.frontend.workload;
    if !add(&OpenKey::endpoint(workload, connection.address, connection.port)) {
        count(pod, |c| &mut c.untracked);
        return;
    }
    if connection.cluster != NO_CLUSTER && !add(&OpenKey::cluster(workload, connection.cluster)) {
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
    let workload = connection.frontend.workload;
    subtract(&OpenKey::endpoint(workload, connection.address, connection.port));
    if connection.cluster != NO_CLUSTER {
        subtract(&OpenKey::cluster(workload, connection.cluster));
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

#[inline(always)]
fn add(key: &OpenKey) -> bool {
    if OPEN.get_ptr(key).is_none() {
        // Another CPU may be first.
        let _ = OPEN.insert(key, &0, u64::from(BPF_NOEXIST));
    }
    let Some(count) = OPEN.get_ptr_mut(key) else { return false };
    atomic_add(count, 1);
    true
}

#[inline(always)]
fn subtract(key: &OpenKey) {
    if let Some(count) = OPEN.get_ptr_mut(key) {
        atomic_add(count, u64::MAX);
    }
}

/// `BPF_XADD`. For Rust the target has no atomics, because of those that its oldest processor lacks.
#[inline(always)]
fn atomic_add(word: *mut u64, value: u64) {
    // SAFETY: a value of `OPEN` is an aligned word, and the verifier checks the access.
    unsafe { asm!("lock *(u64 *)({word} + 0) += {value}", word = in(reg) word, value = in(reg) value) };
}
