//! Matching of the path and of query parameters.

use crate::resource::route::{PathMatch, QueryParameterMatcher};

/// The path, and the query without its `?`; a fragment belongs to neither.
pub(super) fn split(path_and_query: &str) -> (&str, &str) {
    let without_fragment = path_and_query.split('#').next().unwrap_or_default();
    without_fragment.split_once('?').unwrap_or((without_fragment, ""))
}

/// The first value of a parameter in the query of a path, as it was sent.
pub fn query_parameter<'a>(path_and_query: &'a str, name: &str) -> Option<&'a str> {
    first_value(split(path_and_query).1, name)
}

fn first_value<'a>(query: &'a str, wanted: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == wanted).then_some(value)
    })
}

impl PathMatch {
    /// Whether a path (without query) matches.
    pub fn matches(&self, path: &str, case_sensitive: bool) -> bool {
        match self {
            Self::Prefix(prefix) => has_prefix(path, prefix, case_sensitive),
            Self::Exact(exact) if case_sensitive => path == exact,
            Self::Exact(exact) => path.eq_ignore_ascii_case(exact),
            Self::Regex(regex) => regex.is_match(path),
            Self::PathSeparatedPrefix(prefix) => {
                has_prefix(path, prefix, case_sensitive)
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
        }
    }
}

fn has_prefix(path: &str, prefix: &str, case_sensitive: bool) -> bool {
    path.as_bytes().get(..prefix.len()).is_some_and(|start| {
        if case_sensitive {
            start == prefix.as_bytes()
        } else {
            start.eq_ignore_ascii_case(prefix.as_bytes())
        }
    })
}

impl QueryParameterMatcher {
    /// Whether the parameter's first value matches. Neither names nor values are percent-decoded, as in Envoy.
    pub fn matches(&self, query: &str) -> bool {
        first_value(query, &self.name)
            .is_some_and(|value| self.value.as_ref().is_none_or(|matcher| matcher.matches(value.as_bytes())))
    }
}
