//! `type.matcher.v3.MetadataMatcher`.

use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher as Proto, OrMatcher, ValueMatcher as ProtoValue, list_matcher,
};

use super::at::At;
use super::matcher::string_matcher;
use crate::resource::matcher::{MetadataMatcher, ValueMatcher};

/// The only filter that leaves metadata.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
/// How deep lists and alternatives may be in each other.
const DEEPEST: u8 = 8;

pub(super) fn metadata_matcher(value: Proto, at: &At<'_>) -> Option<MetadataMatcher> {
    let Proto { filter, path, value, invert } = value;
    if filter != JWT_AUTHN {
        return at.field("filter").unsupported(format!("{filter:?} leaves no metadata"));
    }
    let at_path = at.field("path");
    if path.is_empty() {
        return at_path.refuse("is empty");
    }
    let path = at_path.each(path, |PathSegment { segment }, at| {
        at.required(segment).map(|path_segment::Segment::Key(key)| key)
    });
    let at_value = at.field("value");
    let value = value_matcher(at_value.required(value)?, DEEPEST, &at_value);
    Some(MetadataMatcher { path: path?, value: value?, invert })
}

fn value_matcher(value: ProtoValue, depth: u8, at: &At<'_>) -> Option<ValueMatcher> {
    let Some(depth) = depth.checked_sub(1) else { return at.refuse("is nested too deeply") };
    match at.required(value.match_pattern)? {
        MatchPattern::StringMatch(matcher) => {
            string_matcher(matcher, &at.field("string_match")).map(ValueMatcher::String)
        }
        MatchPattern::BoolMatch(wanted) => Some(ValueMatcher::Bool(wanted)),
        MatchPattern::ListMatch(list) => {
            let ListMatcher { match_pattern } = *list;
            let at = at.field("list_match").field("one_of");
            let list_matcher::MatchPattern::OneOf(one) = at.required(match_pattern)?;
            value_matcher(*one, depth, &at).map(|one| ValueMatcher::ListOneOf(one.into()))
        }
        MatchPattern::OrMatch(OrMatcher { value_matchers }) => {
            let at = at.field("or_match").field("value_matchers");
            at.each(value_matchers, |value, at| value_matcher(value, depth, at)).map(ValueMatcher::OneOf)
        }
        MatchPattern::NullMatch(_) => at.field("null_match").unsupported("is not supported"),
        MatchPattern::DoubleMatch(_) => at.field("double_match").unsupported("is not supported"),
        MatchPattern::PresentMatch(_) => at.field("present_match").unsupported("is not supported"),
    }
}
