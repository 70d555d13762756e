//! What the classifier says of one destination.

use std::fmt;

use serde::{Serialize, Serializer};

use super::cause::Cause;
use super::mode::ModeOf;
use super::policy::SourceRule;
use crate::kernel::Frontend;
use crate::resource::FieldPath;

/// Where a connection of a workload goes to or comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// From the workload to this address and port.
    Outbound(Frontend),
    /// From the workload to anywhere else.
    OutboundElsewhere,
    /// To the workload's port.
    Inbound(u16),
    /// To any other port of the workload.
    InboundElsewhere,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbound(Frontend { addr: Some(addr), port }) => {
                write!(f, "to {}", std::net::SocketAddr::new(*addr, *port))
            }
            Self::Outbound(Frontend { addr: None, port }) => write!(f, "to *:{port}"),
            Self::OutboundElsewhere => f.write_str("to anywhere else"),
            Self::Inbound(port) => write!(f, "in at {port}"),
            Self::InboundElsewhere => f.write_str("in at any other port"),
        }
    }
}

/// The path and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The path.
    pub path: Path,
    /// Why this one.
    pub reason: Reason,
    /// Names that stand for the destination: domains of its virtual hosts, hosts of its clusters' services.
    pub hosts: Vec<String>,
    /// The mode that holds for it; `None` where none does: what is not HTTP, and what comes in.
    pub mode: Option<ModeOf>,
    /// Where policies say who may connect, what becomes of whom.
    pub sources: Vec<SourceRule>,
    /// What is asked for and not done, because the mode is `never`.
    pub forgone: Vec<Reason>,
}

/// The way that connections take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// The kernel picks the endpoint; no proxy. Inbound: straight to the application.
    Kernel,
    /// Through the proxy, byte for byte.
    #[serde(rename = "tcp")]
    TcpProxy,
    /// Through the proxy, request by request.
    #[serde(rename = "l7")]
    L7Proxy,
    /// As if no mesh were there.
    Passthrough,
    /// Refused.
    Blocked,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::TcpProxy => "tcp proxy",
            Self::L7Proxy => "l7 proxy",
            Self::Passthrough => "passthrough",
            Self::Blocked => "blocked",
        })
    }
}

/// What decided, and where it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The resource that decided, e.g. ``listener `0.0.0.0_8080` ``.
    pub resource: String,
    /// Its field that decided; empty for the resource as a whole.
    #[serde(serialize_with = "as_text")]
    pub field: FieldPath,
    /// What it says.
    #[serde(serialize_with = "as_text")]
    pub cause: Cause,
}

pub(super) fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.cause, self.resource)?;
        if self.field != FieldPath::root() {
            write!(f, ", {}", self.field)?;
        }
        f.write_str(")")
    }
}
