//! The thread that writes access logs, and the way to it.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use orlop_plan::resource::access_log::LogStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How many bytes of lines a pod may have waiting.
const MAX_QUEUED: usize = 1024 * 1024;
/// How many bytes are written at once.
const BATCH: usize = 64 * 1024;
/// How long the process waits for lines that are still to be written when it ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The thread. It ends when nobody can queue a line any more.
#[derive(Debug)]
pub(crate) struct LogWriter {
    lines: Sender<Line>,
    ended: oneshot::Receiver<()>,
}

/// A pod's way to the thread.
#[derive(Debug, Clone)]
pub(crate) struct PodLog {
    /// Namespace and name.
    workload: Arc<str>,
    lines: Sender<Line>,
    backlog: Arc<Backlog>,
}

/// What a pod has waiting.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Lines that could not be written.
    failed: AtomicU64,
}

#[derive(Debug)]
struct Line {
    stream: LogStream,
    text: Vec<u8>,
    backlog: Arc<Backlog>,
}

impl LogWriter {
    /// Starts the thread, which writes to what the process prints to.
    pub(crate) fn start() -> io::Result<Self> {
        let (lines, queue) = mpsc::channel();
        let (ends, ended) = oneshot::channel();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            write(&queue, &mut io::stdout(), &mut io::stderr());
            // Nobody may be waiting.
            let _told = ends.send(());
        })?;
        Ok(Self { lines, ended })
    }

    /// For one pod.
    pub(crate) fn of_pod(&self, namespace: &str, name: &str) -> PodLog {
        let workload = format!("{namespace}/{name}").into();
        PodLog { workload, lines: self.lines.clone(), backlog: Arc::default() }
    }

    /// Waits for what is queued, once all pods are gone, for a moment at most: the reader of the output may be stuck.
    pub(crate) async fn finish(self) {
        drop(self.lines);
        let _in_time = timeout(LAST_LINES, self.ended).await;
    }
}

impl PodLog {
    /// Queues a line. False where the pod has too much waiting already.
    pub(crate) fn queue(&self, stream: LogStream, text: Vec<u8>) -> bool {
        let length = text.len();
        if self.backlog.bytes.fetch_add(length, Relaxed) + length <= MAX_QUEUED {
            let line = Line { stream, text, backlog: Arc::clone(&self.backlog) };
            if self.lines.send(line).is_ok() {
                return true;
            }
        }
        self.backlog.bytes.fetch_sub(length, Relaxed);
        false
    }

    /// What its lines name it by.
    pub(crate) fn workload(&self) -> &str {
        &self.workload
    }

    /// How many of the pod's lines were queued and could not be written.
    pub(crate) fn failed(&self) -> u64 {
        self.backlog.failed.load(Relaxed)
    }
}

/// Writes what is queued, as much at once as there is.
fn write(queue: &Receiver<Line>, stdout: &mut impl Write, stderr: &mut impl Write) {
    let mut batch = Vec::new();
    let mut of: Vec<(Arc<Backlog>, usize)> = Vec::new();
    let mut next = queue.recv().ok();
    while let Some(line) = next.take() {
        let stream = line.stream;
        let mut more = Some(line);
        while let Some(line) = more.take() {
            batch.extend_from_slice(&line.text);
            of.push((line.backlog, line.text.len()));
            if batch.len() < BATCH {
                match queue.try_recv() {
                    Ok(line) if line.stream == stream => more = Some(line),
                    Ok(other) => next = Some(other),
                    Err(_) => {}
                }
            }
        }
        let written = match stream {
            LogStream::Stdout => write_out(stdout, &batch),
            LogStream::Stderr => write_out(stderr, &batch),
        };
        batch.clear();
        for (backlog, length) in of.drain(..) {
            backlog.bytes.fetch_sub(length, Relaxed);
            if written.is_err() {
                backlog.failed.fetch_add(1, Relaxed);
            }
        }
        next = next.or_else(|| queue.recv().ok());
    }
}

fn write_out(out: &mut impl Write, batch: &[u8]) -> io::Result<()> {
    out.write_all(batch)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod_of(lines: Sender<Line>) -> PodLog {
        PodLog { workload: "shop/client".into(), lines, backlog: Arc::default() }
    }

    fn pod() -> (PodLog, Receiver<Line>) {
        let (lines, queue) = mpsc::channel();
        (pod_of(lines), queue)
    }

    #[test]
    fn lines_come_out_in_order_and_each_where_it_belongs() {
        let (log, queue) = pod();
        assert!(log.queue(LogStream::Stdout, b"one\n".to_vec()));
        assert!(log.queue(LogStream::Stderr, b"two\n".to_vec()));
        assert!(log.queue(LogStream::Stdout, b"three\n".to_vec()));
        let backlog = Arc::clone(&log.backlog);
        drop(log);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        write(&queue, &mut stdout, &mut stderr);
        assert_eq!((stdout, stderr), (b"one\nthree\n".to_vec(), b"two\n".to_vec()));
        assert_eq!(backlog.bytes.load(Relaxed), 0, "its room is free again");
    }

    #[test]
    fn a_pod_that_writes_more_than_is_read_loses_lines_and_others_lose_none() {
        let (log, _queue) = pod();
        let other = pod_of(log.lines.clone());
        let line = vec![b'x'; MAX_QUEUED / 2];
        assert!(log.queue(LogStream::Stdout, line.clone()));
        assert!(log.queue(LogStream::Stdout, line.clone()));
        assert!(!log.queue(LogStream::Stdout, line.clone()));
        assert!(other.queue(LogStream::Stdout, line));
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (log, queue) = pod();
        assert!(log.queue(LogStream::Stdout, b"lost\n".to_vec()));
        let backlog = Arc::clone(&log.backlog);
        drop(log);
        write(&queue, &mut Gone, &mut Gone);
        assert_eq!(backlog.failed.load(Relaxed), 1);
    }
}
