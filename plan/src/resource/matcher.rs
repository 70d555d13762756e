//! `type.matcher.v3`: matching of strings, headers' values and query parameters.

use regex::Regex;

/// `StringMatcher` (and the string forms of `HeaderMatcher`, `QueryParameterMatcher`).
#[derive(Debug, Clone)]
pub struct StringMatcher {
    /// How the value is compared.
    pub pattern: StringPattern,
    /// ASCII case-insensitive; does not apply to `Regex`.
    pub ignore_case: bool,
}

/// The comparison of a [`StringMatcher`].
#[derive(Debug, Clone)]
pub enum StringPattern {
    /// The whole value.
    Exact(String),
    /// The start of the value.
    Prefix(String),
    /// The end of the value.
    Suffix(String),
    /// Anywhere in the value.
    Contains(String),
    /// The whole value, RE2 syntax, anchored at both ends (Envoy's `SafeRegex` is a full match).
    Regex(Regex),
}
