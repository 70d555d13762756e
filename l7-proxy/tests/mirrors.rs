//! Copies of requests: what they are, and that nothing depends on them.

mod support;

use orlop_plan::resource::route::{Action, MirrorPolicy, Route};
use support::http::{Backend, Client, ok, says};
use support::http_plan::{http_listener, route, route_action};
use support::plan::Plan;
use support::{Pod, Proxied, eventually};

const VIP: &str = "10.96.0.1:80";

fn mirrored(fraction_per_million: Option<u32>) -> Vec<Route> {
    let mut action = route_action("backend");
    action.mirrors = vec![MirrorPolicy { cluster: "shadow".into(), fraction_per_million, marks_host: true }];
    vec![route("/", Action::Route(Box::new(action)))]
}

/// A backend, and another one that gets copies.
fn served(pod: &Pod, routes: Vec<Route>) -> ([Backend; 2], Proxied) {
    let backend = says(pod.listen_outside("10.77.0.2:8081"), "backend");
    let shadow = says(pod.listen_outside("10.77.0.2:8082"), "shadow");
    let plan = Plan::new()
        .outbound(VIP, http_listener(routes))
        .cluster_at("backend", &[backend.address])
        .cluster_at("shadow", &[shadow.address]);
    let proxied = pod.proxied(plan.build());
    ([backend, shadow], proxied)
}

#[test]
fn a_copy_has_the_same_body_and_says_that_it_is_one() {
    let pod = Pod::new();
    let ([backend, shadow], _proxied) = served(&pod, mirrored(None));
    let mut client = Client::new(pod.connect(VIP));
    let body = "b".repeat(100_000);

    client.send(format!(
        "POST /p?q HTTP/1.1\r\nhost: web.test:8080\r\nx-own: 1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.receive().body, "backend");

    let (request, copy) = (backend.request(), shadow.request());
    assert_eq!((copy.line(), copy.header("x-own")), (request.line(), Some("1")));
    assert_eq!(
        (request.header("host"), copy.header("host")),
        (Some("web.test:8080"), Some("web.test-shadow:8080"))
    );
    assert_eq!((request.header("x-envoy-internal"), copy.header("x-envoy-internal")), (None, Some("true")));
    assert_eq!(copy.header("x-forwarded-for"), Some("10.77.0.1"));
    assert_eq!((request.body.len(), &copy.body), (body.len(), &request.body));
}

#[test]
fn a_copy_goes_on_when_the_client_has_its_answer_and_is_gone() {
    let pod = Pod::new();
    let ([_backend, shadow], proxied) = served(&pod, mirrored(None));
    for _ in 0..3 {
        assert_eq!(Client::new(pod.connect(VIP)).get("/").body, "backend");
    }
    for _ in 0..3 {
        assert_eq!(shadow.request().header("x-envoy-internal"), Some("true"));
    }
    assert_eq!(proxied.stats().clusters["shadow"].requests, 3);
}

#[test]
fn nothing_depends_on_who_gets_the_copies() {
    let pod = Pod::new();
    let backend = says(pod.listen_outside("10.77.0.2:8081"), "backend");
    let silent = support::http::backend(pod.listen_outside("10.77.0.2:8082"), |_| {
        std::thread::sleep(std::time::Duration::from_secs(3));
        ok("late")
    });
    let mut routes = mirrored(None);
    if let Action::Route(action) = &mut routes[0].action {
        let to = |cluster: &str| MirrorPolicy {
            cluster: cluster.into(),
            fraction_per_million: None,
            marks_host: false,
        };
        action.mirrors = vec![to("unknown"), to("refusing"), to("silent")];
    }
    let plan = Plan::new()
        .outbound(VIP, http_listener(routes))
        .cluster_at("backend", &[backend.address])
        .cluster_at("refusing", &["10.77.0.2:1".parse().unwrap()])
        .cluster_at("silent", &[silent.address]);
    let proxied = pod.proxied(plan.build());

    let mut client = Client::new(pod.connect(VIP));
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 200);
    }
    eventually("failures are counted", || {
        proxied.stats().clusters.get("refusing").is_some_and(|refusing| refusing.failures == 3)
    });
}

#[test]
fn a_fraction_of_none_is_none() {
    let pod = Pod::new();
    let ([_backend, _shadow], proxied) = served(&pod, mirrored(Some(0)));
    let mut client = Client::new(pod.connect(VIP));
    for _ in 0..10 {
        client.get("/");
    }
    assert!(!proxied.stats().clusters.contains_key("shadow"));
}
