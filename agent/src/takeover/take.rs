//! The new agent's part: takes what the running one has.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_l7_proxy::PodListeners;
use orlop_podnet::NetNsId;
use tokio::sync::watch;

use super::channel::Channel;
use super::{Answer, Listener, Offer, SOCKET};

/// How long the running agent may take for a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pod whose configuration has not come by then is taken all the same.
const IN_FORCE: Duration = Duration::from_secs(30);

/// What the running agent has handed over.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pods: HashMap<String, (NetNsId, PodListeners)>,
    /// Those that are served here by now, or not here at all.
    channel: Channel,
    deadline: Instant,
    /// Gone with this.
    end: watch::Sender<()>,
}

impl Inheritance {
    /// Asks the agent that runs for the node. `None` if none does.
    pub(crate) fn take(run_dir: &Path) -> io::Result<Option<(Self, File)>> {
        let channel = match Channel::connect(&run_dir.join(SOCKET)) {
            Ok(channel) => channel,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        channel.set_patience(PATIENCE)?;
        let mut pods = HashMap::new();
        loop {
            let (offer, mut descriptors) = channel.receive()?;
            match offer {
                Offer::Pod { key, netns, listeners } => {
                    if let Some(listeners) = sort(&listeners, descriptors) {
                        pods.insert(key, (NetNsId::from_parts(netns), listeners));
                    }
                }
                Offer::Lock => {
                    let lock = descriptors.pop().ok_or(io::ErrorKind::InvalidData)?;
                    let deadline = Instant::now() + IN_FORCE;
                    return Ok(Some((
                        Self { pods, channel, deadline, end: watch::Sender::new(()) },
                        lock.into(),
                    )));
                }
            }
        }
    }

    /// The listeners of the pod, if they are in this namespace.
    pub(crate) fn listeners(&mut self, key: &str, netns: NetNsId) -> Option<PodListeners> {
        self.pods.remove(key).filter(|(id, _)| *id == netns).map(|(_, listeners)| listeners)
    }

    /// Comes back when the takeover is over, as it was to be or otherwise.
    pub(crate) fn end(&self) -> impl Future<Output = ()> + use<> {
        let mut end = self.end.subscribe();
        async move { while end.changed().await.is_ok() {} }
    }

    /// Whether pods whose configuration is not in force yet have had their time.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Tells the old agent to go.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.channel.send(&Answer::Go, &[])
    }
}

/// Each descriptor to its place; `None` without the two that every pod has.
fn sort(kinds: &[Listener], descriptors: Vec<OwnedFd>) -> Option<PodListeners> {
    let (mut outbound, mut inbound, mut outbound_v6, mut inbound_v6) = (None, None, None, None);
    for (kind, descriptor) in kinds.iter().zip(descriptors) {
        let place = match kind {
            Listener::Outbound => &mut outbound,
            Listener::Inbound => &mut inbound,
            Listener::OutboundV6 => &mut outbound_v6,
            Listener::InboundV6 => &mut inbound_v6,
        };
        *place = Some(Arc::new(TcpListener::from(descriptor)));
    }
    Some(PodListeners { outbound: outbound?, inbound: inbound?, outbound_v6, inbound_v6 })
}
