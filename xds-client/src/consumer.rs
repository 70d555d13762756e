//! A stream's task as seen from its consumer: the handle, and the task's end of the same channels.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::delivery::{Reply, Verdict};
use crate::protocol::Ads;
use crate::{Delivery, ResourceType, StreamStatus};

/// The configuration of one workload as it arrives. Dropping it closes the stream to the control plane.
#[derive(Debug)]
pub struct Stream {
    deliveries: mpsc::Receiver<Delivery>,
    status: watch::Receiver<StreamStatus>,
    task: JoinHandle<()>,
}

impl Stream {
    pub(crate) fn new(
        deliveries: mpsc::Receiver<Delivery>,
        status: watch::Receiver<StreamStatus>,
        task: JoinHandle<()>,
    ) -> Self {
        Self { deliveries, status, task }
    }

    /// The next change, once the verdict on the last was given. Waits for as long as it takes, through any
    /// number of reconnections; `None` means that the stream's task is gone, as at shutdown of the runtime.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// The state of the stream now.
    pub fn status(&self) -> StreamStatus {
        self.status.borrow().clone()
    }

    /// Follows the state of the stream.
    pub fn watch_status(&self) -> watch::Receiver<StreamStatus> {
        self.status.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hands batches to the consumer and takes its verdicts.
#[derive(Debug)]
pub(crate) struct Consumer {
    deliveries: mpsc::Sender<Delivery>,
    verdict: Option<oneshot::Receiver<Verdict>>,
    status: watch::Sender<StreamStatus>,
}

impl Consumer {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Delivery>, watch::Receiver<StreamStatus>) {
        // One delivery is open at a time, so the channel never fills.
        let (deliveries, receiver) = mpsc::channel(1);
        let (status, status_receiver) = watch::channel(StreamStatus::default());
        (Self { deliveries, verdict: None, status }, receiver, status_receiver)
    }

    /// Gives the consumer what the protocol has for it, if it has none open.
    pub(crate) fn offer(&mut self, ads: &mut Ads) {
        if let Some(batch) = ads.next_batch(Instant::now()) {
            let (reply, verdict) = Reply::new();
            let delivery = Delivery {
                resource_type: batch.resource_type,
                upserted: batch.upserted,
                removed: batch.removed,
                reply,
            };
            self.verdict = Some(verdict);
            // A failure drops the reply, which then counts as the verdict.
            drop(self.deliveries.try_send(delivery));
        }
    }

    /// Waits for the verdict on the open delivery; for ever if there is none. May be cancelled.
    pub(crate) async fn verdict(&mut self) -> Verdict {
        match &mut self.verdict {
            Some(receiver) => {
                let verdict = receiver.await.unwrap_or_else(|_| Verdict::dropped());
                self.verdict = None;
                verdict
            }
            None => std::future::pending().await,
        }
    }

    /// Publishes a change of the stream's own state together with that of the protocol.
    pub(crate) fn publish(&self, ads: &Ads, change: impl FnOnce(&mut StreamStatus)) {
        self.status.send_modify(|status| {
            change(status);
            status.unasked = ads.unasked();
            for resource_type in ResourceType::ALL {
                if let Some(now) = ads.status(resource_type)
                    && status.types.get(&resource_type) != Some(now)
                {
                    status.types.insert(resource_type, now.clone());
                }
            }
        });
    }
}
