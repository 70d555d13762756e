//! Where a request goes and how it changes on the way: matches, weights, header operations, rewrites, redirects, direct
//! responses.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::format::{FormatOperator, FormatPart};
use orlop_plan::resource::header::{
    AppendAction, HeaderFormat, HeaderMatch, HeaderMatcher, HeaderMutations, HeaderSource, HeaderTarget,
    HeaderValueOption,
};
use orlop_plan::resource::http_connection_manager::RouteSpecifier;
use orlop_plan::resource::matcher::{StringMatcher, StringPattern};
use orlop_plan::resource::route::{
    Action, ClusterSpecifier, Domain, HostRewrite, PathRewrite, RedirectAction, RedirectPath, Route,
    VirtualHost, WeightedCluster, WeightedClusters,
};
use orlop_plan::resource::{FieldError, FieldPath};
use support::http::{Backend, Client, says};
use support::http_plan::{
    direct, http_chain, http_listener, manager, route, route_action, route_configuration, to, virtual_host,
};
use support::plan::{Plan, listener};
use support::{Pod, Proxied};

const VIP: &str = "10.96.0.1:80";

/// Clusters `one` and `two`, each with a backend that says its name.
fn served(pod: &Pod, routes: Vec<Route>) -> ([Backend; 2], Proxied) {
    let one = says(pod.listen_outside("10.77.0.2:8081"), "one");
    let two = says(pod.listen_outside("10.77.0.2:8082"), "two");
    let plan = Plan::new()
        .outbound(VIP, http_listener(routes))
        .cluster_at("one", &[one.address])
        .cluster_at("two", &[two.address]);
    let proxied = pod.proxied(plan.build());
    ([one, two], proxied)
}

fn with_header(mut route: Route, name: &'static str, value: &str) -> Route {
    route.route_match.headers.push(HeaderMatcher {
        name: HeaderSource::Name(HeaderName::from_static(name)),
        matches: HeaderMatch::String(StringMatcher {
            pattern: StringPattern::Exact(value.to_owned()),
            ignore_case: false,
        }),
        invert: false,
        treat_missing_as_empty: false,
    });
    route
}

fn set(name: &'static str, value: &'static str) -> HeaderValueOption {
    HeaderValueOption {
        name: HeaderTarget::Name(HeaderName::from_static(name)),
        value: HeaderFormat::Literal(HeaderValue::from_static(value)),
        append_action: AppendAction::OverwriteIfExistsOrAdd,
        keep_empty_value: false,
    }
}

fn redirect() -> RedirectAction {
    RedirectAction {
        scheme: None,
        host: None,
        port: None,
        path: None,
        status: StatusCode::MOVED_PERMANENTLY,
        strip_query: false,
    }
}

#[test]
fn the_first_route_that_matches_takes_the_request() {
    let pod = Pod::new();
    let routes = vec![with_header(route("/", to("two")), "x-version", "2"), route("/", to("one"))];
    let (_backends, _proxied) = served(&pod, routes);
    let mut client = Client::new(pod.connect(VIP));

    assert_eq!(client.get("/").body, "one");
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-version: 2\r\n\r\n");
    assert_eq!(client.receive().body, "two");
}

#[test]
fn virtual_hosts_are_told_apart_by_authority() {
    let pod = Pod::new();
    let mut one = virtual_host(vec![route("/", to("one"))]);
    one.domains = vec![Domain::Exact("one.example".to_owned())];
    let mut two = virtual_host(vec![route("/", to("two"))]);
    two.domains = vec![Domain::Suffix(".two.example".to_owned())];
    let backends = [("one", "10.77.0.2:8081"), ("two", "10.77.0.2:8082")]
        .map(|(name, at)| (name, says(pod.listen_outside(at), name)));
    let mut plan =
        Plan::new().outbound(VIP, listener(vec![http_chain(manager(route_configuration(vec![one, two])))]));
    for (name, backend) in &backends {
        plan = plan.cluster_at(name, &[backend.address]);
    }
    let proxied = pod.proxied(plan.build());
    let mut client = Client::new(pod.connect(VIP));

    for (host, body) in [("One.Example", "one"), ("www.two.example", "two"), ("three.example", "")] {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.receive().body, body, "{host}");
    }
    proxied.expect_flag("NR", 1);
}

