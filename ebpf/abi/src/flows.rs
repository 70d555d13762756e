//! What is told of a connection while somebody asks.

use core::mem::{align_of, size_of};

use crate::address::{Address, Port};

/// A record of `FLOWS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// When it is told: nanoseconds of `CLOCK_MONOTONIC_COARSE`.
    pub at: u64,
    /// From the choice to the end, in nanoseconds. This and the four words that follow are of a connection that is over.
    pub duration: u64,
    /// As [`Traffic::sent`](crate::Traffic::sent).
    pub sent: u64,
    /// As [`Traffic::received`](crate::Traffic::received).
    pub received: u64,
    /// The smoothed round-trip time, in microseconds.
    pub rtt: u32,
    /// Segments that were sent again.
    pub retransmitted: u32,
    /// Whose connection it is, or was to be.
    pub workload: u32,
    /// One of [`flow`].
    pub event: u32,
    /// Where to: what the application named, or for an arrival the pod's own address.
    pub destination: Address,
    /// The backend that was chosen, or for an arrival where it comes from.
    pub peer: Address,
    /// Of the destination.
    pub destination_port: Port,
    /// Of the peer.
    pub peer_port: Port,
    /// Zero.
    pub padding: u32,
}

/// [`Flow::event`]. Of what the kernel balances the end is told, of all else what becomes of the connect or the SYN.
pub mod flow {
    /// A connection to a backend is over, orderly.
    pub const CLOSED: u32 = 1;
    /// A connection to a backend was cut off: by a reset of either end, or by the node.
    pub const RESET: u32 = 2;
    /// The backend did not take the connection.
    pub const UNANSWERED: u32 = 3;
    /// Marked for the proxy.
    pub const PROXIED: u32 = 4;
    /// Left as it was.
    pub const PASSED: u32 = 5;
    /// Refused because the plan says so.
    pub const BLOCKED: u32 = 6;
    /// Refused because the cluster has as many open connections as it may.
    pub const OVERFLOWED: u32 = 7;
    /// Refused because the proxy, or a backend of the family, is not there.
    pub const FAILED_FAST: u32 = 8;
    /// Let past a proxy that is not there.
    pub const FAILED_OPEN: u32 = 9;
    /// An arrival left to the application.
    pub const INBOUND_DIRECT: u32 = 10;
    /// An arrival steered to the proxy.
    pub const INBOUND_PROXIED: u32 = 11;
    /// An arrival refused because the plan says so.
    pub const INBOUND_DROPPED: u32 = 12;
    /// An arrival refused because a policy denies its source.
    pub const INBOUND_DENIED: u32 = 13;
    /// An arrival refused because the proxy is not there.
    pub const INBOUND_FAILED_FAST: u32 = 14;
}

const _: () = assert!(size_of::<Flow>() == 88 && align_of::<Flow>() == 8);
