//! What happened to a workload's connections.

use orlop_abi::Counters;
use serde::Serialize;

/// Sums over all CPUs since this agent enrolled the workload. Each connection counts once, when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WorkloadCounters {
    /// Connects that the kernel sent to a backend.
    pub kernel_balanced: u64,
    /// Connects that were marked for the proxy.
    pub proxied: u64,
    /// Connects that were left as they were.
    pub passthrough: u64,
    /// Connects refused because the plan says so.
    pub blocked: u64,
    /// Connects refused because the cluster has as many open connections as it may (`max_connections`).
    pub overflowed: u64,
    /// Balanced connects that could not be noted, for want of memory: not counted as open, never drained.
    pub untracked: u64,
    /// Flows that somebody was to be told of, and was not: more than could be taken away.
    pub flows_lost: u64,
    /// Connections that were closed because their service had lost the endpoint longer than the drain time ago.
    pub drained: u64,
    /// How often rules, routes, a sysctl or an attachment of Orlop's were missing and were put back.
    pub repaired: u64,
    /// Connects refused because the proxy is not there, or has no listener of the family.
    pub failed_fast: u64,
    /// Connects let past a proxy that is not there.
    pub failed_open: u64,
    /// Arrivals left to the application.
    pub inbound_direct: u64,
    /// Arrivals steered to the proxy.
    pub inbound_proxied: u64,
    /// Arrivals refused because the plan says so.
    pub inbound_dropped: u64,
    /// Connections that were open when a changed policy denied them, and were closed.
    pub denied_closed: u64,
    /// Destinations and ports that the kernel leaves to the proxy now, for want of room in the maps.
    pub without_room: u64,
    /// Arrivals refused because a policy denies their source.
    pub inbound_denied: u64,
    /// Arrivals refused because the proxy is not there, or has no listener of the family.
    pub inbound_failed_fast: u64,
    /// DNS to the node: connects, and datagrams of sockets that are not connected.
    pub dns_captured: u64,
    /// DNS that went directly because the node does not answer it.
    pub dns_direct: u64,
    /// Connects and DNS that annotations keep from being taken.
    pub excluded: u64,
    /// Arrivals that annotations keep from being taken.
    pub inbound_excluded: u64,
    /// Probes that were left to the application, past policies and mutual TLS.
    pub inbound_probes: u64,
    /// Arrivals left to the application because the kernel has seen a workload of the node make them, in the place of mutual
    /// TLS.
    pub inbound_attested: u64,
}

impl WorkloadCounters {
    pub(crate) fn add(&mut self, cpu: &Counters) {
        self.kernel_balanced += cpu.kernel_balanced;
        self.proxied += cpu.proxied;
        self.passthrough += cpu.passthrough;
        self.blocked += cpu.blocked;
        self.overflowed += cpu.overflowed;
        self.untracked += cpu.untracked;
        self.flows_lost += cpu.flows_lost;
        self.failed_fast += cpu.failed_fast;
        self.failed_open += cpu.failed_open;
        self.inbound_direct += cpu.inbound_direct;
        self.inbound_proxied += cpu.inbound_proxied;
        self.inbound_dropped += cpu.inbound_dropped;
        self.inbound_denied += cpu.inbound_denied;
        self.inbound_failed_fast += cpu.inbound_failed_fast;
        self.dns_captured += cpu.dns_captured;
        self.dns_direct += cpu.dns_direct;
        self.excluded += cpu.excluded;
        self.inbound_excluded += cpu.inbound_excluded;
        self.inbound_probes += cpu.inbound_probes;
        self.inbound_attested += cpu.inbound_attested;
    }
}
