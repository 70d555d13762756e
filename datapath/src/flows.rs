//! What the kernel tells of connections while somebody wants to know: records of a ring buffer, parsed.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use aya::maps::{MapData, RingBuf};
use orlop_abi::flow;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::{raw, sys};

/// What became of a connection, or of a try at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// When it was told; to a few milliseconds.
    pub at: SystemTime,
    /// The workload's index, see [`Datapath::workload_of`](crate::Datapath::workload_of).
    pub(crate) workload: u32,
    /// What became of it.
    pub event: FlowEvent,
    /// Where to: what the application named, or for an arrival the pod's own address.
    pub destination: SocketAddr,
    /// The endpoint that the kernel chose, or for an arrival who comes.
    pub peer: Option<SocketAddr>,
    /// Of a connection that the kernel balanced and that is over.
    pub ended: Option<Ended>,
}

/// A connection that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// From the connect to the last state of the socket; to a few milliseconds.
    pub duration: Duration,
    /// See [`WayTraffic::sent`](crate::WayTraffic::sent).
    pub sent: u64,
    /// See [`WayTraffic::received`](crate::WayTraffic::received).
    pub received: u64,
    /// The kernel's smoothed round-trip time; zero before the first.
    pub rtt: Duration,
    /// Segments that were sent again.
    pub retransmitted: u32,
}

/// What becomes of connections. Of what the kernel balances the end is told, of all else what became of the connect or of
/// the SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum FlowEvent {
    /// Both ends have closed it.
    Closed = flow::CLOSED,
    /// It was cut off, by a reset of either end or by the node.
    Reset = flow::RESET,
    /// The endpoint did not take it.
    Unanswered = flow::UNANSWERED,
    /// It goes through the proxy.
    Proxied = flow::PROXIED,
    /// It goes on as it is.
    Passed = flow::PASSED,
    /// Refused because the configuration says so.
    Blocked = flow::BLOCKED,
    /// Refused because the cluster has as many open connections as it may.
    Overflowed = flow::OVERFLOWED,
    /// Refused because the proxy, or an endpoint of the address family, is not there.
    FailedFast = flow::FAILED_FAST,
    /// Let past a proxy that is not there.
    FailedOpen = flow::FAILED_OPEN,
    /// It arrived and went straight to the application.
    InboundDirect = flow::INBOUND_DIRECT,
    /// It arrived and goes through the proxy.
    InboundProxied = flow::INBOUND_PROXIED,
    /// It arrived and was refused because the configuration says so.
    InboundDropped = flow::INBOUND_DROPPED,
    /// It arrived and was refused because a policy denies its source.
    InboundDenied = flow::INBOUND_DENIED,
    /// It arrived and was refused because the proxy is not there.
    InboundFailedFast = flow::INBOUND_FAILED_FAST,
}

impl fmt::Display for FlowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Reset => "cut off",
            Self::Unanswered => "not answered",
            Self::Proxied | Self::InboundProxied => "goes on",
            Self::Passed => "goes on as it is",
            Self::Blocked | Self::InboundDropped => "refused",
            Self::Overflowed => "refused, as many connections are open as may be",
            Self::FailedFast => "refused, no endpoint or no proxy is there",
            Self::FailedOpen => "let past the proxy, which is not there",
            Self::InboundDirect => "arrived",
            Self::InboundDenied => "denied",
            Self::InboundFailedFast => "refused, the proxy is not there",
        })
    }
}

impl FlowEvent {
    const ALL: [Self; 14] = [
        Self::Closed,
        Self::Reset,
        Self::Unanswered,
        Self::Proxied,
        Self::Passed,
        Self::Blocked,
        Self::Overflowed,
        Self::FailedFast,
        Self::FailedOpen,
        Self::InboundDirect,
        Self::InboundProxied,
        Self::InboundDropped,
        Self::InboundDenied,
        Self::InboundFailedFast,
    ];

    /// Whether it is of a connection to the workload.
    pub fn is_inbound(self) -> bool {
        self as u32 >= flow::INBOUND_DIRECT
    }
}

/// The records as they come.
pub struct Flows {
    ring: AsyncFd<RingBuf<MapData>>,
    /// From `CLOCK_MONOTONIC` to the time of day.
    since: Duration,
}

impl Flows {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Result<Self, Error> {
        Ok(Self { ring: sys::wait_on(ring).map_err(Error::Flows)?, since: time_of_day_at_boot() })
    }

    /// Waits until there is one and returns all that there are, the oldest first. Nothing is lost where it is not waited for.
    pub async fn next(&mut self) -> io::Result<Vec<Flow>> {
        let mut ready = self.ring.readable_mut().await?;
        let mut flows = Vec::new();
        while let Some(record) = ready.get_inner_mut().next() {
            flows.extend(parse(&record, self.since));
        }
        ready.clear_ready();
        Ok(flows)
    }
}

fn time_of_day_at_boot() -> Duration {
    let monotonic = clock_gettime(ClockId::Monotonic);
    let monotonic = Duration::try_from(monotonic).unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(monotonic)
}

/// `None` for what is no [`orlop_abi::Flow`].
fn parse(record: &[u8], since: Duration) -> Option<Flow> {
    let orlop_abi::Flow {
        at,
        duration,
        sent,
        received,
        rtt,
        retransmitted,
        workload,
        event,
        destination,
        peer,
        destination_port,
        peer_port,
        padding: _,
    } = raw::from_bytes(record)?;
    let event = FlowEvent::ALL.into_iter().find(|known| *known as u32 == event)?;
    let over = matches!(event, FlowEvent::Closed | FlowEvent::Reset | FlowEvent::Unanswered);
    let ended = over.then(|| Ended {
        duration: Duration::from_nanos(duration),
        sent,
        received,
        rtt: Duration::from_micros(rtt.into()),
        retransmitted,
    });
    Some(Flow {
        at: SystemTime::UNIX_EPOCH + since + Duration::from_nanos(at),
        workload,
        event,
        destination: SocketAddr::new(destination.into(), destination_port.host_order()),
        peer: (peer_port.0 != 0).then(|| SocketAddr::new(peer.into(), peer_port.host_order())),
        ended,
    })
}
