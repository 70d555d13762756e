//! Runs a listener's filters: reads the first bytes until they tell what the choice of a filter chain depends on.
//!
//! Reads nothing when the choice does not depend on it: then protocols in which the server speaks first work at once.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use orlop_plan::resource::listener::{FilterChainMatch, Listener, TransportProtocol};
use orlop_plan::resource::rbac::Rbac;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::HttpProtocol;
use super::http_inspector::{self, HTTP2_PREFACE, HttpInspection};
use super::tls_inspector::{self, TlsInspection};
use crate::pod::{Drain, Inspected};
use crate::stats::Refusal;
use crate::tls::Stream;

/// The most that is held while inspecting, as Envoy's inspectors have it.
const MAX_INSPECTED: usize = 64 * 1024;

/// Room for one read: a request with its headers, or a `ClientHello`, mostly fits.
const READ_SIZE: usize = 4096;

/// Why there is no connection to serve after inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uninspected {
    /// The client went away before it said anything, or the pod is released and it had said nothing.
    Closed,
    /// Counted by its reason.
    Refused(Refusal),
}

/// Which inspectors can change the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    tls: bool,
    http: bool,
}

const NOTHING: Wanted = Wanted { tls: false, http: false };

/// Inspects a connection to `destination`, as far as the listener's chains need it. With what was read.
pub(super) async fn inspect(
    listener: &Listener,
    destination: SocketAddr,
    stream: &TcpStream,
    drain: &Drain,
) -> Result<(Inspected, Bytes), Uninspected> {
    let wanted = Wanted::by(listener, destination);
    let mut bytes = BytesMut::new();
    if wanted == NOTHING {
        return Ok((unknown(), Bytes::new()));
    }
    let reading = read_until_known(wanted, stream, &mut bytes, drain);
    let known = match listener.listener_filters_timeout {
        Some(limit) => timeout(limit, reading).await,
        None => Ok(reading.await),
    };
    match known {
        Ok(Ok(known)) => Ok((known, bytes.freeze())),
        Ok(Err(uninspected)) => Err(uninspected),
        Err(_elapsed) if listener.continue_on_listener_filters_timeout => Ok((unknown(), bytes.freeze())),
        Err(_elapsed) => Err(Uninspected::Refused(Refusal::ListenerFilterTimeout)),
    }
}

/// What a connection manager that detects its codec is spoken to in: HTTP/2 where the client begins with the preface.
pub(super) async fn detect_codec(
    stream: &mut Stream,
    prefix: Bytes,
    idle_timeout: Option<Duration>,
    drain: &Drain,
) -> Result<(HttpProtocol, Bytes), Uninspected> {
    let mut bytes = BytesMut::from(prefix);
    let reading = async {
        loop {
            if !HTTP2_PREFACE.starts_with(&bytes) {
                let http2 = bytes.starts_with(HTTP2_PREFACE);
                return Ok(if http2 { HttpProtocol::Http2 } else { HttpProtocol::Http1 });
            }
            if bytes.len() == HTTP2_PREFACE.len() {
                return Ok(HttpProtocol::Http2);
            }
            let read = match &mut *stream {
                Stream::Plain(stream) => read_more(stream, &mut bytes, drain).await?,
                tls => read_more_inside(tls, &mut bytes, drain).await?,
            };
            if read == 0 {
                // An unfinished preface; the HTTP/1 codec answers it as malformed.
                return Ok(HttpProtocol::Http1);
            }
        }
    };
    let protocol = match idle_timeout {
        Some(limit) => timeout(limit, reading).await.unwrap_or(Err(Uninspected::Closed)),
        None => reading.await,
    }?;
    Ok((protocol, bytes.freeze()))
}

/// As [`read_more`], inside TLS.
async fn read_more_inside(
    stream: &mut Stream,
    bytes: &mut BytesMut,
    drain: &Drain,
) -> Result<usize, Uninspected> {
    let nothing_yet = bytes.is_empty();
    tokio::select! {
        read = stream.read_buf(bytes) => match read {
            Ok(0) | Err(_) if nothing_yet => Err(Uninspected::Closed),
            Ok(read) => Ok(read),
            Err(_) => Err(Uninspected::Closed),
        },
        () = drain.leaving(), if nothing_yet => Err(Uninspected::Closed),
    }
}

