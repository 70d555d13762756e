//! The compiled search against one that is as simple as Envoy's documentation.

use envoy_types::pb::envoy::config::route::v3::RouteMatch;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use http::HeaderMap;
use orlop_plan::route_match::RequestHead;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use crate::build::{flag, route_configuration, route_to, virtual_host};
use crate::route_matching::accepted;

/// Domains over a small alphabet, so that they meet.
fn domain() -> impl Strategy<Value = String> {
    prop_oneof![Just("*".to_owned()), "[ab.]{1,4}", r"\*[ab.]{1,3}", r"[ab.]{1,3}\*"]
}

/// Exact, then the longest suffix, then the longest prefix, then any.
fn naive(hosts: &[Vec<String>], authority: &str, ignore_port: bool) -> Option<usize> {
    let host = authority.to_ascii_lowercase();
    let host =
        if ignore_port { host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host) } else { &host };
    let all =
        || hosts.iter().enumerate().flat_map(|(at, domains)| domains.iter().map(move |domain| (domain, at)));
    let longest = |matches: &dyn Fn(&str) -> bool, wild: &dyn Fn(&str) -> Option<String>| {
        all()
            .filter_map(|(domain, at)| wild(domain).map(|text| (text, at)))
            .filter(|(text, _)| host.len() > text.len() && matches(text))
            .max_by_key(|(text, _)| text.len())
            .map(|(_, at)| at)
    };
    all()
        .find(|(domain, _)| *domain == host)
        .map(|(_, at)| at)
        .or_else(|| {
            longest(&|text| host.ends_with(text), &|domain| {
                domain.strip_prefix('*').filter(|rest| !rest.is_empty()).map(str::to_owned)
            })
        })
        .or_else(|| {
            longest(&|text| host.starts_with(text), &|domain| {
                domain.strip_suffix('*').filter(|rest| !rest.is_empty()).map(str::to_owned)
            })
        })
        .or_else(|| all().find(|(domain, _)| *domain == "*").map(|(_, at)| at))
}

proptest! {
    #[test]
    fn the_virtual_host_is_the_one_that_the_documentation_names(
        domains in btree_set(domain(), 1..12),
        authority in "[abAB.]{0,5}(:80)?",
        ignore_port: bool,
    ) {
        // Two domains to a host.
        let domains: Vec<_> = domains.into_iter().collect();
        let hosts: Vec<Vec<String>> = domains.chunks(2).map(<[_]>::to_vec).collect();
        let protos = hosts.iter().enumerate().map(|(i, domains)| {
            let domains: Vec<_> = domains.iter().map(String::as_str).collect();
            virtual_host(&i.to_string(), &domains, vec![route_to("a")])
        });
        let mut proto = route_configuration("r", protos.collect());
        proto.ignore_port_in_host_matching = ignore_port;
        let routes = accepted(proto);
        let found = routes.virtual_host(&authority).map(|host| host.name.parse::<usize>().unwrap());
        prop_assert_eq!(found, naive(&hosts, &authority, ignore_port));
    }

    /// One by one, and by the index of many.
    #[test]
    fn the_route_is_the_first_that_matches(
        wanted in vec((select(&KINDS[..]), "/[abAB/]{0,3}", any::<bool>()), 1..40),
        path in "/[abAB/]{0,5}",
        query in "(\\?[ab=&/]{0,4})?",
    ) {
        let routes = wanted.iter().enumerate().map(|(i, (kind, text, case_sensitive))| {
            let mut route = route_to("a");
            route.name = i.to_string();
            route.r#match = Some(RouteMatch {
                path_specifier: Some(kind.specifier(text)),
                case_sensitive: flag(*case_sensitive),
                ..RouteMatch::default()
            });
            route
        });
        let config = accepted(route_configuration("r", vec![virtual_host("h", &["*"], routes.collect())]));
        let headers = HeaderMap::new();
        let whole = format!("{path}{query}");
        let head = RequestHead { method: "GET", path_and_query: &whole, authority: "h", scheme: "http", headers: &headers };
        let found = config.select(&head, 0).map(|selection| selection.route.name.parse::<usize>().unwrap());
        let expected = wanted.iter().position(|(kind, text, case_sensitive)| {
            if *case_sensitive { kind.takes(text, &path) } else { kind.takes(&text.to_lowercase(), &path.to_lowercase()) }
        });
        prop_assert_eq!(found, expected);
    }
}

/// What a route asks of the path.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Exact,
    Prefix,
    SeparatedPrefix,
}

const KINDS: [Kind; 3] = [Kind::Exact, Kind::Prefix, Kind::SeparatedPrefix];

impl Kind {
    fn specifier(self, text: &str) -> PathSpecifier {
        match self {
            Self::Exact => PathSpecifier::Path(text.to_owned()),
            Self::Prefix => PathSpecifier::Prefix(text.to_owned()),
            Self::SeparatedPrefix => PathSpecifier::PathSeparatedPrefix(separated(text).to_owned()),
        }
    }

    fn takes(self, text: &str, path: &str) -> bool {
        match self {
            Self::Exact => path == text,
            Self::Prefix => path.starts_with(text),
            Self::SeparatedPrefix => {
                let rest = path.strip_prefix(separated(text));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// Such a prefix does not end in a slash.
fn separated(text: &str) -> &str {
    let text = text.trim_end_matches('/');
    if text.is_empty() { "/a" } else { text }
}
