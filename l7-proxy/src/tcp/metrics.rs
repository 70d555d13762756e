//! Istio's metrics of a connection that the TCP proxy carries.

use std::sync::Arc;

use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::telemetry::IstioStats;

use super::connect::Met;
use crate::pod::ConnectionContext;
use crate::stats::{Direction, ResponseFlag, ResponseFlags};
use crate::telemetry::{Destination, Dimensions, Peer, Protocol, SeriesCounters};

/// A connection in its series, until dropped.
pub(super) struct Counted(Arc<SeriesCounters>);

impl Counted {
    /// Counts a connection that was opened to an endpoint of `cluster`, or not, for these reasons. As with Istio, what
    /// becomes of it later is not told. `None` where there are too many series.
    pub(super) fn new(
        config: &Arc<IstioStats>,
        cx: &ConnectionContext,
        cluster: Option<&Arc<Cluster>>,
        met: Option<&Met>,
        flags: &[ResponseFlag],
    ) -> Option<Self> {
        let mut set = ResponseFlags::default();
        for flag in flags {
            set.insert(*flag);
        }
        let (peer, peer_principal, shown) = match cx.direction {
            Direction::Inbound => {
                let (theirs, shown) = cx.principals();
                (Peer::Unknown, theirs, shown)
            }
            Direction::Outbound => met.map_or((Peer::Unknown, None, false), |met| {
                (Peer::at(&met.about), met.principal.clone(), met.shown)
            }),
        };
        let dimensions = Dimensions {
            direction: cx.direction,
            protocol: Protocol::Tcp,
            flags: set,
            destination: cluster.map(|cluster| Destination::of(cluster, || None)).unwrap_or_default(),
            peer,
            peer_principal,
            shown,
            config: Arc::clone(config),
        };
        let counters = cx.pod.series.of(dimensions)?;
        counters.opened.inc();
        Some(Self(counters))
    }

    /// Bytes went over it: from the client, and to the client.
    pub(super) fn moved(&self, received: u64, sent: u64) {
        self.0.received.add(received);
        self.0.sent.add(sent);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.closed.inc();
    }
}
