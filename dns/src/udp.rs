//! DNS over UDP (RFC 1035 section 4.2.1).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::Socket;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::answer::{Carrier, server_failure};
use crate::forward::forward;
use crate::pod::Pod;
use crate::resolve::Resolution;
use crate::sockets::{Datagram, Ends, receive, send};

/// How long to wait where the kernel refuses to receive.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves until aborted. What waits for answers from elsewhere ends with it.
pub(crate) async fn serve(socket: Arc<UdpSocket>, raw: Arc<Socket>, pod: Arc<Pod>) {
    let mut waiting = JoinSet::new();
    loop {
        let received =
            socket.async_io(Interest::READABLE, || receive(&*socket, &pod.network.addresses)).await;
        match received {
            Ok(Some(datagram)) => take(datagram, &raw, &pod, &mut waiting),
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "DNS over UDP: cannot receive");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while waiting.try_join_next().is_some() {}
    }
}

fn take(datagram: Datagram, raw: &Arc<Socket>, pod: &Arc<Pod>, waiting: &mut JoinSet<()>) {
    let Datagram { ends, query } = datagram;
    let Some(query) = query else { return pod.counters.malformed.inc() };
    match pod.resolve(&query, Carrier::Udp) {
        Resolution::Answer(bytes) => answer(raw, ends, &bytes),
        Resolution::Malformed => {}
        Resolution::Forward => {
            let (raw, pod) = (Arc::clone(raw), Arc::clone(pod));
            waiting.spawn(async move {
                match forward(&pod, ends.asked, &query).await {
                    Ok(bytes) => answer(&raw, ends, &bytes),
                    Err(error) => {
                        debug!(%error, asked = %ends.asked, "a question could not be forwarded");
                        pod.counters.failed.inc();
                        if let Some(bytes) = server_failure(&query) {
                            answer(&raw, ends, &bytes);
                        }
                    }
                }
            });
        }
    }
}

fn answer(raw: &Socket, ends: Ends, bytes: &[u8]) {
    if let Err(error) = send(raw, ends, bytes)
        && error.kind() != io::ErrorKind::WouldBlock
    {
        warn!(%error, client = %ends.client, "an answer could not be sent");
    }
}
