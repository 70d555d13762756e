//! The task of one workload's stream: carries snapshots through the protocol to the consumer.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch::Receiver;
use tokio::time::sleep_until;

use super::files::Snapshot;
use super::server::Server;
use crate::consumer::Consumer;
use crate::protocol::{Ads, Request, Response};

pub(super) struct Worker {
    workload: String,
    snapshots: Receiver<Arc<Snapshot>>,
    server: Server,
    ads: Ads,
    consumer: Consumer,
}

impl Worker {
    pub(super) fn new(
        workload: String,
        snapshots: Receiver<Arc<Snapshot>>,
        ads: Ads,
        consumer: Consumer,
    ) -> Self {
        Self { workload, snapshots, server: Server::default(), ads, consumer }
    }

    /// Runs until the task is aborted.
    pub(super) async fn run(mut self) {
        self.update();
        self.ads.connected(Instant::now());
        self.consumer.publish(&self.ads, |status| status.connected_since = Some(SystemTime::now()));
        loop {
            while let Some(request) = self.ads.poll_request() {
                let Request::Delta(request) = request else { continue };
                if let Some(response) = self.server.request(request) {
                    self.ads.response(Response::Delta(response), Instant::now());
                }
            }
            self.consumer.offer(&mut self.ads);
            self.consumer.publish(&self.ads, |_| ());
            let wake_at = self.ads.wake_at();
            tokio::select! {
                changed = self.snapshots.changed() => match changed {
                    Ok(()) => self.update(),
                    // The watch ends with the runtime only.
                    Err(_) => return,
                },
                verdict = self.consumer.verdict() => self.ads.verdict(verdict, Instant::now()),
                () = sleep_until(wake_at.unwrap_or_else(Instant::now).into()), if wake_at.is_some() => {}
            }
        }
    }

    fn update(&mut self) {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        for response in self.server.update(snapshot.content(&self.workload), snapshot.generation) {
            self.ads.response(Response::Delta(response), Instant::now());
        }
        self.consumer.publish(&self.ads, |status| status.files = snapshot.problems(&self.workload));
    }
}
