//! The kernel programs. They hold no policy: `plan` decides, `datapath` writes the decision into the maps, and these
//! look it up. No program does anything for a packet of TCP; they run when a connection is made or ends.
//!
//! - `connect4`, `connect6` on the pod's cgroup choose a connection's way out, see [`connect`] and [`balance`].
//! - `track` on the pod's cgroup counts the open connections among those that were balanced, see [`track`].
//! - `prober` on the cgroup of what probes the node's pods vouches for its connections, see [`attest`].
//! - `sendmsg4`, `sendmsg6` on the pod's cgroup carry questions to a resolver to the node, see [`dns`].
//! - what becomes of connections is told to whoever asks, see [`flow`].
//! - `steer` on the pod's network namespace hands arrivals to the proxy's listeners, see [`steer`].
//!
//! The programs of pods' cgroups are loaded once and attached to every pod's: the kernel keeps whose it is beside each
//! attachment. An `sk_lookup` program cannot be told, so each pod has its own. The maps are shared, see [`maps`].

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod attest;
mod balance;
mod connect;
mod dns;
mod exclusion;
mod flow;
mod maps;
mod steer;
mod track;

use aya_ebpf::macros::{cgroup_sock_addr, sk_lookup, sock_ops};
use aya_ebpf::programs::{SkLookupContext, SockAddrContext, SockOpsContext};

/// `connect(2)` and its like on an `AF_INET` socket.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect::connect4(&ctx)
}

/// `connect(2)` and its like on an `AF_INET6` socket, to IPv4-mapped destinations as well.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect::connect6(&ctx)
}

/// What happens to the pod's TCP sockets.
#[sock_ops]
pub fn track(ctx: SockOpsContext) -> u32 {
    track::track(&ctx)
}

/// What happens to the TCP sockets of the kubelet.
#[sock_ops]
pub fn prober(ctx: SockOpsContext) -> u32 {
    attest::prober(&ctx)
}

/// `sendto(2)` and its like with a destination, on an `AF_INET` socket for UDP; also on an `AF_INET6` socket to an
/// IPv4-mapped one.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    dns::sendmsg4(&ctx)
}

/// `sendto(2)` and its like with a destination, on an `AF_INET6` socket for UDP.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    dns::sendmsg6(&ctx)
}

/// The search for a listener for an arriving SYN, or for a socket for a datagram.
#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    steer::steer(&ctx)
}

/// Never reached: the verifier refuses a program that could loop for ever.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// None of the helpers in use is reserved for GPL-compatible programs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
