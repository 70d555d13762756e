//! Header matching and header mutation.

use std::fmt;

use http::{HeaderName, HeaderValue};

use super::format::FormatPart;
use super::matcher::StringMatcher;

/// `route.v3.HeaderMatcher`. Pseudo-headers (`:method`, `:path`, `:authority`, `:scheme`) are matched like headers.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    /// What is looked at.
    pub name: HeaderSource,
    /// How.
    pub matches: HeaderMatch,
    /// `invert_match`.
    pub invert: bool,
    /// `treat_missing_header_as_empty`.
    pub treat_missing_as_empty: bool,
}

/// A header or a pseudo-header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// An ordinary header; values of repeated headers are joined by `,` before matching.
    Name(HeaderName),
    /// `:method`
    Method,
    /// `:path`, with the query
    Path,
    /// `:authority`
    Authority,
    /// `:scheme`
    Scheme,
}

impl fmt::Display for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name(name) => name.as_str(),
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Authority => ":authority",
            Self::Scheme => ":scheme",
        })
    }
}

/// `header_match_specifier`.
#[derive(Debug, Clone)]
pub enum HeaderMatch {
    /// Present (true) or absent (false).
    Present(bool),
    /// The value as a string.
    String(StringMatcher),
    /// A base-10 integer in `[start, end)`.
    Range {
        /// First value that matches.
        start: i64,
        /// First value that does not match any more.
        end: i64,
    },
}

/// The header operations of one level (route configuration, virtual host, route, weighted cluster).
#[derive(Debug, Clone, Default)]
pub struct HeaderMutations {
    /// `request_headers_to_add`.
    pub request_add: Vec<HeaderValueOption>,
    /// `request_headers_to_remove`; removal comes before addition, as in Envoy 1.40.
    pub request_remove: Vec<HeaderName>,
    /// `response_headers_to_add`.
    pub response_add: Vec<HeaderValueOption>,
    /// `response_headers_to_remove`.
    pub response_remove: Vec<HeaderName>,
}

impl HeaderMutations {
    /// Whether nothing is changed at this level.
    pub fn is_empty(&self) -> bool {
        self.request_add.is_empty()
            && self.request_remove.is_empty()
            && self.response_add.is_empty()
            && self.response_remove.is_empty()
    }
}

/// `core.v3.HeaderValueOption`.
#[derive(Debug, Clone)]
pub struct HeaderValueOption {
    /// The header's name; `None` is `:authority` (`host`).
    pub name: HeaderTarget,
    /// The value, its `%...%` operators parsed.
    pub value: HeaderFormat,
    /// What happens where the header exists.
    pub append_action: AppendAction,
    /// `keep_empty_value`: otherwise a value that formats to nothing is not added.
    pub keep_empty_value: bool,
}

/// What a mutation sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderTarget {
    /// An ordinary header.
    Name(HeaderName),
    /// `:authority` or `host`.
    Authority,
    /// `:path`
    Path,
}

/// `HeaderAppendAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// Add another value, or the first.
    AppendIfExistsOrAdd,
    /// Only where absent.
    AddIfAbsent,
    /// Replace all, or the first.
    OverwriteIfExistsOrAdd,
    /// Replace, only where present.
    OverwriteIfExists,
}

/// A header value: literal text, or text with substitution operators.
#[derive(Debug, Clone)]
pub enum HeaderFormat {
    /// No operator in it: the common case costs nothing.
    Literal(HeaderValue),
    /// Parts in order.
    Parts(Vec<FormatPart>),
}
