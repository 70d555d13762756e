//! Header matchers and the operators of header values.

use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, Route, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3::Int64Range;
use http::HeaderMap;
use http::header::HeaderName;
use orlop_plan::resource::format::{FormatOperator, FormatPart};
use orlop_plan::resource::header::{HeaderFormat, HeaderSource};
use orlop_plan::route_match::RequestHead;

use crate::build::{World, prefix, refusal, route_configuration, route_to, virtual_host};
use crate::route_matching::accepted;

fn matcher(name: &str, specifier: HeaderMatchSpecifier) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

fn exact(value: &str) -> HeaderMatchSpecifier {
    string(MatchPattern::Exact(value.to_owned()), false)
}

fn string(pattern: MatchPattern, ignore_case: bool) -> HeaderMatchSpecifier {
    HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, match_pattern: Some(pattern) })
}

fn taken(matcher: &HeaderMatcher, headers: &[(&str, &str)]) -> bool {
    let route_match = RouteMatch { headers: vec![matcher.clone()], ..prefix("/") };
    let route = Route { r#match: Some(route_match), ..route_to("a") };
    let routes = accepted(route_configuration("r", vec![virtual_host("h", &["*"], vec![route])]));
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let head = RequestHead {
        method: "GET",
        path_and_query: "/path?query",
        authority: "host:80",
        scheme: "http",
        headers: &headers,
    };
    routes.select(&head, 0).is_some()
}

#[test]
fn repeated_headers_are_joined_by_a_comma() {
    let both = matcher("x", exact("a,b"));
    assert!(taken(&both, &[("x", "a"), ("x", "b")]));
    assert!(taken(&both, &[("x", "a,b")]));
    assert!(!taken(&both, &[("x", "a")]));
}

#[test]
fn a_missing_header_matches_nothing_even_inverted() {
    let inverted = HeaderMatcher { invert_match: true, ..matcher("x", exact("a")) };
    assert!(taken(&inverted, &[("x", "b")]));
    assert!(!taken(&inverted, &[("x", "a")]));
    assert!(!taken(&inverted, &[]));
}

#[test]
fn a_missing_header_may_be_taken_as_empty() {
    let as_empty = HeaderMatcher { treat_missing_header_as_empty: true, ..matcher("x", exact("")) };
    assert!(taken(&as_empty, &[]));
    let inverted =
        HeaderMatcher { treat_missing_header_as_empty: true, invert_match: true, ..matcher("x", exact("a")) };
    assert!(taken(&inverted, &[]));
}

#[test]
fn presence_and_absence() {
    let present = |wanted, invert_match| HeaderMatcher {
        invert_match,
        ..matcher("x", HeaderMatchSpecifier::PresentMatch(wanted))
    };
    for (wanted, inverted, there, not_there) in [
        (true, false, true, false),
        (false, false, false, true),
        (true, true, false, true),
        (false, true, true, false),
    ] {
        assert_eq!(taken(&present(wanted, inverted), &[("x", "")]), there, "{wanted} {inverted}");
        assert_eq!(taken(&present(wanted, inverted), &[]), not_there, "{wanted} {inverted}");
    }
    assert!(taken(&HeaderMatcher { name: "x".to_owned(), ..HeaderMatcher::default() }, &[("x", "a")]));
}

#[test]
fn an_empty_exact_match_takes_any_value() {
    let empty = matcher("x", HeaderMatchSpecifier::ExactMatch(String::new()));
    assert!(taken(&empty, &[("x", "anything")]));
    assert!(!taken(&empty, &[]));
}

#[test]
fn strings_with_and_without_case() {
    for (pattern, ignore_case, value, matches) in [
        (MatchPattern::Prefix("Ab".to_owned()), false, "Abc", true),
        (MatchPattern::Prefix("Ab".to_owned()), false, "abc", false),
        (MatchPattern::Prefix("Ab".to_owned()), true, "aBc", true),
        (MatchPattern::Suffix("bc".to_owned()), true, "aBC", true),
        (MatchPattern::Suffix("abc".to_owned()), true, "bc", false),
        (MatchPattern::Contains("bC".to_owned()), true, "aBcd", true),
        (MatchPattern::Contains("bC".to_owned()), false, "abcd", false),
    ] {
        assert_eq!(
            taken(&matcher("x", string(pattern.clone(), ignore_case)), &[("x", value)]),
            matches,
            "{pattern:?}"
        );
    }
}

#[test]
fn a_range_is_half_open() {
    let range = matcher("x", HeaderMatchSpecifier::RangeMatch(Int64Range { start: -5, end: 10 }));
    for (value, matches) in [("-5", true), ("9", true), ("10", false), ("9.5", false), ("", false)] {
        assert_eq!(taken(&range, &[("x", value)]), matches, "{value}");
    }
}

#[test]
fn pseudo_headers_are_matched_like_headers() {
    assert!(taken(&matcher(":method", exact("GET")), &[]));
    assert!(taken(&matcher(":path", exact("/path?query")), &[]));
    assert!(taken(&matcher(":authority", exact("host:80")), &[]));
    assert!(taken(&matcher("Host", exact("host:80")), &[]));
    assert!(taken(&matcher(":scheme", exact("http")), &[]));
}

fn format_of(value: &str) -> HeaderFormat {
    let routes =
        accepted(route_configuration("r", vec![virtual_host("h", &["*"], vec![adding("x", value)])]));
    routes.virtual_hosts[0].routes[0].headers.request_add[0].value.clone()
}

fn adding(name: &str, value: &str) -> Route {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() };
    let option = HeaderValueOption { header: Some(header), ..HeaderValueOption::default() };
    Route { request_headers_to_add: vec![option], ..route_to("a") }
}

#[test]
fn header_values_are_parsed_into_text_and_operators() {
    assert!(matches!(format_of("100%%"), HeaderFormat::Literal(value) if value == "100%"));
    let HeaderFormat::Parts(parts) = format_of("a %PROTOCOL%%% %REQ(x-a?:path):8%") else {
        panic!("it has operators")
    };
    assert_eq!(
        parts,
        [
            FormatPart::Text("a ".to_owned()),
            FormatPart::Operator(FormatOperator::Protocol),
            FormatPart::Text("% ".to_owned()),
            FormatPart::Operator(FormatOperator::RequestHeader {
                name: HeaderSource::Name(HeaderName::from_static("x-a")),
                otherwise: Some(HeaderSource::Path),
                max_length: Some(8),
            }),
        ]
    );
}

#[test]
fn an_operator_or_header_that_is_not_supported_is_refused() {
    let routes = |route: Route| route_configuration("r", vec![virtual_host("h", &["*"], vec![route])]);
    let mut world = World::default();
    world.routes(&[routes(adding("x", "%START_TIME%"))]);
    let alone: Vec<_> = world.snapshot.refused_routes().map(|(.., refused)| &refused.error.reason).collect();
    assert_eq!(alone, ["the operator %START_TIME% is not supported"]);
    let reason = |route: Route| refusal("r", routes(route)).fields[0].reason.clone();
    assert_eq!(reason(adding("x", "50%")), r#""50%" has a % without its counterpart"#);
    assert_eq!(reason(adding(":path", "/")), "`:`-prefixed headers and `host` may not be changed");
    assert_eq!(reason(adding("a b", "c")), r#""a b" is not a header's name"#);
}
