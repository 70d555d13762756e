//! The two ends of a takeover: giving everything to the agent that comes, and telling the one of before to go.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tracing::{error, info, warn};

use super::workload::{Stage, Workload};
use super::{Node, Parts};
use crate::lock::NodeLock;
use crate::takeover;

/// For so long, clients are told to go on with new connections, and what they ask meanwhile is answered: no connection is
/// closed under a request that is on its way.
const PARTING: Duration = Duration::from_secs(30);
/// As Envoy's `--drain-time-s`: what is still open then is cut.
const DEADLINE: Duration = Duration::from_mins(10);

impl Node {
    /// Gives everything to the agent that asks. Whether it has taken over; if not, this one goes on.
    pub(super) async fn hand_over(&mut self, asked: io::Result<takeover::Asked>, lock: &NodeLock) -> bool {
        let given = match asked {
            Ok(asked) => self.give(asked, lock).await,
            Err(error) => Err(error),
        };
        match given {
            Ok(()) => {
                // Where the one before this still waits for this one's word: what was its own is the newest's by now. Not told, it
                // would go on as the only one, and give the pods back when it is stopped.
                self.release_predecessor();
                true
            }
            Err(error) => {
                error!(%error, "the agent that wanted to take over has not; if its programs are in the kernel already, restart this one");
                false
            }
        }
    }

    async fn give(&mut self, asked: takeover::Asked, lock: &NodeLock) -> io::Result<()> {
        info!("another agent takes over");
        // It starts from the last good configuration: from this one, not from that of some seconds ago.
        self.parts.last_good.finish().await;
        let accepted: Vec<_> = self.workloads.values().filter_map(Workload::accepted).collect();
        self.parts.last_good.save(move |writer| accepted.iter().for_each(|a| a.write(writer)));
        self.parts.last_good.finish().await;

        let pods = self.workloads.values().filter_map(|workload| {
            let Stage::Enrolled(enrolled) = &workload.stage else { return None };
            let listeners = self.parts.proxy.listeners(&workload.key())?;
            Some((workload.key(), enrolled.netns().id(), listeners))
        });
        let (pods, lock) = (pods.collect::<Vec<_>>(), lock.share()?);
        tokio::task::spawn_blocking(move || takeover::give(&asked, &pods, lock.as_fd()))
            .await
            .map_err(io::Error::other)?
    }

    /// Tells the agent of before to go, as soon as this one has everything in force.
    pub(super) fn finish_takeover(&mut self) {
        let Some(inheritance) = &self.parts.inheritance else { return };
        let all = self.workloads.values().all(Workload::is_ready);
        if !all && !inheritance.is_over() {
            return;
        }
        if !all {
            warn!("not every workload is ready; the agent of before is told to go all the same");
        }
        self.release_predecessor();
    }

    /// Tells the agent of before to go, where there is one that has not been told.
    fn release_predecessor(&mut self) {
        if let Some(inheritance) = self.parts.inheritance.take()
            && let Err(error) = inheritance.finish()
        {
            warn!(%error, "the agent of before did not wait to be told to go");
        }
    }

    /// Ends beside the agent that has taken over: nothing in the kernel is touched, connections are seen off.
    pub(crate) async fn part(self) {
        let Self { workloads, parts, pods, .. } = self;
        // What the cluster is told is the other's to say, and what is put on the node the other's to keep.
        drop(pods);
        for workload in workloads.into_values() {
            workload.part().await;
        }
        let Parts { proxy, .. } = parts;
        proxy.hand_over(PARTING, DEADLINE).await;
    }
}
