//! `route.v3.Route` and its actions.

use std::time::Duration;

use orlop_plan::resource::hash_policy::{HashCookie, HashSpecifier};
use orlop_plan::resource::header::HeaderSource;
use orlop_plan::resource::route::{
    Action, ClusterSpecifier, HostRewrite, MirrorPolicy, PathMatch, RedirectPath, WeightedClusters,
};
use serde_json::json;

use crate::support::{action, action_refusals, route, route_refusals, routes, routes_refusals};

#[test]
fn a_route_times_out_after_fifteen_seconds_unless_told() {
    assert_eq!(action(&json!({}), |action| action.timeout), Some(Duration::from_secs(15)));
    assert_eq!(action(&json!({ "timeout": "0s" }), |action| action.timeout), None);
    assert_eq!(
        action(&json!({ "timeout": "1.5s" }), |action| action.timeout),
        Some(Duration::from_millis(1500))
    );
}

#[test]
fn both_fields_for_the_timeout_that_grpc_clients_ask_for_are_read() {
    let old = json!({ "max_grpc_timeout": "0s" });
    let new = json!({ "max_grpc_timeout": "0s", "max_stream_duration": { "grpc_timeout_header_max": "5s" } });

    assert_eq!(action(&old, |action| action.grpc_timeout_header_max), Some(Duration::ZERO));
    assert_eq!(action(&new, |action| action.grpc_timeout_header_max), Some(Duration::from_secs(5)));
}

#[test]
fn a_route_without_its_cluster_answers_as_it_is_told() {
    let status = |fields| action(&fields, |action| action.cluster_not_found_response);

    assert_eq!(status(json!({})), 503);
    assert_eq!(status(json!({ "cluster_not_found_response_code": "NOT_FOUND" })), 404);
    assert_eq!(status(json!({ "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR" })), 500);
}

#[test]
fn a_negative_duration_is_refused() {
    let refusals = action_refusals(&json!({ "timeout": "-1s" }));

    assert_eq!(refusals, ["timeout: is negative"]);
}

#[test]
fn features_that_are_not_served_are_refused_by_name() {
    let refusals = action_refusals(&json!({
        "priority": "HIGH",
        "internal_redirect_policy": { "max_internal_redirects": 1 },
        "max_stream_duration": { "grpc_timeout_header_offset": "1s" },
    }));

    assert_eq!(refusals.len(), 3, "{refusals:#?}");
    for field in
        ["priority: ", "internal_redirect_policy: ", "max_stream_duration.grpc_timeout_header_offset: "]
    {
        assert!(refusals.iter().any(|refusal| refusal.starts_with(field)), "{field} is not in {refusals:#?}");
    }
}

#[test]
fn configuration_of_a_filter_by_route_is_refused_by_the_names_of_filter_and_type() {
    let refusals = route_refusals(&json!({
        "typed_per_filter_config": {
            "envoy.filters.http.rbac": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
            },
            "cors": { "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy" },
        },
    }));

    assert_eq!(refusals.len(), 2);
    for (refusal, filter, type_name) in [
        (&refusals[0], "cors", "envoy.extensions.filters.http.cors.v3.CorsPolicy"),
        (&refusals[1], "envoy.filters.http.rbac", "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"),
    ] {
        assert!(refusal.contains(&format!("typed_per_filter_config[{filter:?}]: ")), "{refusal}");
        assert!(refusal.contains(type_name), "{refusal}");
    }
}

#[test]
fn a_request_is_mirrored_to_everybody_who_is_named_or_a_part_of_them() {
    let policies = json!([
        { "cluster": "shadow", "runtime_fraction": { "default_value": { "numerator": 25 } }, "trace_sampled": false },
        { "cluster": "all", "disable_shadow_host_suffix_append": true },
    ]);
    let mirrors = action(&json!({ "request_mirror_policies": policies }), |action| {
        let mirror = |mirror: &MirrorPolicy| {
            (mirror.cluster.to_string(), mirror.fraction_per_million, mirror.marks_host)
        };
        action.mirrors.iter().map(mirror).collect::<Vec<_>>()
    });
    assert_eq!(mirrors, [("shadow".to_owned(), Some(250_000), true), ("all".to_owned(), None, false)]);

    assert_eq!(
        action_refusals(&json!({ "request_mirror_policies": [{ "cluster_header": "x-shadow" }, {}] })),
        [
            "request_mirror_policies[0].cluster_header: is not supported",
            "request_mirror_policies[1].cluster: is empty",
        ]
    );
}