#[test]
fn weights_are_drawn_for_each_request() {
    let pod = Pod::new();
    let cluster = |name: &str, weight| WeightedCluster {
        name: name.into(),
        weight,
        host_rewrite: None,
        headers: HeaderMutations::default(),
    };
    let mut action = route_action("");
    let clusters = vec![cluster("one", 70), cluster("two", 30)];
    action.cluster = ClusterSpecifier::Weighted(WeightedClusters { clusters, total_weight: 100 });
    let (_backends, _proxied) = served(&pod, vec![route("/", Action::Route(Box::new(action)))]);
    let mut client = Client::new(pod.connect(VIP));

    let ones = (0..2000).filter(|_| client.get("/").body == "one").count();

    assert!((1300..1500).contains(&ones), "{ones} of 2000");
}

#[test]
fn header_operations_remove_then_add_from_the_most_specific_level_outwards() {
    let pod = Pod::new();
    let mut specific = route("/", to("one"));
    specific.headers = HeaderMutations {
        request_remove: vec![HeaderName::from_static("x-a"), HeaderName::from_static("x-gone")],
        request_add: vec![set("x-a", "route"), set("x-both", "route")],
        response_add: vec![set("x-answer", "route")],
        response_remove: vec![HeaderName::from_static("content-type")],
    };
    let mut host = virtual_host(vec![specific]);
    host.headers.request_add = vec![set("x-both", "virtual host")];
    let backend = support::http::backend(pod.listen_outside("10.77.0.2:8081"), |_| {
        "HTTP/1.1 200 OK\r\ncontent-type: x\r\ncontent-length: 0\r\n\r\n".to_owned()
    });
    let chain = http_chain(manager(route_configuration(vec![host])));
    let plan = Plan::new().outbound(VIP, listener(vec![chain])).cluster_at("one", &[backend.address]);
    let _proxied = pod.proxied(plan.build());
    let mut client = Client::new(pod.connect(VIP));

    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-a: client\r\nx-gone: 1\r\n\r\n");
    let answer = client.receive();

    let request = backend.request();
    assert_eq!(request.header("x-a"), Some("route"));
    assert_eq!(request.header("x-gone"), None);
    assert_eq!(request.header("x-both"), Some("virtual host"));
    assert_eq!((answer.header("x-answer"), answer.header("content-type")), (Some("route"), None));
}

#[test]
fn header_values_may_refer_to_the_request() {
    let pod = Pod::new();
    let mut with_operators = route("/", to("one"));
    let operator = |operator| FormatPart::Operator(operator);
    let parts = vec![
        FormatPart::Text("from ".to_owned()),
        operator(FormatOperator::DownstreamRemoteAddressWithoutPort),
        FormatPart::Text(" to ".to_owned()),
        operator(FormatOperator::DownstreamLocalAddress),
        FormatPart::Text(" by ".to_owned()),
        operator(FormatOperator::UpstreamCluster),
        FormatPart::Text(" for ".to_owned()),
        operator(FormatOperator::RequestHeader {
            name: HeaderSource::Path,
            otherwise: None,
            max_length: Some(3),
        }),
    ];
    with_operators.headers.request_add =
        vec![HeaderValueOption { value: HeaderFormat::Parts(parts), ..set("x-info", "") }];
    let ([one, _], _proxied) = served(&pod, vec![with_operators]);

    Client::new(pod.connect(VIP)).get("/path");

    assert_eq!(one.request().header("x-info"), Some("from 10.77.0.1 to 10.96.0.1:80 by one for /pa"));
}

