//! Whether RBAC filters let a connection or a request in.
//!
//! Pure. In: the rules of filters and what is known of a request, of a connection, or of many at once. Out: whether they are
//! let in, and by which policy. What is not known makes an answer unknown only where it matters (Kleene's logic), so that the
//! kernel can be told of the rest.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde_json::Value;

use crate::resource::header::HeaderMatcher;
use crate::resource::matcher::{MetadataMatcher, StringMatcher};
use crate::resource::rbac::{Action, PathRule, Permission, Policy, Principal, Rbac};
use crate::route_match::RequestHead;

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

/// What filters can ask. What can be asked of requests alone is unknown of a connection.
pub trait Facts {
    /// Whether it goes to one of these ports.
    fn goes_to_port(&self, ports: &std::ops::Range<u32>) -> Answer;
    /// Whether it goes to an address of this range.
    fn goes_to(&self, range: &IpNet) -> Answer;
    /// Whether it comes from an address of this range.
    fn comes_from(&self, range: &IpNet) -> Answer;
    /// Whether it has shown an identity, and one that matches.
    fn is_authenticated(&self, name: Option<&StringMatcher>) -> Answer;
    /// Whether the client has named such a server in its `ClientHello`.
    fn asks_for_server(&self, name: &StringMatcher) -> Answer;
    /// Whether the client, as trusted proxies say it, has an address of this range.
    fn client_is_in(&self, _range: &IpNet) -> Answer {
        Answer::Unknown
    }
    /// Whether a header matches.
    fn has_header(&self, _header: &HeaderMatcher) -> Answer {
        Answer::Unknown
    }
    /// Whether the path matches.
    fn has_path(&self, _path: &PathRule) -> Answer {
        Answer::Unknown
    }
    /// Whether what `jwt_authn` found out matches.
    fn has_metadata(&self, _metadata: &MetadataMatcher) -> Answer {
        Answer::Unknown
    }
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
    /// SNI; empty where there is none.
    pub server_name: &'a str,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What it came by.
    pub connection: Connection<'a>,
    /// Who sent it, as trusted proxies say it.
    pub client: IpAddr,
    /// The request itself.
    pub head: RequestHead<'a>,
    /// What `jwt_authn` has left; `Null` where it left nothing.
    pub metadata: &'a Value,
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
pub fn decide<'a>(filters: impl Iterator<Item = &'a Rbac>, facts: &impl Facts) -> Decision<'a> {
    let mut together = Decision { allowed: Answer::Yes, policy: None };
    for filter in filters {
        let decision = filter.decide(facts);
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
    /// What its rules say.
    pub fn decide(&self, facts: &impl Facts) -> Decision<'_> {
        let mut matched = Decision { allowed: Answer::No, policy: None };
        for policy in &self.policies {
            match policy.matches(facts) {
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
            Action::Log => Decision { allowed: Answer::Yes, ..matched },
        }
    }
}

impl Policy {
    fn matches(&self, facts: &impl Facts) -> Answer {
        let permitted = any(self.permissions.iter().map(|permission| permission.matches(facts)));
        permitted.and(any(self.principals.iter().map(|principal| principal.matches(facts))))
    }
}

impl Permission {
    fn matches(&self, facts: &impl Facts) -> Answer {
        match self {
            Self::Any => Answer::Yes,
            Self::All(rules) => all(rules.iter().map(|rule| rule.matches(facts))),
            Self::OneOf(rules) => any(rules.iter().map(|rule| rule.matches(facts))),
            Self::Not(rule) => !rule.matches(facts),
            Self::DestinationIp(range) => facts.goes_to(range),
            Self::DestinationPort(ports) => facts.goes_to_port(ports),
            Self::RequestedServerName(name) => facts.asks_for_server(name),
            Self::Header(header) => facts.has_header(header),
            Self::Path(path) => facts.has_path(path),
            Self::Metadata(metadata) => facts.has_metadata(metadata),
        }
    }
}

impl Principal {
    fn matches(&self, facts: &impl Facts) -> Answer {
        match self {
            Self::Any => Answer::Yes,
            Self::All(ids) => all(ids.iter().map(|id| id.matches(facts))),
            Self::OneOf(ids) => any(ids.iter().map(|id| id.matches(facts))),
            Self::Not(id) => !id.matches(facts),
            Self::Authenticated(name) => facts.is_authenticated(name.as_ref()),
            Self::SourceIp(range) => facts.comes_from(range),
            Self::RemoteIp(range) => facts.client_is_in(range),
            Self::Header(header) => facts.has_header(header),
            Self::Path(path) => facts.has_path(path),
            Self::Metadata(metadata) => facts.has_metadata(metadata),
        }
    }
}

impl Facts for Connection<'_> {
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

    fn asks_for_server(&self, name: &StringMatcher) -> Answer {
        name.matches(self.server_name.as_bytes()).into()
    }
}

impl Facts for Request<'_> {
    fn goes_to_port(&self, ports: &std::ops::Range<u32>) -> Answer {
        self.connection.goes_to_port(ports)
    }

    fn goes_to(&self, range: &IpNet) -> Answer {
        self.connection.goes_to(range)
    }

    fn comes_from(&self, range: &IpNet) -> Answer {
        self.connection.comes_from(range)
    }

    fn is_authenticated(&self, name: Option<&StringMatcher>) -> Answer {
        self.connection.is_authenticated(name)
    }

    fn asks_for_server(&self, name: &StringMatcher) -> Answer {
        self.connection.asks_for_server(name)
    }

    fn client_is_in(&self, range: &IpNet) -> Answer {
        range.contains(&self.client.to_canonical()).into()
    }

    fn has_header(&self, header: &HeaderMatcher) -> Answer {
        header.matches_any_value(&self.head).into()
    }

    fn has_path(&self, path: &PathRule) -> Answer {
        let asked = self.head.path();
        match path {
            PathRule::String(matcher) => matcher.matches(asked.as_bytes()),
            PathRule::Template(template) => template.is_match(asked),
        }
        .into()
    }

    fn has_metadata(&self, metadata: &MetadataMatcher) -> Answer {
        metadata.matches(self.metadata).into()
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
