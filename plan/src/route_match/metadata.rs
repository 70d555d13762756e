//! Matching of dynamic metadata: Envoy's `MetadataMatcher`.

use serde_json::Value;

use crate::resource::matcher::{MetadataMatcher, ValueMatcher};

impl MetadataMatcher {
    /// Whether the value at the path matches. What is not there matches nothing, and so everything when inverted.
    pub fn matches(&self, metadata: &Value) -> bool {
        let value = self.path.iter().try_fold(metadata, |value, key| value.as_object()?.get(key));
        value.is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

impl ValueMatcher {
    fn matches(&self, value: &Value) -> bool {
        match self {
            Self::String(matcher) => value.as_str().is_some_and(|text| matcher.matches(text.as_bytes())),
            Self::Bool(wanted) => value.as_bool() == Some(*wanted),
            Self::ListOneOf(matcher) => {
                value.as_array().is_some_and(|list| list.iter().any(|value| matcher.matches(value)))
            }
            Self::OneOf(matchers) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}
