//! Which virtual host and which route take a request.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    QueryParameterMatcher, Route, RouteAction, RouteMatch, WeightedCluster, query_parameter_matcher, route,
    route_action, route_match,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use http::HeaderMap;
use orlop_plan::resource::route::{Action, ClusterSpecifier, RouteConfiguration};
use orlop_plan::route_match::RequestHead;

use crate::build::{World, action_to, flag, number, prefix, route_configuration, route_to, virtual_host};

pub(crate) fn accepted(
    proto: envoy_types::pb::envoy::config::route::v3::RouteConfiguration,
) -> Arc<RouteConfiguration> {
    let mut world = World::default();
    let outcome = world.routes(std::slice::from_ref(&proto));
    assert_eq!(outcome.errors, []);
    Arc::clone(world.snapshot.routes().get(&proto.name).unwrap())
}

fn get<'a>(authority: &'a str, path_and_query: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    RequestHead { method: "GET", path_and_query, authority, scheme: "http", headers }
}

fn host_for(routes: &RouteConfiguration, authority: &str) -> Option<String> {
    routes.virtual_host(authority).map(|host| host.name.clone())
}

/// One host; the route's name says which one was taken.
fn with_matches(matches: Vec<(&str, RouteMatch)>) -> Arc<RouteConfiguration> {
    let routes = matches
        .into_iter()
        .map(|(name, route_match)| Route {
            name: name.to_owned(),
            r#match: Some(route_match),
            ..route_to("a")
        })
        .collect();
    accepted(route_configuration("r", vec![virtual_host("h", &["*"], routes)]))
}

fn route_for(routes: &RouteConfiguration, path: &str) -> Option<String> {
    let headers = HeaderMap::new();
    routes.select(&get("any", path, &headers), 0).map(|selection| selection.route.name.clone())
}

#[test]
fn the_most_specific_domain_wins() {
    let routes = accepted(route_configuration(
        "r",
        [
            ("any", "*"),
            ("short suffix", "*.example.com"),
            ("long suffix", "*.shop.example.com"),
            ("exact", "web.shop.example.com"),
            ("short prefix", "web.*"),
            ("long prefix", "web.shop.*"),
        ]
        .map(|(name, domain)| virtual_host(name, &[domain], vec![route_to("a")]))
        .into(),
    ));
    for (authority, host) in [
        ("web.shop.example.com", "exact"),
        ("WEB.shop.example.COM:8080", "exact"),
        ("api.shop.example.com", "long suffix"),
        ("shop.example.com", "short suffix"),
        ("web.shop.example.org", "long prefix"),
        ("web.org", "short prefix"),
        ("example.org", "any"),
        // The star stands for at least one character.
        (".example.com", "any"),
        ("web.", "any"),
    ] {
        assert_eq!(host_for(&routes, authority).as_deref(), Some(host), "{authority}");
    }
}

#[test]
fn a_port_counts_unless_it_is_to_be_ignored() {
    let mut proto = route_configuration(
        "r",
        vec![
            virtual_host("without", &["a.example.com", "[fd00::1]"], vec![route_to("a")]),
            virtual_host("with", &["a.example.com:8080"], vec![route_to("a")]),
        ],
    );
    proto.ignore_port_in_host_matching = false;
    let exact = accepted(proto.clone());
    assert_eq!(host_for(&exact, "a.example.com:8080").as_deref(), Some("with"));
    assert_eq!(host_for(&exact, "a.example.com:80"), None);
    proto.ignore_port_in_host_matching = true;
    let ignoring = accepted(proto);
    assert_eq!(host_for(&ignoring, "a.example.com:80").as_deref(), Some("without"));
    assert_eq!(host_for(&ignoring, "[fd00::1]:80").as_deref(), Some("without"));
    assert_eq!(host_for(&ignoring, "[fd00::1]").as_deref(), Some("without"));
}

#[test]
fn the_first_route_that_matches_wins() {
    let routes = with_matches(vec![("api", prefix("/api")), ("rest", prefix("/"))]);
    assert_eq!(route_for(&routes, "/api/v1").as_deref(), Some("api"));
    assert_eq!(route_for(&routes, "/apix").as_deref(), Some("api"));
    assert_eq!(route_for(&routes, "/").as_deref(), Some("rest"));
    assert_eq!(route_for(&routes, ""), None);
}

#[test]
fn query_and_fragment_are_not_of_the_path() {
    let exact = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Path("/a".to_owned())),
        ..RouteMatch::default()
    };
    let routes = with_matches(vec![("exact", exact)]);
    for path in ["/a", "/a?", "/a?b=/c", "/a#d"] {
        assert_eq!(route_for(&routes, path).as_deref(), Some("exact"), "{path}");
    }
    assert_eq!(route_for(&routes, "/a/"), None);
}