#[test]
fn path_and_host_are_rewritten_and_what_they_were_is_said() {
    let pod = Pod::new();
    let mut action = route_action("one");
    action.path_rewrite = Some(PathRewrite::Prefix("/new".to_owned()));
    action.host_rewrite = Some(HostRewrite::Literal("other.example".to_owned()));
    let ([one, _], _proxied) = served(&pod, vec![route("/old", Action::Route(Box::new(action)))]);

    Client::new(pod.connect(VIP)).get("/old/path?q");

    let request = one.request();
    assert_eq!(request.line(), "GET /new/path?q HTTP/1.1");
    assert_eq!(request.header("host"), Some("other.example"));
    assert_eq!(request.header("x-envoy-original-path"), Some("/old/path?q"));
    assert_eq!(request.header("x-envoy-original-host"), Some("a.example"));
}

#[test]
fn a_path_is_rewritten_by_a_regular_expression() {
    let pod = Pod::new();
    let mut action = route_action("one");
    action.path_rewrite = Some(PathRewrite::Regex {
        pattern: regex::Regex::new("^/v([0-9]+)/").unwrap(),
        substitution: "/version/${1}/".to_owned(),
    });
    let ([one, _], _proxied) = served(&pod, vec![route("/", Action::Route(Box::new(action)))]);
    Client::new(pod.connect(VIP)).get("/v2/a?v3/");
    assert_eq!(one.request().line(), "GET /version/2/a?v3/ HTTP/1.1");
}

