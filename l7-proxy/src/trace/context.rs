//! What the hops of a trace tell each other.

use http::{HeaderMap, HeaderValue};

/// The place in a trace that a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    /// The trace.
    pub(crate) trace_id: u128,
    /// The span.
    pub(crate) span_id: u64,
    /// The span's own parent, where it is told.
    pub(crate) grandparent: Option<u64>,
    /// `tracestate`
    pub(crate) state: Option<HeaderValue>,
}

/// What a request says of a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Whether it is to be traced; `None` where that is left to whoever asks.
    pub(crate) sampled: Option<bool>,
    /// Where it comes from.
    pub(crate) parent: Option<Parent>,
    /// B3 is told in one header.
    pub(crate) in_one: bool,
}

/// What is said is not of the form that it has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The first value of a header, as text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    // What is no text is none of these headers either.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Hexadecimal digits, and nothing but these.
pub(super) fn hex(digits: &str) -> Result<u128, Malformed> {
    let all_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if all_digits { u128::from_str_radix(digits, 16).map_err(|_| Malformed) } else { Err(Malformed) }
}

/// The same of at most 16 digits.
pub(super) fn short_hex(digits: &str) -> Result<u64, Malformed> {
    u64::try_from(hex(digits)?).map_err(|_| Malformed)
}
