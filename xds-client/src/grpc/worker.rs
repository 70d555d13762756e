//! The task of one workload's stream: carries events between the connection, the protocol and the consumer.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tracing::{Instrument, info, info_span, warn};

use super::backoff::Backoff;
use super::connections::Connection;
use super::error::OpenError;
use super::{Credentials, Grpc, advice, call};
use crate::consumer::Consumer;
use crate::protocol::Ads;
use crate::{Node, Restored};

/// Requests that wait for the connection's flow control; more wait in the protocol.
const REQUEST_BUFFER: usize = 8;

pub(super) struct Worker {
    grpc: Grpc,
    id: String,
    cluster_id: String,
    credentials: Credentials,
    ads: Ads,
    consumer: Consumer,
    backoff: Backoff,
    /// Since when the current stream is answered.
    answered: Option<Instant>,
}

impl Worker {
    pub(super) fn new(grpc: Grpc, node: Node, restored: Restored, consumer: Consumer) -> Self {
        let id = node.message.id.clone();
        let mut ads = Ads::new(grpc.protocol, node.message, node.names, &grpc.shared);
        ads.restore(restored, Instant::now());
        Self {
            backoff: Backoff::new(grpc.options.backoff),
            id,
            cluster_id: node.cluster_id,
            credentials: node.credentials,
            ads,
            grpc,
            consumer,
            answered: None,
        }
    }

    /// Runs until the task is aborted.
    pub(super) async fn run(self) {
        let span = info_span!("ads", node = self.id);
        self.connect_for_ever().instrument(span).await;
    }

    async fn connect_for_ever(mut self) {
        let mut delay = Duration::ZERO;
        let mut fresh = None;
        loop {
            if fresh.is_none() {
                self.pause(delay).await;
                self.consumer
                    .publish(&self.ads, |status| status.attempts = status.attempts.saturating_add(1));
            }
            match self.exchange(fresh.take()).await {
                Ok(connection) => {
                    fresh = Some(connection);
                    self.ads.disconnected();
                    info!("moves to a fresh connection");
                    self.consumer
                        .publish(&self.ads, |status| status.renewals = status.renewals.saturating_add(1));
                }
                Err(error) => {
                    self.ads.disconnected();
                    delay = self.failed(&error);
                }
            }
        }
    }

    /// Says so, and how long to wait.
    fn failed(&mut self, error: &OpenError) -> Duration {
        let answered = self.answered.take();
        self.backoff.ended(answered.map(|answered| answered.elapsed()));
        if error.is_refusal_of_pace() {
            self.grpc.pacer.refused();
        }
        let delay = self.backoff.next_delay();
        let advice = advice::advice(error, &self.credentials, self.grpc.connections.tls());
        let error = match advice {
            Some(advice) if answered.is_none() => format!("{}; {advice}", error.describe()),
            _ => error.describe(),
        };
        warn!(error, ?delay, "the control plane's stream ended");
        self.consumer.publish(&self.ads, |status| {
            status.connected_since = None;
            status.last_error = Some(error);
        });
        delay
    }

    /// Waits for the delay and then for this stream's turn. The consumer may finish what it has meanwhile, and learns
    /// what dies.
    async fn pause(&mut self, delay: Duration) {
        let (pacer, credentials) = (Arc::clone(&self.grpc.pacer), self.credentials.clone());
        let mut turn = pin!(async move {
            sleep(delay).await;
            credentials.ready().await;
            pacer.turn().await;
        });
        loop {
            self.consumer.offer(&mut self.ads);
            let wake_at = self.ads.wake_at();
            tokio::select! {
                () = &mut turn => return,
                verdict = self.consumer.verdict() => self.ads.verdict(verdict, Instant::now()),
                () = at(wake_at), if wake_at.is_some() => {}
            }
        }
    }

    /// One stream from its opening to its end, or until a fresh connection is there to go on with.
    async fn exchange(&mut self, fresh: Option<Arc<Connection>>) -> Result<Arc<Connection>, OpenError> {
        let metadata = self.metadata()?;
        let connection = match fresh {
            Some(connection) => connection,
            None => self.grpc.connections.get(&self.credentials)?,
        };
        let (requests, receiver) = mpsc::channel(REQUEST_BUFFER);
        let (channel, options) = (connection.channel.clone(), self.grpc.options);
        let mut responses =
            call::open(channel, self.grpc.protocol, metadata, options.max_response_bytes, receiver);
        let mut renewal = self.renewal(connection.renew_at(options.renewal).into_std());
        self.ads.connected(Instant::now());
        let first_response_by = Instant::now() + options.first_response;
        let mut connected = false;
        loop {
            self.consumer.offer(&mut self.ads);
            let wake_at = self.ads.wake_at();
            tokio::select! {
                response = responses.next() => {
                    let response = response.unwrap_or_else(|| Err(Status::unavailable("closed by the server")))?;
                    self.ads.response(response, Instant::now());
                    if !std::mem::replace(&mut connected, true) {
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
                () = at(wake_at), if wake_at.is_some() => continue,
                () = at(Some(first_response_by)), if !connected => {
                    return Err(OpenError::Silent(options.first_response));
                }
                connection = &mut renewal => return Ok(connection),
            }
            self.consumer.publish(&self.ads, |_| ());
        }
    }

    /// A connection to move to, once it is time and it stands. Until then everything goes on as it is.
    fn renewal(&self, at: Instant) -> Pin<Box<dyn Future<Output = Arc<Connection>> + Send>> {
        let (grpc, credentials) = (self.grpc.clone(), self.credentials.clone());
        Box::pin(async move {
            sleep_until(at.into()).await;
            let mut backoff = Backoff::new(grpc.options.backoff);
            loop {
                grpc.pacer.turn().await;
                match grpc.connections.fresh(&credentials).await {
                    Ok(connection) => return connection,
                    Err(error) => warn!(error = error.describe(), "stays on its old connection"),
                }
                sleep(backoff.next_delay()).await;
            }
        })
    }

    /// What a sidecar's agent sends with its call.
    fn metadata(&self) -> Result<MetadataMap, OpenError> {
        let mut metadata = MetadataMap::new();
        if let Ok(cluster_id) = self.cluster_id.parse() {
            metadata.insert("clusterid", cluster_id);
        }
        if let Some(authorization) = self.credentials.authorization()? {
            metadata.insert("authorization", authorization);
        }
        Ok(metadata)
    }

    fn mark_connected(&mut self) {
        info!("the control plane answers");
        self.answered.get_or_insert_with(Instant::now);
        self.consumer.publish(&self.ads, |status| {
            status.connected_since.get_or_insert_with(SystemTime::now);
            status.attempts = 0;
        });
    }
}

async fn at(wake_at: Option<Instant>) {
    sleep_until(wake_at.unwrap_or_else(Instant::now).into()).await;
}