/// Each line was tried against Envoy 1.40.
#[test]
fn redirects() {
    let cases: [(&str, RedirectAction, &str, &str, u16, &str); 6] = [
        (
            "/redir/",
            RedirectAction {
                path: Some(RedirectPath::Prefix("/new/".to_owned())),
                port: Some(8080),
                ..redirect()
            },
            "a.example:80",
            "/redir/x?q=1",
            301,
            "http://a.example:8080/new/x?q=1",
        ),
        (
            "/https",
            RedirectAction { scheme: Some("https".to_owned()), ..redirect() },
            "a.example",
            "/https/x?y",
            301,
            "https://a.example/https/x?y",
        ),
        (
            "/host",
            RedirectAction {
                host: Some("other.example".to_owned()),
                status: StatusCode::FOUND,
                strip_query: true,
                ..redirect()
            },
            "a.example",
            "/host?z=1",
            302,
            "http://other.example/host",
        ),
        (
            "/path",
            RedirectAction {
                path: Some(RedirectPath::Full("/p?x=1".to_owned())),
                status: StatusCode::TEMPORARY_REDIRECT,
                ..redirect()
            },
            "a.example",
            "/path?z=1",
            307,
            "http://a.example/p?x=1",
        ),
        (
            "/keep",
            RedirectAction { path: Some(RedirectPath::Full("/p".to_owned())), ..redirect() },
            "a.example:8000",
            "/keep?z=1",
            301,
            "http://a.example:8000/p?z=1",
        ),
        (
            "/secure",
            RedirectAction { scheme: Some("https".to_owned()), ..redirect() },
            "a.example:80",
            "/secure",
            301,
            "https://a.example/secure",
        ),
    ];
    let pod = Pod::new();
    let (asked, routes): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .map(|(prefix, action, host, target, status, location)| {
            ((host, target, status, location), route(prefix, Action::Redirect(action)))
        })
        .unzip();
    let (_backends, _proxied) = served(&pod, routes);
    let mut client = Client::new(pod.connect(VIP));

    for (host, target, status, location) in asked {
        client.send(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        let answer = client.receive();
        assert_eq!((answer.status(), answer.header("location")), (status, Some(location)), "{target}");
    }
}

#[test]
fn direct_responses() {
    let pod = Pod::new();
    let (_backends, proxied) =
        served(&pod, vec![route("/text", direct(200, "hi")), route("/", direct(404, ""))]);
    let mut client = Client::new(pod.connect(VIP));

    let text = client.get("/text");
    assert_eq!((text.status(), text.body.as_str()), (200, "hi"));
    assert_eq!(text.header("content-type"), Some("text/plain"));
    let empty = client.get("/");
    assert_eq!((empty.status(), empty.header("content-length")), (404, Some("0")));
    assert!(proxied.stats().response_flags.is_empty());
}

#[test]
fn a_route_change_takes_effect_with_the_next_request_of_a_live_connection() {
    let pod = Pod::new();
    let one = says(pod.listen_outside("10.77.0.2:8081"), "one");
    let two = says(pod.listen_outside("10.77.0.2:8082"), "two");
    let mut by_rds = manager(route_configuration(Vec::new()));
    by_rds.routes = RouteSpecifier::Rds("80".into());
    let plan = Plan::new()
        .outbound(VIP, listener(vec![http_chain(by_rds)]))
        .cluster_at("one", &[one.address])
        .cluster_at("two", &[two.address])
        .build();
    let routed_to = |cluster: &str| {
        let routes = route_configuration(vec![virtual_host(vec![route("/", to(cluster))])]);
        ProxyPlan { routes: [("80".into(), Arc::new(routes))].into_iter().collect(), ..plan.clone() }
    };
    let proxied = pod.proxied(routed_to("one"));
    let mut client = Client::new(pod.connect(VIP));
    assert_eq!(client.get("/").body, "one");

    for cluster in ["two", "one", "two"] {
        proxied.proxy.update(support::NAME, Arc::new(routed_to(cluster)), &Arc::default()).unwrap();
        assert_eq!(client.get("/").body, cluster);
    }
}

#[test]
fn a_connection_whose_listener_was_replaced_ends_with_its_next_response() {
    let pod = Pod::new();
    let (_backends, proxied) = served(&pod, vec![route("/", direct(200, "old"))]);
    let mut client = Client::new(pod.connect(VIP));
    assert_eq!(client.get("/").header("connection"), None);

    let replaced = Plan::new().outbound(VIP, http_listener(vec![route("/", direct(200, "new"))]));
    proxied.proxy.update(support::NAME, Arc::new(replaced.build()), &Arc::default()).unwrap();

    assert_eq!(client.get("/").header("connection"), Some("close"));
    assert_eq!(client.rest(), "");
    assert_eq!(Client::new(pod.connect(VIP)).get("/").body, "new");
}

fn unsupported() -> Vec<FieldError> {
    vec![FieldError { path: FieldPath::root().field("route"), reason: "is not supported".to_owned() }]
}

#[test]
fn a_route_that_is_refused_by_itself_answers_503_and_the_others_go_on() {
    let pod = Pod::new();
    let refused = route("/refused", Action::Unsupported(unsupported()));
    let ([one, _], proxied) = served(&pod, vec![refused, route("/", to("one"))]);
    let mut client = Client::new(pod.connect(VIP));

    let answer = client.get("/refused");
    assert_eq!((answer.status(), answer.body.as_str()), (503, "the route asks for what is not supported"));
    assert_eq!(client.get("/").body, "one");

    proxied.expect_refused("unsupported_route", 1);
    assert_eq!(one.requests().len(), 1);
}

#[test]
fn a_virtual_host_that_is_refused_by_itself_answers_503() {
    let pod = Pod::new();
    let host = VirtualHost { unsupported: unsupported(), ..virtual_host(vec![route("/", to("one"))]) };
    let manager = manager(route_configuration(vec![host]));
    let plan = Plan::new().outbound(VIP, listener(vec![http_chain(manager)]));
    let proxied = pod.proxied(plan.build());

    assert_eq!(Client::new(pod.connect(VIP)).get("/").status(), 503);
    proxied.expect_refused("unsupported_route", 1);
}
