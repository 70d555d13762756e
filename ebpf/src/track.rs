//! What is known of each connection that the kernel balanced, and how many of them are open.
//!
//! A connect notes its choice with its socket; the SYN makes it count; the socket's way back to `TCP_CLOSE` ends it,
//! whatever led there: the last `close`, a reset, a time-out, a failed connect, `AF_UNSPEC`. Forks and duplicated
//! descriptors share the socket, so they count once.

use core::arch::asm;

use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock,
};
use aya_ebpf::helpers::{bpf_sk_storage_get, bpf_skc_to_mptcp_sock};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use orlop_abi::{Connection, NO_CLUSTER, OpenKey, Pod, connection};

use crate::maps::{CONNECTIONS, OPEN, count, pod_of_cgroup};

const TCP_CLOSE: u32 = 7;
/// What a `sock_ops` program returns: the kernel takes the reply, of which there is none.
const DONE: u32 = 1;

/// Notes what was chosen for the socket that connects.
#[inline(always)]
pub fn chosen(ctx: &SockAddrContext, pod: &Pod, mut connection: Connection) {
    // SAFETY: the context's socket is null or valid; the verifier checks that it was compared.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if socket.is_null() {
        return;
    }
    match stored(socket, &mut connection, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) {
        // What was there is not overwritten by the helper.
        // SAFETY: the value belongs to the socket, which is locked.
        Some(value) => unsafe { value.write(connection) },
        None => count(pod, |c| &mut c.untracked),
    }
}

/// Forgets what was chosen for the socket: it connects elsewhere now.
#[inline(always)]
pub fn forget(ctx: &SockAddrContext) {
    // SAFETY: as above.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if socket.is_null() {
        return;
    }
    if let Some(value) = stored(socket, core::ptr::null_mut(), 0) {
        // SAFETY: as above.
        unsafe { (*value).state = connection::NONE };
    }
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
    let Some(value) = of_socket(ctx) else { return };
    // SAFETY: the value belongs to the socket, which is locked.
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
    let Some(value) = of_socket(ctx) else { return };
    // SAFETY: as above.
    let connection = unsafe { &mut *value };
    if connection.state != connection::OPEN {
        return;
    }
    connection.state = connection::NONE;
    let workload = connection.frontend.workload;
    subtract(&OpenKey::endpoint(workload, connection.address, connection.port));
    if connection.cluster != NO_CLUSTER {
        subtract(&OpenKey::cluster(workload, connection.cluster));
    }
}

/// What was noted; of a subflow of Multipath TCP with the socket that the application has.
#[inline(always)]
fn of_socket(ctx: &SockOpsContext) -> Option<*mut Connection> {
    // SAFETY: the context's socket is null or valid; the verifier checks that it was compared.
    let socket = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if socket.is_null() {
        return None;
    }
    if let Some(value) = stored(socket, core::ptr::null_mut(), 0) {
        return Some(value);
    }
    // SAFETY: the helper takes any socket, and returns null for one that is no subflow.
    let whole = unsafe { bpf_skc_to_mptcp_sock(socket.cast()) };
    if whole.is_null() { None } else { stored(whole.cast(), core::ptr::null_mut(), 0) }
}

#[inline(always)]
fn stored(socket: *mut bpf_sock, initial: *mut Connection, flags: u64) -> Option<*mut Connection> {
    // SAFETY: the map is one of socket storage with values of this type, and the socket is not null.
    let value = unsafe { bpf_sk_storage_get(CONNECTIONS.as_ptr(), socket.cast(), initial.cast(), flags) };
    (!value.is_null()).then_some(value.cast())
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
