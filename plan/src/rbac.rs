//! Whether RBAC filters let a connection in.
//!
//! Pure. In: the filters of a chain and what is known of a connection, or of many at once. Out: whether they are let in, and by
//! which policy. What is not known makes an answer unknown only where it matters (Kleene's logic), so that the kernel can be
//! told of the rest.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::resource::matcher::StringMatcher;
use crate::resource::rbac::{Action, Permission, Policy, Principal, Rbac};

/// Yes, no, or not to be known from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Yes,
    /// It is not.
    No,
    /// It may be.
    Unknown,
}

/// What filters can ask of a connection.
pub trait Peers {
    /// Whether it goes to one of these ports.
    fn goes_to_port(&self, ports: &std::ops::Range<u32>) -> Answer;
    /// Whether it goes to an address of this range.
    fn goes_to(&self, range: &IpNet) -> Answer;
    /// Whether it comes from an address of this range.
    fn comes_from(&self, range: &IpNet) -> Answer;
    /// Whether it has shown an identity, and one that matches.
    fn is_authenticated(&self, name: Option<&StringMatcher>) -> Answer;
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// Who connects.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// Who the peer has shown to be; `None` is nobody, as in plaintext.
    pub peer: Option<PeerNames<'a>>,
}

/// The names in a certificate that was verified.
#[derive(Debug, Clone, Copy)]
pub struct PeerNames<'a> {
    /// Subject alternative names that are URIs: SPIFFE identities.
    pub uris: &'a [String],
    /// Subject alternative names that are host names.
    pub dns: &'a [String],
    /// The subject, as RFC 2253 writes it.
    pub subject: &'a str,
}

impl PeerNames<'_> {
    /// As Envoy's `authenticated` looks at them: any of the names, and the subject.
    fn matches(self, matcher: &StringMatcher) -> bool {
        let names = self.uris.iter().chain(self.dns).map(String::as_str);
        names.chain([self.subject]).any(|name| matcher.matches(name.as_bytes()))
    }
}

/// What filters say.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'a> {
    /// Whether it is let in.
    pub allowed: Answer,
    /// The policy that decided; `None` where none matches.
    pub policy: Option<&'a Policy>,
}

/// What filters, one behind another, say together: every one has to let it in.
pub fn decide<'a>(filters: impl Iterator<Item = &'a Rbac>, peers: &impl Peers) -> Decision<'a> {
    let mut together = Decision { allowed: Answer::Yes, policy: None };
    for filter in filters {
        let decision = filter.decide(peers);
        match (decision.allowed, together.allowed) {
            (Answer::No, _) => return decision,
            (Answer::Unknown, _) | (Answer::Yes, Answer::Yes) => {
                together = Decision { policy: decision.policy.or(together.policy), ..decision };
            }
            (Answer::Yes, _) => {}
        }
    }
    together
}

impl Rbac {
    fn decide(&self, peers: &impl Peers) -> Decision<'_> {
        let mut matched = Decision { allowed: Answer::No, policy: None };
        for policy in &self.policies {
            match policy.matches(peers) {
                Answer::Yes => {
                    matched = Decision { allowed: Answer::Yes, policy: Some(policy) };
                    break;
                }
                Answer::Unknown if matched.policy.is_none() => {
                    matched = Decision { allowed: Answer::Unknown, policy: Some(policy) };
                }
                Answer::Unknown | Answer::No => {}
            }
        }
        match self.action {
            Action::Allow => matched,
            Action::Deny => Decision { allowed: !matched.allowed, ..matched },
        }
    }
}

impl Policy {
    fn matches(&self, peers: &impl Peers) -> Answer {
        let permitted = any(self.permissions.iter().map(|permission| permission.matches(peers)));
        permitted.and(any(self.principals.iter().map(|principal| principal.matches(peers))))
    }
}

impl Permission {
    fn matches(&self, peers: &impl Peers) -> Answer {
        match self {
            Self::Any => Answer::Yes,
            Self::All(rules) => all(rules.iter().map(|rule| rule.matches(peers))),
            Self::OneOf(rules) => any(rules.iter().map(|rule| rule.matches(peers))),
            Self::Not(rule) => !rule.matches(peers),
            Self::DestinationIp(range) => peers.goes_to(range),
            Self::DestinationPort(ports) => peers.goes_to_port(ports),
        }
    }
}

impl Principal {
    fn matches(&self, peers: &impl Peers) -> Answer {
        match self {
            Self::Any => Answer::Yes,
            Self::All(ids) => all(ids.iter().map(|id| id.matches(peers))),
            Self::OneOf(ids) => any(ids.iter().map(|id| id.matches(peers))),
            Self::Not(id) => !id.matches(peers),
            Self::Authenticated(name) => peers.is_authenticated(name.as_ref()),
            Self::SourceIp(range) => peers.comes_from(range),
        }
    }
}

impl Peers for Connection<'_> {
    fn goes_to_port(&self, ports: &std::ops::Range<u32>) -> Answer {
        ports.contains(&u32::from(self.destination.port())).into()
    }

    fn goes_to(&self, range: &IpNet) -> Answer {
        range.contains(&self.destination.ip().to_canonical()).into()
    }

    fn comes_from(&self, range: &IpNet) -> Answer {
        range.contains(&self.source.ip().to_canonical()).into()
    }

    fn is_authenticated(&self, name: Option<&StringMatcher>) -> Answer {
        self.peer.is_some_and(|peer| name.is_none_or(|name| peer.matches(name))).into()
    }
}

impl Answer {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for Answer {
    fn from(so: bool) -> Self {
        if so { Self::Yes } else { Self::No }
    }
}

impl std::ops::Not for Answer {
    type Output = Self;
    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

fn all(answers: impl Iterator<Item = Answer>) -> Answer {
    answers.fold(Answer::Yes, Answer::and)
}

fn any(answers: impl Iterator<Item = Answer>) -> Answer {
    !all(answers.map(|answer| !answer))
}
