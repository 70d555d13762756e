//! `config.rbac.v3.RBAC`: what the RBAC filters of TCP and HTTP share.
//!
//! What asks for something inside a request (`header`, `url_path`, `metadata` …) is refused when it is validated, so that
//! everything here can be said of a connection.

use std::ops::Range;

use ipnet::IpNet;

use super::matcher::StringMatcher;

/// `RBAC` with the action `ALLOW` or `DENY`. One with `LOG` denies nothing and does not come this far.
#[derive(Debug, PartialEq)]
pub struct Rbac {
    /// What follows where a policy matches.
    pub action: Action,
    /// In the order of their names, as Envoy looks at them.
    pub policies: Vec<Policy>,
}

/// `RBAC.Action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Only what a policy matches is let in.
    Allow,
    /// What a policy matches is not let in.
    Deny,
}

/// `Policy`: matches where one of its permissions and one of its principals does.
#[derive(Debug, PartialEq)]
pub struct Policy {
    /// Its key in the map. Istio writes the `AuthorizationPolicy` and the rule into it: `ns[a]-policy[b]-rule[0]`.
    pub name: String,
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// `Permission`.
#[derive(Debug, PartialEq)]
pub enum Permission {
    /// `any`
    Any,
    /// `and_rules`
    All(Vec<Self>),
    /// `or_rules`
    OneOf(Vec<Self>),
    /// `not_rule`
    Not(Box<Self>),
    /// `destination_ip`
    DestinationIp(IpNet),
    /// `destination_port` and `destination_port_range`, whose end is not in it.
    DestinationPort(Range<u32>),
}

/// `Principal`.
#[derive(Debug, PartialEq)]
pub enum Principal {
    /// `any`
    Any,
    /// `and_ids`
    All(Vec<Self>),
    /// `or_ids`
    OneOf(Vec<Self>),
    /// `not_id`
    Not(Box<Self>),
    /// `authenticated`; `None` is any identity.
    Authenticated(Option<StringMatcher>),
    /// `direct_remote_ip`, `source_ip`, and for TCP `remote_ip`: no protocol that names another source is spoken.
    SourceIp(IpNet),
}
