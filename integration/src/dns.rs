//! DNS from inside a pod: what to ask, and what came back. The helper `bed-pod` asks; these types are the words between it
//! and the tests.
//!
//! Its `resolver` stands for the cluster's: `10-0-0-1.ip.test` has the address 10.0.0.1, `<anything else>.test` has the address [`FOREIGN`], `many.test` forty addresses,
//! `silent.test` gets no answer, a question for `TXT` is answered with the address that it came from, and nothing else
//! exists.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What the resolver answers.
pub const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// How a question is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Over {
    /// `connect`, `send`, `recv`, as glibc does.
    ConnectedUdp,
    /// `sendto`, `recvfrom`, as musl does.
    UnconnectedUdp,
    /// With its length before it.
    Tcp,
}

/// What to ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// Whom.
    pub to: SocketAddr,
    /// How.
    pub over: Over,
    /// Which name.
    pub name: String,
    /// `A`, `AAAA`, `TXT` …
    pub kind: String,
    /// What EDNS says the client takes; none is no EDNS.
    pub payload: Option<u16>,
    /// These bytes instead of a query.
    pub bytes: Option<Vec<u8>>,
    /// How long to wait.
    pub timeout_ms: u64,
}

/// What came back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Why nothing did.
    pub error: Option<String>,
    /// Whom the client takes it to be from: `recvfrom`'s address, or `getpeername`'s.
    pub from: Option<SocketAddr>,
    /// `getsockname` of the client.
    pub local: Option<SocketAddr>,
    /// `No Error`, `Non-Existent Domain` …
    pub code: String,
    /// AA.
    pub authoritative: bool,
    /// TC.
    pub truncated: bool,
    /// Whether the answer has EDNS.
    pub edns: bool,
    /// Records as `name kind data`.
    pub records: Vec<String>,
    /// Octets.
    pub length: usize,
}

impl Question {
    /// For the IPv4 addresses of a name.
    pub fn new(to: SocketAddr, over: Over, name: &str) -> Self {
        let (name, kind) = (name.to_owned(), "A".to_owned());
        Self { to, over, name, kind, payload: None, bytes: None, timeout_ms: 8000 }
    }

    /// For something else.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Self {
        kind.clone_into(&mut self.kind);
        self
    }

    /// With EDNS.
    #[must_use]
    pub fn payload(mut self, payload: u16) -> Self {
        self.payload = Some(payload);
        self
    }

    /// Sends these bytes instead, and does not wait long.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes = Some(bytes.to_vec());
        self.timeout_ms = 300;
        self
    }
}

impl Answer {
    /// The data of the records, in order.
    pub fn data(&self) -> Vec<&str> {
        let mut data: Vec<_> = self.records.iter().filter_map(|record| record.rsplit(' ').next()).collect();
        data.sort_unstable();
        data
    }
}
