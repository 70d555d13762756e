//! Traffic from inside a pod: what to send, and what came of it. The helper `bed-pod` sends it; these types are the
//! words between it and the tests.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::pod::Pod;
use crate::process::Process;

/// Headers by lower-case name. Values of a repeated header are joined by `,`.
pub type Headers = BTreeMap<String, String>;

/// What the HTTP server of a pod answers with: what it was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Echo {
    /// The pod that answers.
    pub server: String,
    /// Request method.
    pub method: String,
    /// Path with query, as it arrived.
    pub path: String,
    /// `Host` or `:authority`.
    pub authority: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Request headers as they arrived.
    pub headers: Headers,
    /// Who the server sees.
    pub peer: SocketAddr,
    /// The address that the server was reached at.
    pub local: SocketAddr,
    /// Connections that the server has accepted so far, this one included.
    pub connections: u64,
    /// Length of the request's body in bytes.
    pub body_bytes: usize,
}

/// The first line that a pod's TCP server sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Greeting {
    /// The pod that answers.
    pub server: String,
    /// Who the server sees.
    pub peer: SocketAddr,
    /// The address that the server was reached at.
    pub local: SocketAddr,
}

/// What a client is to do, over and over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Where to connect.
    pub to: SocketAddr,
    /// How often.
    pub times: u32,
    /// A new connection for each time.
    pub fresh: bool,
    /// Milliseconds until an attempt counts as failed.
    pub timeout_ms: u64,
    /// HTTP method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// HTTP/2 with prior knowledge.
    pub h2: bool,
    /// Request headers, `host` among them.
    pub headers: Headers,
    /// What to send: the request's body, or the bytes to be echoed.
    pub body: String,
}

impl Call {
    /// One GET request.
    pub fn new(to: SocketAddr) -> Self {
        Self {
            to,
            times: 1,
            fresh: false,
            timeout_ms: 10_000,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            h2: false,
            headers: Headers::from([("host".to_owned(), to.to_string())]),
            body: String::new(),
        }
    }
}

/// What came of one request or connection.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reply {
    /// Why there is no answer.
    pub error: Option<String>,
    /// HTTP status, 0 without an answer.
    pub status: u16,
    /// Response headers.
    pub headers: Headers,
    /// Response body.
    pub body: String,
    /// Whether the other side ended the connection; of [`Tcp::raw`] alone.
    pub closed: bool,
    /// The pod that answered, where one did.
    pub server: Option<String>,
    /// The client's own end of the connection, as `getsockname` says.
    pub local: Option<SocketAddr>,
    /// The other end, as `getpeername` says.
    pub peer: Option<SocketAddr>,
    /// Microseconds until the connection was there; 0 on one that was used before.
    pub connect_us: u64,
    /// Microseconds from the first byte sent to the last received, or of the whole attempt when it failed.
    pub us: u64,
}

impl Reply {
    /// What the HTTP server saw.
    pub fn echo(&self) -> Result<Echo> {
        serde_json::from_str(&self.body).with_context(|| format!("not from a pod's server: {self:?}"))
    }

    /// What the TCP server saw.
    pub fn greeting(&self) -> Result<Greeting> {
        serde_json::from_str(&self.body).with_context(|| format!("not from a pod's server: {self:?}"))
    }

    /// A response header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// How often each server answered; without one, the status or the error counts as a name.
pub fn tally(replies: &[Reply]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for reply in replies {
        *counts.entry(outcome(reply)).or_default() += 1;
    }
    counts
}

/// The server that answered, or else the status, or else the error.
pub fn outcome(reply: &Reply) -> String {
    match (&reply.error, &reply.server) {
        (Some(error), _) => error.clone(),
        (None, Some(server)) => server.clone(),
        (None, None) => reply.status.to_string(),
    }
}

/// HTTP requests to be sent from a pod.
#[derive(Debug)]
pub struct Http<'a> {
    pod: &'a Pod,
    call: Call,
}

impl<'a> Http<'a> {
    pub(crate) fn new(pod: &'a Pod, to: SocketAddr) -> Self {
        Self { pod, call: Call::new(to) }
    }

    /// Replaces all but where it goes to.
    #[must_use]
    pub fn call(mut self, call: Call) -> Self {
        self.call = Call { to: self.call.to, ..call };
        self
    }

    /// The request as data, to be sent again from elsewhere.
    pub fn into_call(self) -> Call {
        self.call
    }