#[test]
fn a_request_is_hashed_by_what_is_named_in_order() {
    let policies = json!([
        { "header": { "header_name": "Host" }, "terminal": true },
        { "cookie": { "name": "user", "ttl": "60s", "path": "/", "attributes": [{ "name": "Secure" }] } },
        { "connection_properties": { "source_ip": false } },
        { "connection_properties": { "source_ip": true } },
        { "query_parameter": { "name": "q" } },
    ]);
    action(&json!({ "hash_policy": policies }), |action| {
        let [header, cookie, source, query] = &action.hash_policy[..] else {
            panic!("{:?}", action.hash_policy)
        };
        assert!(
            matches!(header.specifier, HashSpecifier::Header(HeaderSource::Authority)) && header.terminal
        );
        let HashSpecifier::Cookie(HashCookie { name, generated: Some(given) }) = &cookie.specifier else {
            panic!("{cookie:?}")
        };
        assert_eq!((name.as_str(), given.max_age, given.path.as_str()), ("user", 60, "/"));
        assert_eq!(given.attributes, [("Secure".to_owned(), String::new())]);
        assert!(matches!(source.specifier, HashSpecifier::SourceIp));
        assert!(matches!(&query.specifier, HashSpecifier::QueryParameter(name) if name == "q"));
    });
}

#[test]
fn hashes_of_other_things_are_refused_by_name() {
    let refusals = action_refusals(&json!({ "hash_policy": [
        { "filter_state": { "key": "k" } },
        { "header": { "header_name": "a", "regex_rewrite": { "pattern": { "regex": "a" }, "substitution": "b" } } },
        {},
    ]}));

    assert_eq!(
        refusals,
        [
            "hash_policy[0].filter_state: is not supported",
            "hash_policy[1].header.regex_rewrite: is not supported",
            "hash_policy[2]: is required",
        ]
    );
}

#[test]
fn an_upgrade_is_enabled_unless_told() {
    let upgrades = |configs| action(&json!({ "upgrade_configs": configs }), |action| action.upgrades.clone());

    assert_eq!(upgrades(json!([{ "upgrade_type": "WebSocket" }])), ["websocket"]);
    let off =
        action_refusals(&json!({ "upgrade_configs": [{ "upgrade_type": "websocket", "enabled": false }] }));
    assert!(off[0].starts_with("upgrade_configs[0].enabled: "), "{off:?}");
}

#[test]
fn a_path_is_matched_in_four_ways() {
    let path = |matcher| route(&json!({ "match": matcher })).route_match.path.clone();

    assert!(matches!(path(json!({ "prefix": "/api" })), PathMatch::Prefix(prefix) if prefix == "/api"));
    assert!(matches!(path(json!({ "path": "/api" })), PathMatch::Exact(exact) if exact == "/api"));
    assert!(
        matches!(path(json!({ "path_separated_prefix": "/api" })), PathMatch::PathSeparatedPrefix(prefix) if prefix == "/api")
    );
    assert!(
        matches!(path(json!({ "safe_regex": { "regex": "/r/[0-9]+" } })), PathMatch::Regex(regex) if regex.is_match("/r/1"))
    );
}

#[test]
fn matches_that_are_not_understood_are_refused() {
    let refusals = route_refusals(&json!({
        "match": {
            "connect_matcher": {},
            "cookies": [{ "name": "user", "string_match": { "exact": "a" } }],
            "query_parameters": [{ "name": "q", "present_match": false }],
        },
    }));

    assert_eq!(refusals.len(), 3, "{refusals:#?}");
    for field in ["match.connect_matcher: ", "match.cookies: ", "match.query_parameters[0].present_match: "] {
        assert!(refusals.iter().any(|refusal| refusal.starts_with(field)), "{field} is not in {refusals:#?}");
    }
}

#[test]
fn a_runtime_fraction_is_counted_in_millionths() {
    let fraction = |value| {
        let matcher =
            json!({ "prefix": "/", "runtime_fraction": { "default_value": value, "runtime_key": "canary" } });
        route(&json!({ "match": matcher })).route_match.runtime_fraction_per_million
    };

    assert_eq!(fraction(json!({ "numerator": 5 })), Some(50_000));
    assert_eq!(fraction(json!({ "numerator": 5, "denominator": "MILLION" })), Some(5));
}

