//! `sk_lookup`: which socket takes an arriving SYN.
//!
//! Over loopback arrive connections that the connect hook marked: they go to the proxy's outbound listener, whose
//! accepted socket then has the original destination as its own address. From outside arrive the pod's clients: they go
//! to the application, to the proxy, or nowhere; the kubelet's probes go to the application.

use aya_ebpf::bindings::BPF_SK_LOOKUP_F_NO_REUSEPORT;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::SkLookupContext;
use orlop_abi::{
    Address, FourTuple, InboundKey, Pod, Port, SourceKey, attested, flow, inbound, listener, listener_slot,
    source,
};

use crate::flow::decided;
use crate::maps::{INBOUND, LISTENERS, SOURCES, WORKLOADS, count, pod_of_netns};
use crate::{attest, dns, exclusion};

/// The kernel goes on with its own lookup, or takes the socket that was assigned.
const PASS: u32 = 1;
/// The kernel answers with a reset.
const DROP: u32 = 0;

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const DNS: u32 = dns::PORT.host_order() as u32;
/// `lo` is the first interface of every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;
/// Without it the kernel would hash the chosen listener's SO_REUSEPORT group again and might take another.
const FLAGS: u64 = BPF_SK_LOOKUP_F_NO_REUSEPORT as u64;

#[inline(always)]
pub fn steer(ctx: &SkLookupContext) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: `lookup` is the program's context; the verifier checks every access to it.
    let (protocol, family) = unsafe { ((*lookup).protocol, (*lookup).family) };
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return PASS;
    }
    let Some(pod) = pod_of_netns() else { return PASS };
    if protocol == IPPROTO_UDP {
        return if family == AF_INET { question::<false>(ctx, pod) } else { question::<true>(ctx, pod) };
    }
    // Two copies, so that the family is asked for once: every branch is one that the verifier follows both ways, for each
    // pod's program anew.
    if family == AF_INET { steer_family::<false>(ctx, pod) } else { steer_family::<true>(ctx, pod) }
}

#[inline(always)]
fn steer_family<const V6: bool>(ctx: &SkLookupContext, pod: &Pod) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: the context's fields; the verifier checks every access.
    let (ifindex, local, remote) = unsafe {
        let local = End::<V6> { ip4: &raw const (*lookup).local_ip4, ip6: &raw const (*lookup).local_ip6 };
        let remote = End::<V6> { ip4: &raw const (*lookup).remote_ip4, ip6: &raw const (*lookup).remote_ip6 };
        ((*lookup).ingress_ifindex, local, remote)
    };
    if ifindex != LOOPBACK_IFINDEX {
        // The kernel takes the interface from the route, so a connection of the pod to its own address is here as well.
        return if local.is(pod) && !remote.is(pod) { arrival(ctx, pod, remote) } else { PASS };
    }
    // The pod's own address over loopback is the proxy's hop to the application, which is bound to `lo`.
    if local.is(pod) || local.stays() {
        return PASS;
    }
    // SAFETY: the context's field; the verifier checks the access.
    if unsafe { (*lookup).local_port } == DNS && to_node(ctx, pod, listener::DNS_TCP, V6) {
        return PASS;
    }
    match LISTENERS.redirect_sk_lookup(ctx, listener_slot(pod.workload, listener::OUTBOUND, V6), FLAGS) {
        Ok(()) => PASS,
        Err(_) => {
            // It was there at connect and went away before the SYN came.
            count(pod, |c| &mut c.failed_fast);
            DROP
        }
    }
}

/// A datagram: over loopback, to somebody else's port 53, it is a question of the pod. All others are the kernel's.
#[inline(always)]
fn question<const V6: bool>(ctx: &SkLookupContext, pod: &Pod) -> u32 {
    let lookup = ctx.lookup;
    // SAFETY: the context's fields; the verifier checks every access.
    let (ifindex, port, local) = unsafe {
        let local = End::<V6> { ip4: &raw const (*lookup).local_ip4, ip6: &raw const (*lookup).local_ip6 };
        ((*lookup).ingress_ifindex, (*lookup).local_port, local)
    };
    if ifindex != LOOPBACK_IFINDEX || port != DNS || local.is(pod) || local.stays() {
        return PASS;
    }
    // Where the node answered when the socket was connected and does not any more, the sender learns it at once.
    if to_node(ctx, pod, listener::DNS_UDP, V6) { PASS } else { DROP }
}

/// Whether the node has a socket for the pod's questions, which takes this one then.
#[inline(always)]
fn to_node(ctx: &SkLookupContext, pod: &Pod, listener: u32, ipv6: bool) -> bool {
    LISTENERS.redirect_sk_lookup(ctx, listener_slot(pod.workload, listener, ipv6), FLAGS).is_ok()
}

