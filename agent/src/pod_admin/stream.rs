//! Pages that grow with the configuration: printed on a thread of their own while the client reads, one at a time on the
//! node, so that they delay no push and hold no more than a few chunks.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::Response;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::answer::{Body, DumpFailed, Format, gone, streamed};
use super::server::Pod;
use super::view::{Question, Resources};

const CHUNK: usize = 64 * 1024;
/// Chunks under way to the client.
const CHUNKS: usize = 2;
/// A client that takes no chunk for this long is not waited for any longer: other pods wait for their turn.
const STALL: Duration = Duration::from_secs(5);

/// Answers with what `print` writes of the pod's resources.
pub(super) async fn stream(
    pod: &Pod,
    format: Format,
    print: impl FnOnce(&Resources, &mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Response<Body> {
    // First among the pod's own requests, so that a pod waits once however often it asks. Neither is ever closed.
    let Ok(own_turn) = Arc::clone(&pod.own_dump).acquire_owned().await else { return gone() };
    let Ok(turn) = Arc::clone(&pod.dumps).acquire_owned().await else { return gone() };
    let Some(resources) = pod.ask(Question::Resources).await else { return gone() };
    let (sender, body) = Channel::new(CHUNKS);
    let mut chunks = Chunks { sender, runtime: Handle::current(), filled: Vec::with_capacity(CHUNK) };
    tokio::task::spawn_blocking(move || {
        let _turns = (own_turn, turn);
        if print(&resources, &mut chunks).and_then(|()| chunks.flush()).is_err() {
            chunks.sender.abort(DumpFailed);
        }
    });
    streamed(format, body)
}

/// Collects what is written and hands it to the response chunk by chunk.
struct Chunks {
    sender: Sender<Bytes, DumpFailed>,
    runtime: Handle,
    filled: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.filled.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.filled.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filled.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.filled, Vec::with_capacity(CHUNK));
        match self.runtime.block_on(timeout(STALL, self.sender.send_data(chunk.into()))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