#[test]
fn weighted_clusters() {
    let action = |clusters| json!({ "route": { "weighted_clusters": { "clusters": clusters } } });

    let route = route(&action(json!([{ "name": "v1", "weight": 70 }, { "name": "v2", "weight": 30 }])));
    let Action::Route(weighted) = &route.action else { panic!("{:?}", route.action) };
    let ClusterSpecifier::Weighted(WeightedClusters { clusters, total_weight }) = &weighted.cluster else {
        panic!("{:?}", weighted.cluster)
    };
    assert_eq!(*total_weight, 100);
    assert_eq!((&*clusters[1].name, clusters[1].weight), ("v2", 30));

    let nothing = route_refusals(&action(json!([{ "name": "v1", "weight": 0 }])));
    assert!(nothing[0].starts_with("route.weighted_clusters.clusters: "), "{nothing:?}");
}

#[test]
fn the_host_is_rewritten_in_three_ways() {
    let host = |fields| {
        action(&fields, |action| match &action.host_rewrite {
            Some(HostRewrite::Literal(host)) => host.clone(),
            Some(HostRewrite::Auto) => "auto".to_owned(),
            Some(HostRewrite::Header(name)) => name.to_string(),
            None => "none".to_owned(),
        })
    };

    assert_eq!(host(json!({ "host_rewrite_literal": "b.example" })), "b.example");
    assert_eq!(host(json!({ "auto_host_rewrite": true })), "auto");
    assert_eq!(host(json!({ "auto_host_rewrite": false })), "none");
    assert_eq!(host(json!({ "host_rewrite_header": "X-Host" })), "x-host");
}

#[test]
fn a_redirect() {
    let route = route(&json!({
        "redirect": { "https_redirect": true, "host_redirect": "new.example", "port_redirect": 8443,
                      "path_redirect": "/new", "response_code": "PERMANENT_REDIRECT", "strip_query": true },
    }));

    let Action::Redirect(redirect) = &route.action else { panic!("{:?}", route.action) };
    assert_eq!(redirect.scheme.as_deref(), Some("https"));
    assert_eq!(redirect.host.as_deref(), Some("new.example"));
    assert_eq!(redirect.port, Some(8443));
    assert_eq!(redirect.status, 308);
    assert!(redirect.strip_query);
    assert!(matches!(&redirect.path, Some(RedirectPath::Full(path)) if path == "/new"));
}

#[test]
fn empty_text_is_text_that_is_not_set() {
    // What istiod writes for a redirect to another port.
    let route =
        route(&json!({ "redirect": { "port_redirect": 8443, "path_redirect": "", "scheme_redirect": "" } }));
    let Action::Redirect(redirect) = &route.action else { panic!("{:?}", route.action) };
    assert!(redirect.path.is_none() && redirect.scheme.is_none() && redirect.host.is_none());

    action(&json!({ "host_rewrite_literal": "" }), |action| assert!(action.host_rewrite.is_none()));
}

#[test]
fn a_direct_response_has_a_status_and_a_body_of_limited_size() {
    let answer = |status: u16, length: usize| json!({ "direct_response": { "status": status, "body": { "inline_string": "x".repeat(length) } } });

    assert!(
        matches!(&route(&answer(418, 4096)).action, Action::DirectResponse(direct) if direct.status == 418)
    );
    assert!(route_refusals(&answer(418, 4097))[0].starts_with("direct_response.body: "));
    assert!(route_refusals(&answer(600, 1))[0].starts_with("direct_response.status: "));
}

#[test]
fn the_limit_of_direct_responses_is_the_configuration_s_own() {
    let host = |length: usize| {
        let answer = json!({ "status": 200, "body": { "inline_string": "x".repeat(length) } });
        let route = json!({ "match": { "prefix": "/" }, "direct_response": answer });
        json!({
            "max_direct_response_body_size_bytes": 1,
            "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }],
        })
    };

    routes(&host(1));
    assert_eq!(routes_refusals(&host(2)).len(), 1);
}

#[test]
fn a_longest_duration_of_0_is_no_limit() {
    let limit = json!({ "max_stream_duration": { "max_stream_duration": "0s" } });
    action(&limit, |action| assert_eq!(action.max_stream_duration, None));
    let limit = json!({ "max_stream_duration": { "max_stream_duration": "5s" } });
    action(&limit, |action| assert_eq!(action.max_stream_duration, Some(Duration::from_secs(5))));
}

#[test]
fn an_idle_timeout_of_0_is_kept_apart_from_none() {
    action(&json!({ "idle_timeout": "0s" }), |action| {
        assert_eq!(action.idle_timeout, Some(Duration::ZERO), "it switches the connection manager's off");
    });
    action(&json!({}), |action| assert_eq!(action.idle_timeout, None, "the connection manager's holds"));
}
