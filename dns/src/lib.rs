//! Answers the pods' DNS from istiod's name table, and forwards the rest to whomever it was sent to.
//!
//! A [`Server`] is one thread for the whole node; each [`PodDns`] has sockets inside its pod, to which the kernel programs
//! steer whatever the pod sends to port 53 (`ebpf/src/dns.rs`). What is not in the table goes on from the pod's own network
//! namespace to the resolver that the application asked, and its answer comes back as it is. Both ends see the addresses that
//! they expect: over TCP because the accepted socket has them, over UDP because the answer is written with its IP header.
//!
//! In go tables and network namespaces, out come sockets for the kernel to steer to, and counters. Dropping a [`PodDns`]
//! closes its sockets, and the kernel lets the pod's questions go their own way again.

mod answer;
mod counters;
mod forward;
mod messages;
mod names;
mod packet;
mod pod;
mod question;
mod resolve;
mod server;
mod sockets;
mod tcp;
mod udp;

pub use answer::Carrier;
pub use counters::DnsCounters;
pub use names::{Found, Names};
pub use pod::{PodDns, PodNetwork};
pub use resolve::{Resolution, resolve};
pub use server::Server;
pub use sockets::{OpenError, PORT};
