//! The structs that the kernel programs and the agent share.
//!
//! `no_std` and without dependencies, because it is compiled for both sides. Every struct is `repr(C)` with fixed
//! widths and named padding, so that no byte of it is ever uninitialised: the kernel compares map keys byte by byte.
//! Addresses are 16 bytes, IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2), held as the four words that
//! `struct bpf_sock_addr` and `struct bpf_sk_lookup` hold: network byte order in memory. The same goes for ports.

#![no_std]
#![forbid(unsafe_code)]

use core::net::{Ipv4Addr, Ipv6Addr};

mod address;
mod connections;
mod flows;
mod maps;

pub use address::{ANY, Address, Port};
pub use connections::{
    ClusterName, Connection, FourTuple, LimitedKey, NO_CLUSTER, SocketKey, Traffic, Way, attested, connection,
};
pub use flows::{Flow, flow};
pub use maps::{
    Backend, Counters, FrontendKey, FrontendValue, InboundKey, InboundValue, LISTENERS_PER_WORKLOAD,
    MAX_CHOICES, MAX_WORKLOADS, NO_POLICY, Pod, PortKey, RangeKey, SourceKey, Workload, balance_flags,
    exclusion, inbound, listener, listener_slot, outbound, source, workload_flags,
};

/// Rises whenever a struct, a map or the meaning of a value changes.
pub const ABI_VERSION: u32 = 9;

/// Rises whenever [`Pod`] changes. What is attached with a value of another layout is attached anew, instead of being given
/// another program.
pub const POD_LAYOUT: u32 = 1;

/// The socket mark of a connection that goes by the proxy, and of the proxy's own connections to the application.
pub const MARK: u32 = 0x6f72;

/// The routing table that carries marked packets over loopback.
pub const ROUTE_TABLE: u32 = 28_530;

/// The source that a datagram to a resolver is given to be routed by [`ROUTE_TABLE`], where its socket is not connected: the
/// kernel has read the socket's mark by then. No host name stands behind it, and no application sees it.
pub const DNS_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 111, 114, 53);

/// The same for IPv6, which has one loopback address. Nothing else has it as its source and goes to another address.
pub const DNS_SOURCE_V6: Ipv6Addr = Ipv6Addr::LOCALHOST;
