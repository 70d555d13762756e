//! The load: a closed loop of a fixed number of connections, one thread, one epoll instance, raw HTTP/1.1.
//!
//! Each connection has one request outstanding and sends the next as soon as the answer was checked. With `--churn` every
//! request has a connection of its own, and its time runs from `connect` to the last byte of the answer.
//!
//! Events are edge-triggered: after a short read nothing is left to read, so the usual read that only says so is saved.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use super::wire::{self, WrongAnswer};
use crate::bench::cpu;

/// An answer that takes longer counts as failed: nothing here is slower than a few milliseconds unless it is stuck.
const STALLED: Duration = Duration::from_secs(1);

/// A run with more failures than this is not worth finishing.
const GIVE_UP_AFTER: u64 = 1000;

/// Room for the answer and the headers that proxies add.
const RESPONSE_BUFFER: usize = wire::BODY_BYTES + 4096;

#[derive(Debug, clap::Args)]
pub(in crate::bench) struct Args {
    /// Where to send.
    #[arg(long)]
    target: SocketAddr,
    /// Number of consecutive addresses from that of `--target` on, used in turn by new connections.
    #[arg(long, default_value_t = 1)]
    targets: u32,
    /// Connections, each with one request outstanding.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// A connection for every request.
    #[arg(long)]
    churn: bool,
    /// Seconds before anything is recorded.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Seconds that are recorded.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The `Host` of every request.
    #[arg(long, default_value = "bench.default.svc.cluster.local")]
    host: String,
}

/// What one run of the load measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::bench) struct Report {
    /// Answers that were checked and right, a second.
    pub(in crate::bench) rps: f64,
    /// Median of the time from sending (with churn: connecting) to the last byte, in microseconds.
    pub(in crate::bench) p50_us: f64,
    /// 95th percentile of the same.
    pub(in crate::bench) p95_us: f64,
    /// 99th percentile of the same.
    pub(in crate::bench) p99_us: f64,
    /// Processor time of the whole machine, softirq included, over the right answers, in microseconds.
    pub(in crate::bench) cpu_us_per_request: f64,
    /// Requests without a right answer, warm-up included.
    pub(in crate::bench) failed: u64,
    /// What the first of them failed of.
    pub(in crate::bench) first_failure: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("connection: {0}")]
    Connection(#[from] std::io::Error),
    #[error("answer: {0}")]
    Answer(#[from] WrongAnswer),
    #[error("closed by the peer before the whole answer")]
    Closed,
    #[error("no answer within {} s", STALLED.as_secs())]
    Stalled,
}

struct Client {
    stream: TcpStream,
    started: Instant,
    sent: usize,
    received: Vec<u8>,
    filled: usize,
}

struct Load<'a> {
    args: &'a Args,
    request: Vec<u8>,
    poll: Poll,
    connected: u32,
    recorder: Recorder,
}

struct Recorder {
    from: Instant,
    nanoseconds: Histogram<u64>,
    failed: u64,
    first_failure: Option<String>,
}

