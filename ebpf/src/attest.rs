//! Whose connection arrives, on the word of the kernel and not of an address.
//!
//! A program on the cgroup of what probes the node's pods notes both ends of each of its connections before the SYN is sent,
//! and forgets them when the socket is closed. While a socket of the node's namespace has these four numbers no other one has,
//! so an arrival with them is that connection.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops,
};
use aya_ebpf::programs::SockOpsContext;
use orlop_abi::{Address, FourTuple, Port, attested};

use crate::maps::ATTESTED;
use crate::track::{DONE, TCP_CLOSE};

const AF_INET: u32 = 2;

/// `sock_ops` of the prober's sockets.
#[inline(always)]
pub fn prober(ctx: &SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => {
            let _ = ATTESTED.remove(&ends(ctx));
        }
        _ => {}
    }
    DONE
}

/// The SYN is about to be sent.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    // What could not be forgotten is not noted. Where there is no room either, the probe is treated as anybody's.
    if ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32).is_ok() {
        let _ = ATTESTED.insert(&ends(ctx), &attested::PROBER, u64::from(BPF_ANY));
    }
}

/// Whether the kernel has seen the prober make this connection.
#[inline(always)]
pub fn is_of_prober(ends: &FourTuple) -> bool {
    // SAFETY: a value is one aligned word, and all values are the same.
    ATTESTED.get_ptr(ends).is_some_and(|who| unsafe { who.read_volatile() } == attested::PROBER)
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
