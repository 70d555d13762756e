//! `config.rbac.v3.RBAC`: what the RBAC filters of TCP and HTTP share.
//!
//! What asks for something inside a request (`header`, `url_path`, `metadata` …) is refused in filters of TCP when it is
//! validated.

use std::ops::Range;

use ipnet::IpNet;
use regex::Regex;

use super::header::HeaderMatcher;
use super::matcher::{MetadataMatcher, StringMatcher};

/// The RBAC filter of HTTP.
#[derive(Debug)]
pub struct RbacFilter {
    /// `rules`: what is enforced.
    pub rules: Option<Rbac>,
    /// `shadow_rules`: what is tried, and counted alone.
    pub shadow_rules: Option<Rbac>,
    /// `shadow_rules_stat_prefix`
    pub shadow_rules_stat_prefix: ShadowPrefix,
}

/// `shadow_rules_stat_prefix`: those that Istio writes, and none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowPrefix {
    /// None.
    None,
    /// `istio_dry_run_allow_`
    DryRunAllow,
    /// `istio_dry_run_deny_`
    DryRunDeny,
    /// `istio_ext_authz_`: what matches is an authorizer's to decide.
    ExtAuthz,
}

/// `RBAC`
#[derive(Debug)]
pub struct Rbac {
    /// What follows where a policy matches.
    pub action: Action,
    /// In the order of their names, as Envoy looks at them.
    pub policies: Vec<Policy>,
    asks_for_server_name: bool,
}

impl Rbac {
    /// From its policies in the order of their names.
    pub fn new(action: Action, policies: Vec<Policy>) -> Self {
        let mut permissions = policies.iter().flat_map(|policy| &policy.permissions);
        let asks_for_server_name = permissions.any(Permission::asks_for_server_name);
        Self { action, policies, asks_for_server_name }
    }

    /// Whether the name that a client gives in its `ClientHello` may matter.
    pub fn asks_for_server_name(&self) -> bool {
        self.asks_for_server_name
    }
}

/// `RBAC.Action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Only what a policy matches is let in.
    Allow,
    /// What a policy matches is not let in.
    Deny,
    /// Everything is let in: what it asks to be logged is not, so that its policies are not kept.
    Log,
}

/// `Policy`: matches where one of its permissions and one of its principals does.
#[derive(Debug)]
pub struct Policy {
    /// Its key in the map. Istio writes the `AuthorizationPolicy` and the rule into it: `ns[a]-policy[b]-rule[0]`.
    pub name: String,
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// `Permission`.
#[derive(Debug)]
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
    /// `requested_server_name`; a connection that names none has the empty one.
    RequestedServerName(StringMatcher),
    /// `header`, of HTTP alone.
    Header(HeaderMatcher),
    /// `url_path` and `uri_template`, of HTTP alone.
    Path(PathRule),
    /// `metadata`, of HTTP alone.
    Metadata(MetadataMatcher),
}

impl Permission {
    fn asks_for_server_name(&self) -> bool {
        match self {
            Self::RequestedServerName(_) => true,
            Self::All(rules) | Self::OneOf(rules) => rules.iter().any(Self::asks_for_server_name),
            Self::Not(rule) => rule.asks_for_server_name(),
            Self::Any
            | Self::DestinationIp(_)
            | Self::DestinationPort(_)
            | Self::Header(_)
            | Self::Path(_)
            | Self::Metadata(_) => false,
        }
    }
}

/// What a path, without its query, is held against.
#[derive(Debug)]
pub enum PathRule {
    /// `url_path`
    String(StringMatcher),
    /// `uri_template`, as the expression for whole paths that it is.
    Template(Regex),
}

/// `Principal`.
#[derive(Debug)]
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
    /// `remote_ip` of HTTP: the client, as proxies on the way that are trusted have written it into `x-forwarded-for`.
    RemoteIp(IpNet),
    /// `header`, of HTTP alone.
    Header(HeaderMatcher),
    /// `url_path`, of HTTP alone.
    Path(PathRule),
    /// `metadata`, of HTTP alone.
    Metadata(MetadataMatcher),
}
