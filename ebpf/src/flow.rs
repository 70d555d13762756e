//! What becomes of connections, for whoever asks. While nobody does, it costs a look at one word.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use orlop_abi::{Address, Connection, Flow, Pod, Port, flow};

use crate::maps::{FLOWS, WATCHED, count};
use crate::track::{End, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_SYN_SENT};

/// One end of a connection.
pub type SocketAddress = (Address, Port);

/// Nothing is known of an end.
pub const NOWHERE: SocketAddress = (Address([0; 4]), Port(0));

/// Tells what became of a connect or of a SYN.
#[inline(always)]
pub fn decided(pod: &Pod, event: u32, destination: SocketAddress, peer: SocketAddress) {
    if WATCHED.get(0).is_none_or(|watched| *watched == 0) {
        return;
    }
    tell(
        pod,
        Flow {
            at: 0,
            duration: 0,
            sent: 0,
            received: 0,
            rtt: 0,
            retransmitted: 0,
            workload: pod.workload,
            event,
            destination: destination.0,
            peer: peer.0,
            destination_port: destination.1,
            peer_port: peer.1,
            padding: 0,
        },
    );
}

/// Tells of the end of a connection that was balanced.
#[inline(always)]
pub fn ended(pod: &Pod, connection: &Connection, end: &End) {
    if WATCHED.get(0).is_none_or(|watched| *watched == 0) {
        return;
    }
    let event = match end.state {
        TCP_SYN_SENT => flow::UNANSWERED,
        TCP_ESTABLISHED | TCP_CLOSE_WAIT => flow::RESET,
        _ => flow::CLOSED,
    };
    tell(
        pod,
        Flow {
            at: 0,
            duration: now().saturating_sub(connection.since),
            sent: end.sent,
            received: end.received,
            rtt: end.rtt,
            retransmitted: end.retransmitted,
            workload: pod.workload,
            event,
            destination: connection.way.frontend.address,
            peer: connection.way.address,
            destination_port: connection.way.frontend.port,
            peer_port: connection.way.port,
            padding: 0,
        },
    );
}

#[inline(always)]
fn tell(pod: &Pod, flow: Flow) {
    match FLOWS.reserve::<Flow>(0) {
        Some(mut record) => {
            record.write(Flow { at: now(), ..flow });
            record.submit(0);
        }
        None => count(pod, |c| &mut c.flows_lost),
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_coarse_ns() }
}