async fn read_until_known(
    wanted: Wanted,
    stream: &TcpStream,
    bytes: &mut BytesMut,
    drain: &Drain,
) -> Result<Inspected, Uninspected> {
    loop {
        if read_more(stream, bytes, drain).await? == 0 {
            // Half-closed in the middle: no inspector's protocol is that short.
            return Ok(unknown());
        }
        if let Some(known) = wanted.findings(bytes) {
            return Ok(known);
        }
        if bytes.len() >= MAX_INSPECTED {
            return Err(Uninspected::Refused(Refusal::ListenerFilterOverflow));
        }
    }
}

/// Reads what is there, at least a byte; 0 is the end of the client's half after some bytes.
async fn read_more(stream: &TcpStream, bytes: &mut BytesMut, drain: &Drain) -> Result<usize, Uninspected> {
    loop {
        if bytes.is_empty() {
            // Holds no buffer while the client has said nothing, and may be told to leave.
            *bytes = BytesMut::new();
            tokio::select! {
                readable = stream.readable() => readable.map_err(|_| Uninspected::Closed)?,
                () = drain.leaving() => return Err(Uninspected::Closed),
            }
        } else {
            stream.readable().await.map_err(|_| Uninspected::Closed)?;
        }
        bytes.reserve(READ_SIZE);
        match stream.try_read_buf(bytes) {
            Ok(0) if bytes.is_empty() => return Err(Uninspected::Closed),
            Ok(n) => return Ok(n),
            // Readiness may be a false alarm.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Uninspected::Closed),
        }
    }
}

impl Wanted {
    /// Inspectors that the listener has, and on whose findings its choice for `destination` depends, or a policy.
    fn by(listener: &Listener, destination: SocketAddr) -> Self {
        let filters = &listener.listener_filters;
        let (tls, http) =
            (filters.inspects_tls(destination.port()), filters.inspects_http(destination.port()));
        let mut wanted = NOTHING;
        if !tls && !http {
            return wanted;
        }
        let chains = || listener.filter_chains.iter().map(|chain| (&chain.filter_chain_match, chain.rbac()));
        // As in the choice itself, a chain for this port puts those for any port out of the question.
        let has_port = chains().any(|(chain, _)| chain.destination_port == Some(destination.port()));
        let port = has_port.then(|| destination.port());
        for (chain, mut rbac) in
            chains().filter(|(chain, _)| chain.destination_port == port && has_address(chain, destination))
        {
            let application = !chain.application_protocols.is_empty();
            let transport = chain.transport_protocol.is_some() || !chain.server_names.is_empty();
            wanted.tls |= tls && (transport || application || rbac.any(Rbac::asks_for_server_name));
            wanted.http |= http && application;
        }
        wanted
    }

    /// `None` while more bytes are needed.
    fn findings(self, bytes: &[u8]) -> Option<Inspected> {
        if self.tls {
            match tls_inspector::inspect(bytes) {
                TlsInspection::NeedMore => return None,
                TlsInspection::NotTls => {}
                TlsInspection::ClientHello(hello) => {
                    return Some(Inspected {
                        transport: TransportProtocol::Tls,
                        server_name: hello.server_name,
                        application_protocols: hello.application_protocols,
                    });
                }
            }
        }
        let mut findings = unknown();
        if self.http {
            let protocol = match http_inspector::inspect(bytes) {
                HttpInspection::NeedMore => return None,
                HttpInspection::NotHttp => None,
                HttpInspection::Http10 => Some("http/1.0"),
                HttpInspection::Http11 => Some("http/1.1"),
                HttpInspection::Http2 => Some("h2c"),
            };
            findings.application_protocols.extend(protocol.map(str::to_owned));
        }
        Some(findings)
    }
}

/// Nothing was found.
fn unknown() -> Inspected {
    Inspected {
        transport: TransportProtocol::RawBuffer,
        server_name: None,
        application_protocols: Vec::new(),
    }
}

fn has_address(chain: &FilterChainMatch, destination: SocketAddr) -> bool {
    chain.prefix_ranges.is_empty()
        || chain.prefix_ranges.iter().any(|range| range.contains(&destination.ip()))
}
