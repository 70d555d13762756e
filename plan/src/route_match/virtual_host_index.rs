//! The search for a virtual host by authority, compiled once per route configuration.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::classify::Reach;
use crate::resource::route::{Domain, VirtualHost};

/// Positions of virtual hosts by domain: exact, then the longest suffix, then the longest prefix, then any (Envoy's
/// documentation of `VirtualHost.domains`).
#[derive(Default)]
pub struct VirtualHostIndex {
    exact: HashMap<Box<str>, usize>,
    suffixes: Wildcards,
    prefixes: Wildcards,
    any: Option<usize>,
    /// For the classifier, which is the only one to need it.
    pub(crate) reach: OnceLock<Reach>,
}

/// A domain that appears twice in one route configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "domain {domain:?} belongs to the virtual hosts {first:?} and {second:?}; domains are unique in a route configuration"
)]
pub struct DuplicateDomain {
    /// As it would be written.
    pub domain: String,
    /// The first virtual host's name.
    pub first: String,
    /// The second one's.
    pub second: String,
}

/// It is made of the virtual hosts beside it, and says no more than they do.
impl fmt::Debug for VirtualHostIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualHostIndex").finish_non_exhaustive()
    }
}

impl VirtualHostIndex {
    /// Compiles the domains of `virtual_hosts`.
    pub fn new(virtual_hosts: &[Arc<VirtualHost>]) -> Result<Self, DuplicateDomain> {
        let mut index = Self::default();
        for (position, virtual_host) in virtual_hosts.iter().enumerate() {
            for domain in &virtual_host.domains {
                if let Some(earlier) = index.insert(domain, position) {
                    return Err(DuplicateDomain {
                        domain: domain.to_string(),
                        first: virtual_hosts.get(earlier).map(|host| host.name.clone()).unwrap_or_default(),
                        second: virtual_host.name.clone(),
                    });
                }
            }
        }
        Ok(index)
    }

    fn insert(&mut self, domain: &Domain, position: usize) -> Option<usize> {
        match domain {
            Domain::Exact(host) => self.exact.insert(host.as_str().into(), position),
            Domain::Suffix(suffix) => self.suffixes.insert(suffix, position),
            Domain::Prefix(prefix) => self.prefixes.insert(prefix, position),
            Domain::Any => self.any.replace(position),
        }
    }

    /// The position of the virtual host for an authority. Case does not matter.
    pub(super) fn find(&self, authority: &str, ignore_port: bool) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any;
        }
        let host = if ignore_port { without_port(authority) } else { authority };
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        self.exact
            .get(&*host)
            .copied()
            .or_else(|| {
                self.suffixes
                    .find(&host, |length| host.len().checked_sub(length).and_then(|at| host.get(at..)))
            })
            .or_else(|| self.prefixes.find(&host, |length| host.get(..length)))
            .or(self.any)
    }
}

/// The authority without `:port`. A colon inside of an IPv6 literal's brackets is not one before a port.
fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if authority.rfind(']').is_none_or(|bracket| bracket < colon) => {
            authority.get(..colon).unwrap_or(authority)
        }
        _ => authority,
    }
}

/// Wildcard domains by length, the longest first.
#[derive(Default)]
struct Wildcards(Vec<(usize, HashMap<Box<str>, usize>)>);

impl Wildcards {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, text: &str, position: usize) -> Option<usize> {
        match self.0.binary_search_by(|(length, _)| text.len().cmp(length)) {
            Ok(at) => self.0.get_mut(at)?.1.insert(text.into(), position),
            Err(at) => {
                self.0.insert(at, (text.len(), HashMap::from([(text.into(), position)])));
                None
            }
        }
    }

    /// `part` cuts the host to a length. The star stands for at least one character.
    fn find<'h>(&self, host: &str, part: impl Fn(usize) -> Option<&'h str>) -> Option<usize> {
        let mut shorter = self.0.iter().filter(|(length, _)| *length < host.len());
        shorter.find_map(|(length, positions)| positions.get(part(*length)?).copied())
    }
}
