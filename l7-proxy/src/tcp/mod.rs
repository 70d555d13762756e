//! The TCP proxy: `envoy.filters.network.tcp_proxy`.
//!
//! In: a downstream connection whose chain ends in a TCP proxy. Picks a cluster and a host, dials, and relays bytes until
//! both sides have ended. What cannot be served is reset, not closed: a clean end would look like an empty answer.

mod buffer_pool;
mod connect;
mod log;
mod metrics;
mod relay;

use std::rc::Rc;
use std::sync::Arc;

use orlop_plan::resource::tcp_proxy::TcpProxy;
use orlop_plan::resource::telemetry::IstioStats;
use tokio::time::timeout;

pub(crate) use buffer_pool::BufferPool;
pub(crate) use log::turned_away;

use crate::listener::{PrefixedStream, will_reset};
use crate::pod::ConnectionContext;
use crate::stats::{Direction, Refusal, ResponseFlag};
use crate::tls::Stream;

use self::log::ConnectionLog;
use self::relay::{Ended, Relay};

/// Serves one downstream connection until it ends. `stats` is where Istio's metrics are asked for.
pub(crate) async fn proxy(
    downstream: PrefixedStream<Stream>,
    config: Arc<TcpProxy>,
    stats: Option<Arc<IstioStats>>,
    cx: Rc<ConnectionContext>,
) {
    let counters = &cx.pod.counters;
    // On its own: its space is free again once connected.
    let mut log = ConnectionLog::new(&config, &cx);
    let upstream = match Box::pin(connect::connect(&config, stats, &cx, log.as_deref_mut())).await {
        Ok(upstream) => upstream,
        Err(failure) => {
            failure.count(counters);
            if let Some(log) = &mut log {
                log.flag(failure.flags());
            }
            tracing::debug!(pod = %cx.pod.name, peer = %cx.peer, destination = %cx.local, %failure, "not connected");
            return will_reset(downstream.io().tcp());
        }
    };
    let (stream, counted, _held) = upstream.into_parts();
    let ended = {
        let log = log.as_deref();
        let mut relay = Relay::new(downstream, stream, config.idle_timeout, &cx.pod, counted, log);
        let relayed = async {
            match config.max_downstream_connection_duration {
                None => relay.run().await,
                Some(most) => timeout(most, relay.run()).await.unwrap_or(Ended::MaxDuration),
            }
        };
        match cx.direction {
            Direction::Outbound => relayed.await,
            Direction::Inbound => tokio::select! {
                ended = relayed => ended,
                () = cx.denied() => Ended::Denied,
            },
        }
    };
    let flag = match ended {
        Ended::Finished => return,
        Ended::Denied => {
            tracing::debug!(pod = %cx.pod.name, peer = %cx.peer, destination = %cx.local, "denied meanwhile");
            return counters.refuse(Refusal::Policy);
        }
        Ended::ResetByDownstream => ResponseFlag::DownstreamConnectionTermination,
        Ended::ResetByUpstream => ResponseFlag::UpstreamConnectionTermination,
        Ended::Idle => ResponseFlag::StreamIdleTimeout,
        Ended::MaxDuration => ResponseFlag::DurationTimeout,
    };
    counters.flag(flag);
    if let Some(log) = &mut log {
        log.flag(&[flag]);
    }
}
