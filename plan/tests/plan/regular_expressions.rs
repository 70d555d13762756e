//! RE2's syntax, where it differs from the `regex` crate's.

use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction, RouteMatch, route, route_match};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use orlop_plan::resource::route::{Action, PathMatch, PathRewrite};

use crate::build::{action_to, refusal, route_configuration, route_to, virtual_host};
use crate::route_matching::accepted;

fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

fn route_with(pattern: &str) -> Route {
    let route_match = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::SafeRegex(regex(pattern))),
        ..RouteMatch::default()
    };
    Route { r#match: Some(route_match), ..route_to("a") }
}

fn matches(pattern: &str, text: &str) -> bool {
    let routes =
        accepted(route_configuration("r", vec![virtual_host("h", &["*"], vec![route_with(pattern)])]));
    let PathMatch::Regex(regex) = &routes.virtual_hosts[0].routes[0].route_match.path else {
        panic!("it is a regex")
    };
    regex.is_match(text)
}

#[test]
fn perl_classes_are_ascii() {
    assert!(matches(r"\d+", "42"));
    assert!(!matches(r"\d+", "٤٢"));
    assert!(matches(r"\w+", "a_1"));
    assert!(!matches(r"\w+", "é"));
    assert!(matches(r"[\w-]+", "a-b"));
    assert!(matches(r"[^\d]", "é"));
    assert!(matches(r"[\D]", "é"));
    assert!(matches(r"\W", "é"));
    assert!(!matches(r"\s", "\u{a0}"));
    assert!(matches(r"a\b.b", "a b"));
}

#[test]
fn classes_know_no_set_operations() {
    assert!(matches("[a&&b]", "&"));
    assert!(matches("[[a]", "["));
    assert!(matches("[]a]", "]"));
    assert!(matches("[^]a]", "b"));
    assert!(matches("[[:digit:]x]", "7"));
    assert!(matches("[a~~b]", "~"));
}

#[test]
fn quoting_and_escaped_punctuation() {
    assert!(matches(r"\Qa.b\E.", "a.bc"));
    assert!(!matches(r"\Qa.b\E", "axb"));
    assert!(matches(r"\<a\>", "<a>"));
    assert!(matches(r"\/a\-b", "/a-b"));
}

#[test]
fn groups_and_flags() {
    assert!(matches("(?i)abc", "ABC"));
    assert!(matches("(?:a|b)(?P<n>c)", "bc"));
    assert!(matches("(?i:a)b", "Ab"));
    assert!(!matches("a|b", "ab"));
}

#[test]
fn what_cannot_be_translated_is_refused_with_its_place() {
    for pattern in [r"\C", r"a\", r"\1", r"(?=a)", r"(?<!a)", r"(?x)a", "[a", "(a", r"a\B", "[a--b]", r"a)(b"]
    {
        let error = refusal(
            "r",
            route_configuration("r", vec![virtual_host("h", &["*"], vec![route_with(pattern)])]),
        );
        assert_eq!(
            error.fields[0].path.to_string(),
            "virtual_hosts[0].routes[0].match.safe_regex.regex",
            "{pattern}"
        );
        assert!(error.fields[0].reason.contains("is not supported"), "{error}");
    }
}

fn rewriting(pattern: &str, substitution: &str) -> Route {
    let rewrite =
        RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: substitution.to_owned() };
    Route {
        action: Some(route::Action::Route(RouteAction { regex_rewrite: Some(rewrite), ..action_to("a") })),
        ..route_to("a")
    }
}

#[test]
fn substitutions_are_translated() {
    let rewritten = |pattern: &str, substitution: &str, path: &str| {
        let route = rewriting(pattern, substitution);
        let routes = accepted(route_configuration("r", vec![virtual_host("h", &["*"], vec![route])]));
        let Action::Route(action) = &routes.virtual_hosts[0].routes[0].action else {
            panic!("it is a route")
        };
        let Some(PathRewrite::Regex { pattern, substitution }) = &action.path_rewrite else {
            panic!("it rewrites")
        };
        pattern.replace_all(path, substitution).into_owned()
    };
    assert_eq!(
        rewritten("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api"),
        "/v1/api/instance/foo"
    );
    assert_eq!(rewritten("one", "two", "/xxx/one/yyy/one/zzz"), "/xxx/two/yyy/two/zzz");
    assert_eq!(rewritten("a", r"$1\\\0", "/a"), r"/$1\a");
}

#[test]
fn a_substitution_cannot_name_a_group_that_is_not_there() {
    let route = rewriting("a", r"\1");
    let error = refusal("r", route_configuration("r", vec![virtual_host("h", &["*"], vec![route])]));
    assert_eq!(
        error.fields[0].to_string(),
        "virtual_hosts[0].routes[0].route.regex_rewrite.substitution: names a group that the pattern does not have"
    );
}
