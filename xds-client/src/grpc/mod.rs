//! The control plane over gRPC: one HTTP/2 connection for all workloads, one delta ADS stream for each.
//!
//! Every stream has a task that reads as fast as the server sends, whatever the consumer does: a push occupies
//! one of istiod's push slots until it is read, so a stream that stalls would stall the mesh. A lost connection
//! changes nothing at the consumer; the task opens another stream after a jittered, growing delay.

mod backoff;
mod pacer;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

pub use backoff::BackoffBounds;
use pacer::Pacer;
use worker::Worker;

use crate::consumer::{Consumer, Stream};
use crate::{ClientError, Node};

/// istiod allows a client's ping every 15 s (half of `GRPC_KEEPALIVE_INTERVAL`) and itself pings every 30 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// `GRPC_KEEPALIVE_TIMEOUT` of istiod: without an answer for so long, the connection is dead.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to treat a control plane over gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcOptions {
    /// The delay between attempts of one workload to connect.
    pub backoff: BackoffBounds,
    /// The shortest time between two openings of streams, over all workloads. The default of 100 ms is half
    /// the rate that istiod admits on one core.
    pub stream_interval: Duration,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self { backoff: BackoffBounds::default(), stream_interval: Duration::from_millis(100) }
    }
}

/// What the streams of a client share.
#[derive(Debug, Clone)]
pub(crate) struct Grpc {
    channel: Channel,
    pacer: Arc<Pacer>,
    backoff: BackoffBounds,
}

impl Grpc {
    /// Connects when the first stream opens. Must be called within a Tokio runtime.
    pub(crate) fn new(address: &str, options: GrpcOptions) -> Result<Self, ClientError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .ok()
            .filter(|endpoint| endpoint.uri().port().is_some())
            .ok_or_else(|| ClientError::Address { address: address.to_owned() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            pacer: Arc::new(Pacer::new(options.stream_interval)),
            backoff: options.backoff,
        })
    }

    pub(crate) fn open(&self, node: Node) -> Stream {
        let (consumer, deliveries, status) = Consumer::new();
        let task = tokio::spawn(Worker::new(self.clone(), node, consumer).run());
        Stream::new(deliveries, status, task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkloadNode;

    #[tokio::test]
    async fn an_address_without_a_port_is_refused() {
        for address in ["istiod", "istiod:", "istiod:port", "two words:1"] {
            let refused = Grpc::new(address, GrpcOptions::default());
            assert!(matches!(refused, Err(ClientError::Address { .. })), "{address}");
        }
        assert!(Grpc::new("istiod.istio-system.svc:15010", GrpcOptions::default()).is_ok());
        assert!(Grpc::new("[::1]:15010", GrpcOptions::default()).is_ok());
    }
    #[tokio::test]
    async fn a_control_plane_that_is_not_there_is_tried_again_and_the_reason_is_known() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let backoff = BackoffBounds { initial: Duration::from_millis(1), max: Duration::from_millis(1) };
        let grpc = Grpc::new(&closed.to_string(), GrpcOptions { backoff, ..GrpcOptions::default() }).unwrap();

        let stream = grpc.open(WorkloadNode::default().into());

        let mut status = stream.watch_status();
        let status = status.wait_for(|status| status.attempts > 1).await.unwrap();
        assert_eq!(status.connected_since, None);
        let error = status.last_error.as_deref().unwrap();
        assert!(error.contains("refused"), "{error}");
    }
}
