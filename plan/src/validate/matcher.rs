//! `type.matcher.v3.StringMatcher`.

use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher as Proto;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::at::At;
use super::regex::full_match;
use crate::resource::matcher::{StringMatcher, StringPattern};

pub(super) fn string_matcher(value: Proto, at: &At<'_>) -> Option<StringMatcher> {
    let Proto { ignore_case, match_pattern } = value;
    let pattern = match at.required(match_pattern)? {
        MatchPattern::Exact(exact) => StringPattern::Exact(exact),
        MatchPattern::Prefix(prefix) => StringPattern::Prefix(not_empty(prefix, &at.field("prefix"))?),
        MatchPattern::Suffix(suffix) => StringPattern::Suffix(not_empty(suffix, &at.field("suffix"))?),
        MatchPattern::Contains(part) => StringPattern::Contains(not_empty(part, &at.field("contains"))?),
        // Case is the expression's own business.
        MatchPattern::SafeRegex(regex) => StringPattern::Regex(full_match(regex, &at.field("safe_regex"))?),
        MatchPattern::Custom(extension) => {
            let name = extension.name;
            return at.field("custom").refuse(format!("matcher {name:?} is not supported"));
        }
    };
    Some(StringMatcher { pattern, ignore_case })
}

fn not_empty(text: String, at: &At<'_>) -> Option<String> {
    if text.is_empty() { at.refuse("is empty") } else { Some(text) }
}
