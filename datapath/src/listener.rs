//! What the agent's sockets in a pod are for.

use orlop_abi::listener;

/// The use of a socket that the kernel steers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerRole {
    /// It takes the connections that the workload makes.
    Outbound,
    /// It takes the connections that are made to the workload.
    Inbound,
    /// It takes the workload's questions to resolvers, over TCP.
    DnsTcp,
    /// It takes the workload's questions to resolvers, over UDP.
    DnsUdp,
}

impl ListenerRole {
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Outbound => listener::OUTBOUND,
            Self::Inbound => listener::INBOUND,
            Self::DnsTcp => listener::DNS_TCP,
            Self::DnsUdp => listener::DNS_UDP,
        }
    }
}
