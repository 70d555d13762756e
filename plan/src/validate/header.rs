//! `route.v3.HeaderMatcher` and header operations.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue as ProtoValue, HeaderValueOption as ProtoOption};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher as ProtoMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use http::HeaderName;

use super::at::At;
use super::format::header_format;
use super::matcher::string_matcher;
use super::regex::full_match;
use crate::resource::header::{
    AppendAction, HeaderMatch, HeaderMatcher, HeaderMutations, HeaderSource, HeaderTarget, HeaderValueOption,
};
use crate::resource::matcher::{StringMatcher, StringPattern};

pub(super) fn header_name(name: &str, at: &At<'_>) -> Option<HeaderName> {
    HeaderName::try_from(name).ok().or_else(|| at.refuse(format!("{name:?} is not a header's name")))
}

/// A header or pseudo-header to be read. Envoy knows `host` as `:authority`.
pub(super) fn header_source(name: &str, at: &At<'_>) -> Option<HeaderSource> {
    match name.to_ascii_lowercase().as_str() {
        ":method" => Some(HeaderSource::Method),
        ":path" => Some(HeaderSource::Path),
        ":authority" | "host" => Some(HeaderSource::Authority),
        ":scheme" => Some(HeaderSource::Scheme),
        ordinary => header_name(ordinary, at).map(HeaderSource::Name),
    }
}

pub(super) fn header_matcher(value: ProtoMatcher, at: &At<'_>) -> Option<HeaderMatcher> {
    let ProtoMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } = value;
    let name = header_source(&name, &at.field("name"));
    let string = |pattern| Some(HeaderMatch::String(StringMatcher { pattern, ignore_case: false }));
    let matches = match header_match_specifier {
        None => Some(HeaderMatch::Present(true)),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => Some(HeaderMatch::Present(present)),
        // Envoy takes an empty `exact_match` for any value of a header that is there.
        Some(HeaderMatchSpecifier::ExactMatch(exact)) if exact.is_empty() => {
            string(StringPattern::Prefix(String::new()))
        }
        Some(HeaderMatchSpecifier::ExactMatch(exact)) => string(StringPattern::Exact(exact)),
        Some(HeaderMatchSpecifier::PrefixMatch(prefix)) => string(StringPattern::Prefix(prefix)),
        Some(HeaderMatchSpecifier::SuffixMatch(suffix)) => string(StringPattern::Suffix(suffix)),
        Some(HeaderMatchSpecifier::ContainsMatch(part)) => string(StringPattern::Contains(part)),
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => full_match(regex, &at.field("safe_regex_match"))
            .and_then(|regex| string(StringPattern::Regex(regex))),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            string_matcher(matcher, &at.field("string_match")).map(HeaderMatch::String)
        }
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            Some(HeaderMatch::Range { start: range.start, end: range.end })
        }
    };
    Some(HeaderMatcher {
        name: name?,
        matches: matches?,
        invert: invert_match,
        treat_missing_as_empty: treat_missing_header_as_empty,
    })
}

/// The four fields of a message that operates on headers.
#[derive(Default)]
pub(super) struct Mutations {
    pub(super) request_headers_to_add: Vec<ProtoOption>,
    pub(super) request_headers_to_remove: Vec<String>,
    pub(super) response_headers_to_add: Vec<ProtoOption>,
    pub(super) response_headers_to_remove: Vec<String>,
}

impl Mutations {
    pub(super) fn convert(self, at: &At<'_>) -> Option<HeaderMutations> {
        self.convert_as("request_headers_to_add", at)
    }

    /// Where what is added to requests has another name.
    pub(super) fn convert_as(self, request_add: &str, at: &At<'_>) -> Option<HeaderMutations> {
        let add = |field: &str, options| at.field(field).each(options, header_value_option);
        let remove =
            |field: &str, names| at.field(field).each(names, |name: String, at| removable(&name, at));
        let request_add = add(request_add, self.request_headers_to_add);
        let request_remove = remove("request_headers_to_remove", self.request_headers_to_remove);
        let response_add = add("response_headers_to_add", self.response_headers_to_add);
        let response_remove = remove("response_headers_to_remove", self.response_headers_to_remove);
        Some(HeaderMutations {
            request_add: request_add?,
            request_remove: request_remove?,
            response_add: response_add?,
            response_remove: response_remove?,
        })
    }
}

/// Envoy lets no operation touch pseudo-headers or `host`.
fn removable(name: &str, at: &At<'_>) -> Option<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return at.refuse("`:`-prefixed headers and `host` may not be changed");
    }
    header_name(name, at)
}

fn header_value_option(value: ProtoOption, at: &At<'_>) -> Option<HeaderValueOption> {
    let ProtoOption { header, append, append_action, keep_empty_value } = value;
    let at_header = at.field("header");
    let ProtoValue { key, value, raw_value } = at_header.required(header)?;
    let name = removable(&key, &at_header.field("key"));
    let value = if raw_value.is_empty() {
        header_format(&value, &at_header.field("value"))
    } else {
        match String::from_utf8(raw_value) {
            Ok(text) if value.is_empty() => header_format(&text, &at_header.field("raw_value")),
            _ => at_header.field("raw_value").refuse("is not text, or stands beside `value`"),
        }
    };
    let action = match (append, HeaderAppendAction::try_from(append_action)) {
        (Some(append), Ok(HeaderAppendAction::AppendIfExistsOrAdd)) if !append.value => {
            Some(AppendAction::OverwriteIfExistsOrAdd)
        }
        (_, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => Some(AppendAction::AppendIfExistsOrAdd),
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => Some(AppendAction::AddIfAbsent),
        (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => Some(AppendAction::OverwriteIfExistsOrAdd),
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => Some(AppendAction::OverwriteIfExists),
        _ => at.field("append_action").refuse("is unknown, or stands beside `append`"),
    };
    Some(HeaderValueOption {
        name: HeaderTarget::Name(name?),
        value: value?,
        append_action: action?,
        keep_empty_value,
    })
}
