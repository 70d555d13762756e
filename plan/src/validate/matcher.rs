//! `type.matcher.v3.StringMatcher`.

use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher as Proto};

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
        MatchPattern::SafeRegex(regex) => return safe_regex(regex, at),
        MatchPattern::Custom(extension) => {
            let name = extension.name;
            return at.field("custom").refuse(format!("matcher {name:?} is not supported"));
        }
    };
    Some(StringMatcher { pattern, ignore_case })
}

pub(super) fn safe_regex(value: RegexMatcher, at: &At<'_>) -> Option<StringMatcher> {
    let regex = full_match(value, &at.field("safe_regex"))?;
    Some(StringMatcher { pattern: StringPattern::Regex(regex), ignore_case: false })
}

fn not_empty(text: String, at: &At<'_>) -> Option<String> {
    if text.is_empty() { at.refuse("is empty") } else { Some(text) }
}