#[test]
fn a_path_separated_prefix_ends_at_a_slash() {
    let separated = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::PathSeparatedPrefix("/api".to_owned())),
        case_sensitive: flag(false),
        ..RouteMatch::default()
    };
    let routes = with_matches(vec![("api", separated)]);
    for path in ["/api", "/API/v1", "/api?x=1"] {
        assert_eq!(route_for(&routes, path).as_deref(), Some("api"), "{path}");
    }
    assert_eq!(route_for(&routes, "/apis"), None);
}

#[test]
fn a_regular_expression_takes_the_whole_path() {
    let regex = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::SafeRegex(RegexMatcher {
            regex: "/a|/b.".to_owned(),
            ..RegexMatcher::default()
        })),
        ..RouteMatch::default()
    };
    let routes = with_matches(vec![("regex", regex)]);
    assert_eq!(route_for(&routes, "/a?q").as_deref(), Some("regex"));
    assert_eq!(route_for(&routes, "/bc").as_deref(), Some("regex"));
    assert_eq!(route_for(&routes, "/ab"), None);
    assert_eq!(route_for(&routes, "x/a"), None);
}

#[test]
fn the_first_value_of_a_query_parameter_counts() {
    let parameter = |name: &str, value: Option<&str>| QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(match value {
            Some(value) => {
                query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(StringMatcher {
                    match_pattern: Some(string_matcher::MatchPattern::Exact(value.to_owned())),
                    ..StringMatcher::default()
                })
            }
            None => query_parameter_matcher::QueryParameterMatchSpecifier::PresentMatch(true),
        }),
    };
    let both =
        RouteMatch { query_parameters: vec![parameter("a", Some("1")), parameter("b", None)], ..prefix("/") };
    let routes = with_matches(vec![("both", both)]);
    for path in ["/?a=1&b", "/?b=x&a=1&a=2"] {
        assert_eq!(route_for(&routes, path).as_deref(), Some("both"), "{path}");
    }
    for path in ["/", "/?a=1", "/?a=2&a=1&b", "/?a=%31&b"] {
        assert_eq!(route_for(&routes, path), None, "{path}");
    }
}

#[test]
fn a_runtime_fraction_takes_its_share() {
    let fraction = RouteMatch {
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent { numerator: 25, denominator: 0 }),
            ..RuntimeFractionalPercent::default()
        }),
        ..prefix("/")
    };
    let routes = with_matches(vec![("some", fraction)]);
    let headers = HeaderMap::new();
    let taken = (0..1_000_000_u64)
        .step_by(1000)
        .filter(|random| routes.select(&get("h", "/", &headers), *random).is_some())
        .count();
    assert_eq!(taken, 250);
}

#[test]
fn grpc_is_told_by_its_content_type() {
    let grpc = RouteMatch { grpc: Some(route_match::GrpcRouteMatchOptions {}), ..prefix("/") };
    let routes = with_matches(vec![("grpc", grpc)]);
    for (content_type, taken) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("text/plain", false),
    ] {
        let headers: HeaderMap =
            [("content-type".parse().unwrap(), content_type.parse().unwrap())].into_iter().collect();
        assert_eq!(routes.select(&get("h", "/", &headers), 0).is_some(), taken, "{content_type}");
    }
}

#[test]
fn weighted_clusters_are_drawn_by_weight() {
    let cluster = |name: &str, weight| ClusterWeight {
        name: name.to_owned(),
        weight: number(weight),
        ..ClusterWeight::default()
    };
    let weighted = WeightedCluster {
        clusters: vec![cluster("a", 70), cluster("never", 0), cluster("b", 30)],
        ..WeightedCluster::default()
    };
    let split = Route {
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::WeightedClusters(weighted)),
            ..action_to("")
        })),
        ..route_to("")
    };
    let routes = accepted(route_configuration("r", vec![virtual_host("h", &["*"], vec![split])]));
    let headers = HeaderMap::new();
    let selection = routes.select(&get("h", "/", &headers), 0).unwrap();
    let Action::Route(action) = &selection.route.action else { panic!("it is a route") };
    let ClusterSpecifier::Weighted(clusters) = &action.cluster else { panic!("it is weighted") };
    let drawn = |name: &str| (0..100).filter(|random| &*clusters.pick(*random).unwrap().name == name).count();
    assert_eq!((drawn("a"), drawn("never"), drawn("b")), (70, 0, 30));
}
