//! What is known of the connections that the kernel balanced: keys and values of the maps that outlive the agent.

use core::mem::{align_of, size_of};

use crate::address::{Address, Port};
use crate::maps::FrontendKey;

/// A cluster's name as 64 bits of its hash; zero is none.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterName(pub [u32; 2]);

/// No cluster.
pub const NO_CLUSTER: ClusterName = ClusterName([0; 2]);

/// Key of `LIMITED`: a cluster whose open connections are limited, whose are counted.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitedKey {
    /// The workload that is connected.
    pub workload: u32,
    /// To which cluster.
    pub cluster: ClusterName,
}

/// Key of `TRAFFIC`: a way that the kernel leads connections. Its first member says whose they are.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Way {
    /// The frontend that the application named.
    pub frontend: FrontendKey,
    /// The backend that was chosen.
    pub address: Address,
    /// The backend that was chosen.
    pub port: Port,
    /// Zero.
    pub padding: u16,
}

/// Value of `TRAFFIC`: what went this way. Each word only grows, so what is open is the difference of the first two.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections of which a SYN was sent.
    pub opened: u64,
    /// Those of them that are over. The words that follow are of these.
    pub closed: u64,
    /// Bytes of the application that the other end has acknowledged.
    pub sent: u64,
    /// Bytes that have arrived for the application.
    pub received: u64,
    /// Segments that were sent again.
    pub retransmitted: u64,
}

/// Key of `CONNECTIONS`: the socket's cookie (`SO_COOKIE`), by which `sock_diag(7)` names it too. Of a socket of Multipath
/// TCP, which has sent no SYN yet, its address in the kernel, which no cookie ever reaches.
pub type SocketKey = u64;

/// Value of `CONNECTIONS`: how the kernel balanced a socket that is connecting or connected.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Where it was led.
    pub way: Way,
    /// The cluster that the connection counts for, if connections to it are limited.
    pub cluster: ClusterName,
    /// One of [`connection`].
    pub state: u32,
    /// When it was chosen: nanoseconds of `CLOCK_MONOTONIC_COARSE`.
    pub since: u64,
}

/// [`Connection::state`].
pub mod connection {
    /// Chosen; no SYN has been sent.
    pub const CHOSEN: u32 = 1;
    /// Counted in `TRAFFIC`.
    pub const OPEN: u32 = 2;
}

/// Key of `ATTESTED`: a connection by its two ends, as both of them know it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourTuple {
    /// Who connects.
    pub client: Address,
    /// Who is connected to.
    pub server: Address,
    /// Of the client.
    pub client_port: Port,
    /// Of the server.
    pub server_port: Port,
}

impl FourTuple {
    /// The value of `ATTESTED` for a connection that one of [`attested`] makes: that and the key's fingerprint, because the
    /// memory of an element may be another key's by the time that it is read (see [`FrontendKey::tag`]).
    #[inline]
    #[must_use]
    pub const fn attested(&self, by: u32) -> u32 {
        let ports = (self.client_port.0 as u32) << 16 | self.server_port.0 as u32;
        (self.client.folded().rotate_left(7) ^ self.server.folded() ^ ports.rotate_left(13)) << 2 | by
    }
}

/// Whose socket the kernel saw connect; below 4.
pub mod attested {
    /// The one that probes the node's pods: the kubelet.
    pub const PROBER: u32 = 1;
    /// A workload that has an identity: the one whose address it comes from.
    pub const WORKLOAD: u32 = 2;
}

const _: () = {
    assert!(size_of::<FourTuple>() == 36 && align_of::<FourTuple>() == 4);
    assert!(size_of::<LimitedKey>() == 12 && align_of::<LimitedKey>() == 4);
    assert!(size_of::<Way>() == 44 && align_of::<Way>() == 4);
    assert!(size_of::<Traffic>() == 40 && align_of::<Traffic>() == 8);
    assert!(size_of::<Connection>() == 64 && align_of::<Connection>() == 8);
};
