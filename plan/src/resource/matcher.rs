//! `type.matcher.v3`: matching of strings, headers' values, query parameters and dynamic metadata.

use regex::Regex;

/// `StringMatcher` (and the string forms of `HeaderMatcher`, `QueryParameterMatcher`).
#[derive(Debug, Clone, PartialEq)]
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

impl PartialEq for StringPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other))
            | (Self::Prefix(one), Self::Prefix(other))
            | (Self::Suffix(one), Self::Suffix(other))
            | (Self::Contains(one), Self::Contains(other)) => one == other,
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

/// `MetadataMatcher`, for what the filter `jwt_authn` has found out: no other filter that is supported leaves metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct MetadataMatcher {
    /// `path`: the keys from the outermost structure to the value; one at least.
    pub path: Vec<String>,
    /// `value`
    pub value: ValueMatcher,
    /// `invert`
    pub invert: bool,
}

/// `ValueMatcher`
#[derive(Debug, Clone, PartialEq)]
pub enum ValueMatcher {
    /// `string_match`
    String(StringMatcher),
    /// `bool_match`
    Bool(bool),
    /// `list_match.one_of`: a list of which one value at least matches.
    ListOneOf(Box<Self>),
    /// `or_match`
    OneOf(Vec<Self>),
}