/// Runs the load to its end.
pub(super) fn run(args: &Args) -> anyhow::Result<Report> {
    let recorder = Recorder::starting_at(Instant::now() + Duration::from_secs_f64(args.warm_up))?;
    let until = recorder.from + Duration::from_secs_f64(args.seconds);
    let mut load =
        Load { args, request: wire::request(&args.host), poll: Poll::new()?, connected: 0, recorder };
    let mut clients =
        (0..args.connections).map(|index| load.connect(index)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut events = Events::with_capacity(args.connections.max(16));
    let mut busy_before = None;
    loop {
        match load.poll.poll(&mut events, Some(Duration::from_millis(50))) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        let now = Instant::now();
        if busy_before.is_none() && now >= load.recorder.from {
            busy_before = Some(cpu::busy()?);
            load.recorder.from = now;
        }
        if now >= until {
            break;
        }
        for event in &events {
            let index = event.token().0;
            if let Some(client) = clients.get_mut(index) {
                load.advance(index, client)?;
            }
        }
    }
    let elapsed = load.recorder.from.elapsed();
    let busy = cpu::busy()?.saturating_sub(busy_before.context("the load ended before its warm-up")?);
    for _ in clients.iter().filter(|client| client.started.elapsed() > STALLED) {
        load.recorder.failure(&Failure::Stalled);
    }
    load.recorder.report(elapsed, busy)
}

impl Load<'_> {
    /// Opens the connection of the client `index` to the address whose turn it is.
    fn connect(&mut self, index: usize) -> anyhow::Result<Client> {
        let target = offset(self.args.target, self.connected % self.args.targets.max(1));
        self.connected = self.connected.wrapping_add(1);
        let started = Instant::now();
        let mut stream = TcpStream::connect(target).with_context(|| format!("cannot connect to {target}"))?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Client { stream, started, sent: 0, received: vec![0; RESPONSE_BUFFER], filled: 0 })
    }

    /// Does what the client's connection is ready for.
    fn advance(&mut self, index: usize, client: &mut Client) -> anyhow::Result<()> {
        match client.advance(&self.request) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let now = Instant::now();
                self.recorder.answer(client.started, now)?;
                if !self.args.churn {
                    return match client.next(now, &self.request) {
                        Ok(()) => Ok(()),
                        Err(failure) => self.replace(index, client, &failure),
                    };
                }
                *client = self.connect(index)?;
            }
            Err(failure) => self.replace(index, client, &failure)?,
        }
        Ok(())
    }

    fn replace(&mut self, index: usize, client: &mut Client, failure: &Failure) -> anyhow::Result<()> {
        self.recorder.failure(failure);
        if self.recorder.failed > GIVE_UP_AFTER {
            bail!("{} requests failed, the first: {failure}", self.recorder.failed);
        }
        *client = self.connect(index)?;
        Ok(())
    }
}

impl Client {
    /// Sends what is left of the request or reads what has come of the answer; true when that is whole and right.
    fn advance(&mut self, request: &[u8]) -> Result<bool, Failure> {
        if self.sent < request.len() {
            self.send(request)?;
            // The answer makes an edge of its own.
            return Ok(false);
        }
        let free = self.received.get_mut(self.filled..).unwrap_or_default();
        match self.stream.read(free) {
            Ok(0) => return Err(Failure::Closed),
            Ok(count) => self.filled += count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        Ok(wire::is_whole_answer(self.received.get(..self.filled).unwrap_or_default())?)
    }

    /// Starts the next request on the same connection.
    fn next(&mut self, now: Instant, request: &[u8]) -> Result<(), Failure> {
        self.started = now;
        self.sent = 0;
        self.filled = 0;
        self.send(request)
    }

    fn send(&mut self, request: &[u8]) -> Result<(), Failure> {
        while let Some(rest) = request.get(self.sent..)
            && !rest.is_empty()
        {
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

impl Recorder {
    fn starting_at(from: Instant) -> anyhow::Result<Self> {
        // Three digits: a tenth of a percent, finer than any difference that is judged.
        let nanoseconds = Histogram::new(3)?;
        Ok(Self { from, nanoseconds, failed: 0, first_failure: None })
    }

    fn answer(&mut self, started: Instant, now: Instant) -> anyhow::Result<()> {
        if now >= self.from {
            self.nanoseconds.record(u64::try_from((now - started).as_nanos())?)?;
        }
        Ok(())
    }

    fn failure(&mut self, failure: &Failure) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| failure.to_string());
    }

    fn report(self, elapsed: Duration, busy: Duration) -> anyhow::Result<Report> {
        let answers = self.nanoseconds.len();
        if answers == 0 {
            bail!(
                "no request was answered; the first failure: {}",
                self.first_failure.as_deref().unwrap_or("none")
            );
        }
        let microseconds =
            |quantile| Duration::from_nanos(self.nanoseconds.value_at_quantile(quantile)).as_secs_f64() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let answers = answers as f64;
        Ok(Report {
            rps: answers / elapsed.as_secs_f64(),
            p50_us: microseconds(0.5),
            p95_us: microseconds(0.95),
            p99_us: microseconds(0.99),
            cpu_us_per_request: busy.as_secs_f64() * 1e6 / answers,
            failed: self.failed,
            first_failure: self.first_failure,
        })
    }
}

/// The address `steps` after `base`, with the same port.
fn offset(base: SocketAddr, steps: u32) -> SocketAddr {
    let ip = match base.ip() {
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().wrapping_add(steps).into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().wrapping_add(steps.into()).into()),
    };
    SocketAddr::new(ip, base.port())
}
