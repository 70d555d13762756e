//! Whose connection arrives, on the word of the kernel and not of an address.
//!
//! A program on the cgroup of what probes the node's pods notes both ends of each of its connections before the SYN is sent,
//! and forgets them when the socket is closed. While a socket of the node's namespace has these four numbers no other one has,
//! so an arrival with them is that connection. The program on the cgroup of a workload does the same for connections from the
//! workload's own address to that of another workload of the node, behind every translation of the destination.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
};
use aya_ebpf::programs::SockOpsContext;
use orlop_abi::{Address, FourTuple, Port, attested};

use crate::maps::{ATTESTED, PEERS, count, pod_of_cgroup};
use crate::track::{DONE, TCP_CLOSE};

const AF_INET: u32 = 2;

/// `sock_ops` of the prober's sockets.
#[inline(always)]
pub fn prober(ctx: &SockOpsContext) -> u32 {
    match ctx.op() {
        // Where there is no room, the probe is treated as anybody's.
        BPF_SOCK_OPS_TCP_CONNECT_CB => drop(note(ctx, &ends(ctx), attested::PROBER)),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => {
            let _ = ATTESTED.remove(&ends(ctx));
        }
        _ => {}
    }
    DONE
}

/// A socket of a workload is about to send its SYN.
#[inline(always)]
pub fn connecting(ctx: &SockOpsContext) {
    let Some(pod) = pod_of_cgroup() else { return };
    let ends = ends(ctx);
    // A process of the pod that has gone to another namespace may have any address.
    if !pod.has(ends.client) || !is_peer(ends.server) || !is_peer(ends.client) {
        return;
    }
    if !note(ctx, &ends, attested::WORKLOAD) {
        count(pod, |c| &mut c.untracked);
    }
}

/// A socket of a workload is closed.
#[inline(always)]
pub fn closed(ctx: &SockOpsContext) {
    let ends = ends(ctx);
    // A look takes no lock, and mostly there is nothing.
    if is_by(&ends, attested::WORKLOAD) {
        let _ = ATTESTED.remove(&ends);
    }
}

#[inline(always)]
fn is_peer(address: Address) -> bool {
    PEERS.get_ptr(&address).is_some()
}

/// What could not be forgotten is not noted.
#[inline(always)]
fn note(ctx: &SockOpsContext, ends: &FourTuple, who: u32) -> bool {
    ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32).is_ok()
        && ATTESTED.insert(ends, &ends.attested(who), u64::from(BPF_ANY)).is_ok()
}

/// Whether the kernel has seen one of these make this connection.
#[inline(always)]
pub fn is_by(ends: &FourTuple, who: u32) -> bool {
    // SAFETY: a value is one aligned word.
    ATTESTED.get_ptr(ends).is_some_and(|found| unsafe { found.read_volatile() } == ends.attested(who))
}

/// The ends of the connection that the context's socket makes.
#[inline(always)]
fn ends(ctx: &SockOpsContext) -> FourTuple {
    const V4: [usize; 2] = [offset_of!(bpf_sock_ops, local_ip4), offset_of!(bpf_sock_ops, remote_ip4)];
    const V6: [usize; 2] = [offset_of!(bpf_sock_ops, local_ip6), offset_of!(bpf_sock_ops, remote_ip6)];
    let (client, server) = if ctx.family() == AF_INET {
        (Address::from_ip4_word(word::<{ V4[0] }>(ctx)), Address::from_ip4_word(word::<{ V4[1] }>(ctx)))
    } else {
        let client = Address([
            word::<{ V6[0] }>(ctx),
            word::<{ V6[0] + 4 }>(ctx),
            word::<{ V6[0] + 8 }>(ctx),
            word::<{ V6[0] + 12 }>(ctx),
        ]);
        let server = Address([
            word::<{ V6[1] }>(ctx),
            word::<{ V6[1] + 4 }>(ctx),
            word::<{ V6[1] + 8 }>(ctx),
            word::<{ V6[1] + 12 }>(ctx),
        ]);
        (client, server)
    };
    // Of the two ports, the context has one in host byte order and the other in the upper half of its word.
    let (local, remote) = (ctx.local_port() as u16, u32::from_be(ctx.remote_port()) as u16);
    FourTuple { client, server, client_port: Port::new(local), server_port: Port::new(remote) }
}

/// A word of the context. Of loads in two branches, volatile ones too, the compiler makes a single one at a computed offset,
/// which the verifier refuses; of an instruction that it does not understand it does not.
#[inline(always)]
fn word<const AT: usize>(ctx: &SockOpsContext) -> u32 {
    let word: u64;
    // SAFETY: it loads an aligned word from the context and changes nothing; the verifier checks the access.
    unsafe {
        asm!("{word} = *(u32 *)({ops} + {at})", word = lateout(reg) word, ops = in(reg) ctx.ops, at = const AT,
            options(readonly, nostack));
    }
    word as u32
}
