//! `type.matcher.v3.StringMatcher`

use orlop_plan::resource::header::HeaderMatch;
use orlop_plan::resource::matcher::{StringMatcher, StringPattern};
use regex::Regex;
use serde_json::json;

use crate::support::{header_matcher, header_matcher_refusals};

fn regex(pattern: &str) -> Regex {
    let matcher =
        header_matcher(&json!({ "name": "x-re", "string_match": { "safe_regex": { "regex": pattern } } }));
    match matcher.matches {
        HeaderMatch::String(StringMatcher { pattern: StringPattern::Regex(regex), .. }) => regex,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pattern_matches_the_whole_value() {
    let regex = regex("a|bc");

    assert!(regex.is_match("a") && regex.is_match("bc"));
    assert!(!regex.is_match("ac") && !regex.is_match("xbc") && !regex.is_match("a\n"));
}

#[test]
fn a_perl_class_in_brackets_does_not_begin_a_range() {
    assert!(regex(r"[\w-z]+").is_match("a-z") && !regex(r"[\w-z]+").is_match("`"));
}

#[test]
fn a_pattern_that_is_broken_is_refused_where_it_is_written() {
    for pattern in ["a)|(b", "[a", r"\8", "(?=a)"] {
        let refusals = header_matcher_refusals(
            &json!({ "name": "x-re", "string_match": { "safe_regex": { "regex": pattern } } }),
        );
        assert!(refusals[0].starts_with("string_match.safe_regex.regex: "), "{refusals:?}");
    }
}

#[test]
fn a_part_of_a_value_is_never_empty() {
    for part in ["prefix", "suffix", "contains"] {
        let refusals = header_matcher_refusals(&json!({ "name": "x", "string_match": { part: "" } }));
        assert!(refusals[0].starts_with(&format!("string_match.{part}: ")), "{refusals:?}");
    }
}
