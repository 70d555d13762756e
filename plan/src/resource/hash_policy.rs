//! `route.v3.RouteAction.HashPolicy`: what the hash of a request is made of.

use super::header::HeaderSource;

/// `HashPolicy`. The hashes of all that find something are combined.
#[derive(Debug)]
pub struct HashPolicy {
    /// What is hashed.
    pub specifier: HashSpecifier,
    /// `terminal`: those behind it do not count once there is a hash.
    pub terminal: bool,
}

/// `policy_specifier`.
#[derive(Debug)]
pub enum HashSpecifier {
    /// `header`: all of its values, whatever their order.
    Header(HeaderSource),
    /// `cookie`
    Cookie(HashCookie),
    /// `connection_properties.source_ip`
    SourceIp,
    /// `query_parameter`: its first value.
    QueryParameter(String),
}

/// `HashPolicy.Cookie`.
#[derive(Debug)]
pub struct HashCookie {
    /// The cookie.
    pub name: String,
    /// A client that does not have it is given one; `None` is never.
    pub generated: Option<GeneratedCookie>,
}

/// The cookie that a client is given.
#[derive(Debug)]
pub struct GeneratedCookie {
    /// `ttl` in seconds; 0 is until the client's session ends.
    pub max_age: u64,
    /// `path`; may be empty.
    pub path: String,
    /// `attributes`, in order.
    pub attributes: Vec<(String, String)>,
}
