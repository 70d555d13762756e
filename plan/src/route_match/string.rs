//! Matching of one value: Envoy's `StringMatcherImpl`.

use crate::resource::matcher::{StringMatcher, StringPattern};

impl StringMatcher {
    /// Whether `value` matches. Bytes, since a header's value need not be UTF-8; to a regular expression one that is not is
    /// Latin-1, as it is to Envoy.
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.pattern {
            StringPattern::Exact(exact) => equal(value, exact.as_bytes(), self.ignore_case),
            StringPattern::Prefix(prefix) => value
                .get(..prefix.len())
                .is_some_and(|start| equal(start, prefix.as_bytes(), self.ignore_case)),
            StringPattern::Suffix(suffix) => value
                .len()
                .checked_sub(suffix.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|end| equal(end, suffix.as_bytes(), self.ignore_case)),
            StringPattern::Contains(part) => {
                part.is_empty()
                    || value
                        .windows(part.len())
                        .any(|window| equal(window, part.as_bytes(), self.ignore_case))
            }
            StringPattern::Regex(regex) => match std::str::from_utf8(value) {
                Ok(text) => regex.is_match(text),
                Err(_) => regex.is_match(&value.iter().copied().map(char::from).collect::<String>()),
            },
        }
    }
}

fn equal(left: &[u8], right: &[u8], ignore_case: bool) -> bool {
    if ignore_case { left.eq_ignore_ascii_case(right) } else { left == right }
}
