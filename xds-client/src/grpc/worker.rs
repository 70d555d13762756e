//! The task of one workload's stream: carries events between the connection, the protocol and the consumer.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};
use tracing::{Instrument, info, info_span, warn};

use super::Grpc;
use super::backoff::Backoff;
use crate::Node;
use crate::consumer::Consumer;
use crate::protocol::DeltaAds;

/// A whole mesh without `Sidecar` resources sends some megabytes; gRPC's own default of 4 MiB is for servers.
const MAX_RESPONSE_BYTES: usize = 256 << 20;
/// Requests that wait for the connection's flow control; more wait in the protocol.
const REQUEST_BUFFER: usize = 8;

pub(super) struct Worker {
    grpc: Grpc,
    id: String,
    ads: DeltaAds,
    consumer: Consumer,
    backoff: Backoff,
}

impl Worker {
    pub(super) fn new(grpc: Grpc, node: Node, consumer: Consumer) -> Self {
        Self {
            backoff: Backoff::new(grpc.backoff),
            id: node.message.id.clone(),
            ads: DeltaAds::new(node.message),
            grpc,
            consumer,
        }
    }

    /// Runs until the task is aborted.
    pub(super) async fn run(self) {
        let span = info_span!("ads", node = self.id);
        self.connect_for_ever().instrument(span).await;
    }

    async fn connect_for_ever(mut self) {
        let mut delay = Duration::ZERO;
        loop {
            self.pause(delay).await;
            self.consumer.publish(&self.ads, |status| status.attempts = status.attempts.saturating_add(1));
            let Err(error) = self.exchange().await;
            self.ads.disconnected();
            delay = self.backoff.next_delay();
            let error = describe(&error);
            warn!(error, ?delay, "the control plane's stream ended");
            self.consumer.publish(&self.ads, |status| {
                status.connected_since = None;
                status.last_error = Some(error);
            });
        }
    }

    /// Waits for the delay and then for this stream's turn. The consumer may finish what it has meanwhile.
    async fn pause(&mut self, delay: Duration) {
        let pacer = Arc::clone(&self.grpc.pacer);
        let mut turn = pin!(async move {
            sleep(delay).await;
            pacer.turn().await;
        });
        loop {
            tokio::select! {
                () = &mut turn => return,
                verdict = self.consumer.verdict() => self.ads.verdict(verdict, Instant::now()),
            }
        }
    }

    /// One stream from its opening to its end.
    async fn exchange(&mut self) -> Result<Infallible, Status> {
        let mut client = AggregatedDiscoveryServiceClient::new(self.grpc.channel.clone())
            .max_decoding_message_size(MAX_RESPONSE_BYTES);
        let (requests, receiver) = mpsc::channel(REQUEST_BUFFER);
        // istiod sends no headers before its first response, and that waits for our requests.
        let mut responses = Box::pin(
            stream::once(async move {
                let opened = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await;
                opened.map(Response::into_inner)
            })
            .try_flatten(),
        );
        self.ads.connected(Instant::now());
        let mut connected = false;
        loop {
            self.consumer.offer(&mut self.ads);
            let wake_at = self.ads.wake_at();
            tokio::select! {
                response = responses.next() => {
                    let response = response.unwrap_or_else(|| Err(Status::unavailable("closed by the server")))?;
                    self.ads.response(response);
                    if !std::mem::replace(&mut connected, true) {
                        self.backoff.reset();
                        self.mark_connected();
                    }
                }
                verdict = self.consumer.verdict() => self.ads.verdict(verdict, Instant::now()),
                permit = requests.reserve(), if self.ads.has_request() => {
                    let permit = permit.map_err(|_| Status::unavailable("closed while sending"))?;
                    if let Some(request) = self.ads.poll_request() {
                        permit.send(request);
                    }
                    continue;
                }
                () = sleep_until(wake_at.unwrap_or_else(Instant::now).into()), if wake_at.is_some() => continue,
            }
            self.consumer.publish(&self.ads, |_| ());
        }
    }

    fn mark_connected(&self) {
        info!("the control plane answers");
        self.consumer.publish(&self.ads, |status| {
            status.connected_since = Some(SystemTime::now());
            status.attempts = 0;
        });
    }
}

/// The code, the message and whatever caused it: a refused connection hides behind two general errors.
fn describe(error: &Status) -> String {
    let mut text = format!("{:?}: {}", error.code(), error.message());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