#[inline(always)]
fn arrival<const V6: bool>(ctx: &SkLookupContext, pod: &Pod, remote: End<V6>) -> u32 {
    // SAFETY: the context's fields; the verifier checks every access.
    let (local_port, remote_port) = unsafe { ((*ctx.lookup).local_port as u16, (*ctx.lookup).remote_port) };
    if exclusion::inbound(pod, local_port) {
        return PASS;
    }
    let own = if V6 { pod.ip6 } else { pod.ip4 };
    let is_by = |who| {
        let (client, server) = (remote.address(), own);
        let (client_port, server_port) = (Port(remote_port), Port::new(local_port));
        attest::is_by(&FourTuple { client, server, client_port, server_port }, who)
    };
    if exclusion::is_probed(pod, local_port) && is_by(attested::PROBER) {
        count(pod, |c| &mut c.inbound_probes);
        return PASS;
    }
    let (action, policy) = arrival_action(ctx, pod.workload);
    let mut said = u32::from(action);
    let mut of_workload = false;
    if action == inbound::BY_SOURCE {
        said = by_source(policy, remote);
        if said & source::OF_WORKLOAD != 0 && is_by(attested::WORKLOAD) {
            said >>= source::OF_WORKLOAD_SHIFT;
            of_workload = true;
        }
    }
    let (action, denied) = ((said & source::ACTION) as u8, said & source::DENIED != 0);
    let (verdict, event) = match action {
        inbound::DIRECT => {
            if of_workload {
                count(pod, |c| &mut c.inbound_attested);
            } else {
                count(pod, |c| &mut c.inbound_direct);
            }
            (PASS, flow::INBOUND_DIRECT)
        }
        inbound::PROXY => {
            match LISTENERS.redirect_sk_lookup(ctx, listener_slot(pod.workload, listener::INBOUND, V6), FLAGS)
            {
                Ok(()) => {
                    count(pod, |c| &mut c.inbound_proxied);
                    (PASS, flow::INBOUND_PROXIED)
                }
                Err(_) => {
                    count(pod, |c| &mut c.inbound_failed_fast);
                    (DROP, flow::INBOUND_FAILED_FAST)
                }
            }
        }
        _ if denied => {
            count(pod, |c| &mut c.inbound_denied);
            (DROP, flow::INBOUND_DENIED)
        }
        _ => {
            count(pod, |c| &mut c.inbound_dropped);
            (DROP, flow::INBOUND_DROPPED)
        }
    };
    decided(pod, event, (own, Port::new(local_port)), (remote.address(), Port(remote_port)));
    verdict
}

/// What a policy says of a source. A policy speaks of every source.
#[inline(always)]
fn by_source<const V6: bool>(policy: u16, remote: End<V6>) -> u32 {
    let source = SourceKey { policy: u32::from(policy), address: remote.address() };
    let key = Key::new(SourceKey::BITS, source);
    SOURCES.get(key).map_or(u32::from(inbound::DROP), |said| *said)
}

/// The port's action and policy, else the workload's default. A value that was replaced while it was read is refused.
#[inline(always)]
fn arrival_action(ctx: &SkLookupContext, workload: u32) -> (u8, u16) {
    // SAFETY: the context's field; the verifier checks the access.
    let key = InboundKey { workload, port: unsafe { (*ctx.lookup).local_port } };
    let Some(value) = INBOUND.get_ptr(&key) else {
        // Action and policy are one word, which is written at once.
        let Some(defaults) = WORKLOADS.get_ptr(workload) else { return (inbound::DROP, 0) };
        // SAFETY: a value is one aligned word, and every bit pattern is valid for it.
        let defaults: orlop_abi::Workload =
            unsafe { core::mem::transmute(defaults.cast::<u64>().read_volatile()) };
        return (defaults.inbound, defaults.policy);
    };
    // SAFETY: a value is one aligned word, and every bit pattern is valid for it.
    let value: orlop_abi::InboundValue = unsafe { core::mem::transmute(value.cast::<u64>().read_volatile()) };
    if value.tag == key.tag() { (value.action, value.policy) } else { (inbound::DROP, 0) }
}

/// Where the SYN goes or comes from: an address in the context.
///
/// Each word is read when it is compared, by a volatile load. Of loads in two branches the compiler makes a single one at a
/// computed offset, which the verifier refuses within a context; and comparisons of what it has at hand it makes into
/// arithmetic, for which this machine needs a branch each that rejoins, twice as many ways for the verifier with every one.
#[derive(Clone, Copy)]
struct End<const V6: bool> {
    ip4: *const u32,
    ip6: *const [u32; 4],
}

impl<const V6: bool> End<V6> {
    #[inline(always)]
    fn is(self, pod: &Pod) -> bool {
        if !V6 {
            return self.word(0) == pod.ip4.0[3];
        }
        let [a, b, c, d] = pod.ip6.0;
        self.word(3) == d && self.word(2) == c && self.word(1) == b && self.word(0) == a
    }

    /// [`Address::is_loopback`] or [`Address::is_link_local_v6`].
    #[inline(always)]
    fn stays(self) -> bool {
        let first = self.word(0);
        if !V6 {
            return Address::from_ip4_word(first).is_loopback();
        }
        if first != 0 {
            return Address([first, 0, 0, 0]).is_link_local_v6();
        }
        self.word(1) == 0 && self.word(2) == 0 && Address([0, 0, 0, self.word(3)]).is_loopback()
    }

    #[inline(always)]
    fn address(self) -> Address {
        if V6 {
            Address([self.word(0), self.word(1), self.word(2), self.word(3)])
        } else {
            Address::from_ip4_word(self.word(0))
        }
    }

    #[inline(always)]
    fn word(self, index: usize) -> u32 {
        // SAFETY: the pointers are to fields of the program's context, one word and four.
        unsafe {
            if V6 { self.ip6.cast::<u32>().add(index).read_volatile() } else { self.ip4.read_volatile() }
        }
    }
}
