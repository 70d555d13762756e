//! Which filter chain takes a connection: Envoy's `FilterChainMatch`.
//!
//! Pure. In: a [`Listener`] and what its listener filters found out. Out: a filter chain, or the default one. The
//! criteria are looked at in Envoy's fixed order; each keeps only the chains that match most specifically, and never
//! goes back: a chain that an earlier criterion has left behind is not found by a later one.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::resource::listener::{FilterChain, FilterChainMatch, Listener, TransportProtocol};

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Original destination.
    pub destination: SocketAddr,
    /// The peer.
    pub source: SocketAddr,
    /// Found by the TLS inspector; `RawBuffer` without one.
    pub transport: TransportProtocol,
    /// The client's ALPN in its order, or what the HTTP inspector found.
    pub application_protocols: &'a [&'a str],
    /// SNI, lower-case.
    pub server_name: Option<&'a str>,
}

/// The chain for a connection; `None` closes it.
pub fn select_chain<'l>(listener: &'l Listener, facts: &ConnectionFacts<'_>) -> Option<&'l Arc<FilterChain>> {
    let mut candidates = Candidates(listener.filter_chains.iter().collect());
    let (destination, source) = (facts.destination, facts.source);
    candidates.narrow(|chain| exact(chain.destination_port, destination.port()));
    candidates.narrow(|chain| longest_prefix(&chain.prefix_ranges, destination.ip()));
    candidates.narrow(|chain| server_name(&chain.server_names, facts.server_name));
    candidates.narrow(|chain| exact(chain.transport_protocol, facts.transport));
    candidates.narrow(|chain| first_protocol(&chain.application_protocols, facts.application_protocols));
    candidates.narrow(|chain| longest_prefix(&chain.direct_source_prefix_ranges, source.ip()));
    candidates.narrow(|chain| {
        exact(chain.source_local, source.ip().is_loopback() || source.ip() == destination.ip())
    });
    candidates.narrow(|chain| longest_prefix(&chain.source_prefix_ranges, source.ip()));
    candidates.narrow(|chain| any_of(&chain.source_ports, source.port()));
    candidates.0.first().copied().or(listener.default_filter_chain.as_ref())
}

struct Candidates<'l>(Vec<&'l Arc<FilterChain>>);

impl Candidates<'_> {
    /// Keeps the chains of the highest rank; `None` is no match.
    fn narrow<R: Ord>(&mut self, rank: impl Fn(&FilterChainMatch) -> Option<R>) {
        let best = self.0.iter().filter_map(|chain| rank(&chain.filter_chain_match)).max();
        self.0.retain(|chain| best.is_some() && rank(&chain.filter_chain_match) == best);
    }
}

/// An exact value is more specific than none.
fn exact<T: Copy + PartialEq>(wanted: Option<T>, actual: T) -> Option<bool> {
    match wanted {
        Some(wanted) => (wanted == actual).then_some(true),
        None => Some(false),
    }
}

fn any_of(wanted: &[u16], actual: u16) -> Option<bool> {
    if wanted.is_empty() { Some(false) } else { wanted.contains(&actual).then_some(true) }
}

/// No range is the same as one of length 0.
fn longest_prefix(ranges: &[IpNet], address: IpAddr) -> Option<u8> {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges.iter().filter(|range| range.contains(&address)).map(IpNet::prefix_len).max()
}

/// An exact name is more specific than a wildcard, a long wildcard more than a short one.
fn server_name(wanted: &[String], actual: Option<&str>) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    let actual = actual.filter(|name| !name.is_empty())?;
    wanted
        .iter()
        .filter_map(|name| match name.strip_prefix('*') {
            None => (name == actual).then_some(usize::MAX),
            Some(suffix) => (actual.len() > suffix.len() && actual.ends_with(suffix)).then_some(suffix.len()),
        })
        .max()
}

/// The client's earliest protocol that a chain lists wins; none at all comes last.
fn first_protocol(wanted: &[String], offered: &[&str]) -> Option<Reverse<usize>> {
    if wanted.is_empty() {
        return Some(Reverse(offered.len()));
    }
    offered.iter().position(|offer| wanted.iter().any(|name| name == offer)).map(Reverse)
}