    /// Sets the method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.call.method);
        self
    }

    /// Sets the path with its query.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.call.path);
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.call.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets `Host`, which is the address otherwise.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        self.header("host", host)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.call.body);
        self
    }

    /// Speaks HTTP/2 without an upgrade.
    #[must_use]
    pub fn h2c(mut self) -> Self {
        self.call.h2 = true;
        self
    }

    /// Makes a new connection for every request.
    #[must_use]
    pub fn fresh_connections(mut self) -> Self {
        self.call.fresh = true;
        self
    }

    /// Sends the request `times` times, one after another, and returns every outcome.
    pub fn times(mut self, times: u32) -> Result<Vec<Reply>> {
        self.call.times = times;
        ask(self.pod, "http", &self.call)
    }

    /// Sends the request once.
    pub fn send(self) -> Result<Reply> {
        self.times(1)?.pop().context("one request has one outcome")
    }
}

/// TCP connections to be made from a pod.
#[derive(Debug)]
pub struct Tcp<'a> {
    pod: &'a Pod,
    call: Call,
}

impl<'a> Tcp<'a> {
    pub(crate) fn new(pod: &'a Pod, to: SocketAddr) -> Self {
        Self { pod, call: Call { body: "ping".to_owned(), fresh: true, ..Call::new(to) } }
    }

    pub(crate) fn into_call(self) -> Call {
        self.call
    }

    /// Sets the bytes that are sent and must come back.
    #[must_use]
    pub fn payload(mut self, payload: &str) -> Self {
        payload.clone_into(&mut self.call.body);
        self
    }

    /// Sends the payload again and again on one connection, so that each outcome is a round trip.
    #[must_use]
    pub fn one_connection(mut self) -> Self {
        self.call.fresh = false;
        self
    }

    /// Sends the payload to whatever listens there, without expecting a greeting, and returns all that comes back until
    /// the other side closes or says nothing for one second and a half.
    pub fn raw(self) -> Result<Reply> {
        let payload = self.call.body.clone();
        self.raw_each([payload])?.pop().context("one call has one outcome")
    }

    /// The same with each of these payloads, all at the same time.
    pub fn raw_each(self, payloads: impl IntoIterator<Item = String>) -> Result<Vec<Reply>> {
        let calls = payloads.into_iter().map(|body| Call { body, ..self.call.clone() });
        let started: Result<Vec<_>> = calls
            .map(|call| {
                let mut command = self.pod.helper("raw")?;
                command.arg(serde_json::to_string(&call)?).stdout(Stdio::piped()).stderr(Stdio::piped());
                Ok(command.spawn()?)
            })
            .collect();
        let outcomes = started?.into_iter().map(|client| {
            let replies: Vec<Reply> = outcome_of("raw", &client.wait_with_output()?)?;
            replies.into_iter().next().context("one call has one outcome")
        });
        outcomes.collect()
    }

    /// Does it `times` times, one after another, and returns every outcome.
    pub fn times(mut self, times: u32) -> Result<Vec<Reply>> {
        self.call.times = times;
        ask(self.pod, "tcp", &self.call)
    }

    /// Connects once.
    pub fn connect(self) -> Result<Reply> {
        self.times(1)?.pop().context("one connection has one outcome")
    }
}

fn ask<T: DeserializeOwned>(pod: &Pod, subcommand: &str, call: &Call) -> Result<T> {
    outcome_of(subcommand, &pod.helper(subcommand)?.arg(serde_json::to_string(call)?).output()?)
}

fn outcome_of<T: DeserializeOwned>(subcommand: &str, output: &Output) -> Result<T> {
    ensure!(output.status.success(), "bed-pod {subcommand}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Traffic that goes on in the background.
#[derive(Debug)]
pub struct Load {
    process: Process,
}

/// What came of a [`Load`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// Requests or connections that got their answer (status below 500).
    pub ok: u64,
    /// The others, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Who answered, how often.
    pub servers: BTreeMap<String, u64>,
}

impl LoadReport {
    /// How many failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl Load {
    pub(crate) fn start(pod: &Pod, subcommand: &str, call: &Call) -> Result<Self> {
        let mut command = pod.helper(subcommand)?;
        command.arg(serde_json::to_string(call)?);
        Self::spawn(&format!("{}-{subcommand}", pod.name()), pod.dir(), &mut command)
    }

    /// Of a command that runs the helper in whatever way.
    pub(crate) fn spawn(name: &str, dir: &Path, command: &mut Command) -> Result<Self> {
        Ok(Self { process: Process::spawn_piped(name, dir, command)? })
    }

    /// Stops the traffic after one more round and reports.
    pub fn stop(mut self) -> Result<LoadReport> {
        let (stdin, mut stdout) = self.process.take_pipes()?;
        drop(stdin);
        let mut report = String::new();
        stdout.read_to_string(&mut report)?;
        serde_json::from_str(&report).with_context(|| self.process.log_tail())
    }
}
