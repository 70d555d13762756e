//! Requests that cannot be served: Envoy's statuses, texts and flags, timeouts, and further attempts.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use orlop_plan::resource::cluster::{CircuitBreakers, Cluster, UpstreamTransportSocket};
use orlop_plan::resource::retry::{RetryOn, RetryPolicy};
use orlop_plan::resource::route::{Action, RouteAction};
use support::http::{Answer, Client, backend, ok, says, status};
use support::http_plan::{http_listener, istio_retry_policy, route, route_action};
use support::plan::{Plan, eds, endpoint};
use support::tcp::{accepted, reset};
use support::tls::{SERVER, upstream};
use support::{Pod, Proxied};

const VIP: &str = "10.96.0.1:80";
const BACKEND: &str = "10.77.0.2:8080";
const NOBODY: &str = "10.77.0.2:1";

fn served_by(pod: &Pod, action: RouteAction, cluster: Cluster, endpoints: &[&str]) -> Proxied {
    let endpoints: Vec<_> = endpoints.iter().map(|at| endpoint(at.parse().unwrap())).collect();
    let plan = Plan::new()
        .outbound(VIP, http_listener(vec![route("/", Action::Route(Box::new(action)))]))
        .cluster_with(cluster, &endpoints);
    pod.proxied(plan.build())
}

fn served(pod: &Pod, action: RouteAction, endpoints: &[&str]) -> Proxied {
    served_by(pod, action, eds("backend"), endpoints)
}

fn retrying(policy: RetryPolicy) -> RouteAction {
    RouteAction { retry_policy: Some(Arc::new(policy)), ..route_action("backend") }
}

fn get(pod: &Pod) -> Answer {
    Client::new(pod.connect(VIP)).get("/")
}

#[test]
fn no_route() {
    let pod = Pod::new();
    let proxied = pod.proxied(Plan::new().outbound(VIP, http_listener(Vec::new())).build());
    let answer = get(&pod);
    assert_eq!((answer.status(), answer.body.as_str()), (404, ""));
    assert_eq!(answer.header("server"), Some("istio-envoy"));
    proxied.expect_flag("NR", 1);
}

#[test]
fn no_cluster() {
    let pod = Pod::new();
    let listener = http_listener(vec![route("/", Action::Route(Box::new(route_action("nowhere"))))]);
    let proxied = pod.proxied(Plan::new().outbound(VIP, listener).build());
    let answer = get(&pod);
    assert_eq!((answer.status(), answer.body.as_str()), (503, ""));
    proxied.expect_flag("NC", 1);
}

#[test]
fn no_healthy_endpoint() {
    let pod = Pod::new();
    let proxied = served(&pod, route_action("backend"), &[]);
    let answer = get(&pod);
    assert_eq!((answer.status(), answer.body.as_str()), (503, "no healthy upstream"));
    proxied.expect_flag("UH", 1);
}

#[test]
fn an_endpoint_that_refuses() {
    let pod = Pod::new();
    let proxied = served(&pod, route_action("backend"), &[NOBODY]);
    let answer = get(&pod);
    assert_eq!(answer.status(), 503);
    assert_eq!(
        answer.body,
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
    );
    proxied.expect_flag("UF", 1);
    assert_eq!(proxied.stats().clusters["backend"].connect_failures, 1);
}

#[test]
fn an_endpoint_that_does_not_answer_the_connect() {
    let pod = Pod::new();
    let cluster = Cluster { connect_timeout: Duration::from_millis(200), ..eds("backend") };
    let proxied = served_by(&pod, route_action("backend"), cluster, &["10.77.0.99:80"]);
    assert!(get(&pod).body.ends_with("reset reason: connection timeout"));
    proxied.expect_flag("UF", 1);
}

#[test]
fn an_endpoint_that_is_owed_tls_gets_no_plaintext() {
    let pod = Pod::new();
    let backend = says(pod.listen_outside(BACKEND), "hello");
    let cluster =
        Cluster { transport_socket: UpstreamTransportSocket::Tls(upstream(SERVER)), ..eds("backend") };
    let proxied = served_by(&pod, route_action("backend"), cluster, &[BACKEND]);
    assert_eq!(get(&pod).status(), 503);
    proxied.expect_refused("upstream_tls", 1);
    assert!(backend.requests().is_empty());
}

#[test]
fn a_backend_that_closes_or_resets_before_it_answers() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let proxied = served(&pod, route_action("backend"), &[BACKEND]);
    for by_reset in [false, true] {
        let mut client = Client::new(pod.connect(VIP));
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let server = servers.recv().unwrap();
        thread::sleep(Duration::from_millis(50));
        if by_reset {
            reset(server);
        } else {
            drop(server);
        }
        let answer = client.receive();
        assert_eq!(answer.status(), 503);
        assert!(answer.body.ends_with("reset reason: connection termination"), "{}", answer.body);
    }
    proxied.expect_flag("UC", 2);
}

#[test]
fn a_backend_that_does_not_speak_http() {
    let pod = Pod::new();
    let _backend = backend(pod.listen_outside(BACKEND), |_| "nonsense\r\n\r\n".to_owned());
    let proxied = served(&pod, route_action("backend"), &[BACKEND]);
    let answer = get(&pod);
    assert_eq!(answer.status(), 502);
    assert!(answer.body.ends_with("reset reason: protocol error"));
    proxied.expect_flag("UPE", 1);
}

#[test]
fn a_response_that_breaks_off_breaks_off() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let proxied = served(&pod, route_action("backend"), &[BACKEND]);
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = servers.recv().unwrap();
    // A server that has not read everything would end by a reset, which may overtake what it wrote.
    assert!(server.read(&mut [0; 4096]).unwrap() > 0);
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").unwrap();
    drop(server);
    assert!(client.rest().ends_with("\r\n\r\nabc"));
    proxied.expect_flag("UPE", 1);
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let proxied = served(&pod, route_action("backend"), &[BACKEND]);
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = servers.recv().unwrap();
    assert!(server.read(&mut [0; 4096]).unwrap() > 0);
    drop(client);
    assert_eq!(support::tcp::read_all(&mut server).unwrap(), "", "the upstream sees the end");
    proxied.expect_flag("DC", 1);
}

#[test]
fn a_route_timeout() {
    let pod = Pod::new();
    let _servers = accepted(pod.listen_outside(BACKEND));
    let action = RouteAction { timeout: Some(Duration::from_millis(200)), ..route_action("backend") };
    let proxied = served(&pod, action, &[BACKEND]);
    let begun = Instant::now();
    let answer = get(&pod);
    assert_eq!((answer.status(), answer.body.as_str()), (504, "upstream request timeout"));
    assert!((200..1000).contains(&begun.elapsed().as_millis()));
    proxied.expect_flag("UT", 1);
}

#[test]
fn a_route_timeout_in_the_middle_of_a_response() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let action = RouteAction { timeout: Some(Duration::from_millis(200)), ..route_action("backend") };
    let proxied = served(&pod, action, &[BACKEND]);
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = servers.recv().unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").unwrap();
    assert!(client.rest().ends_with("\r\n\r\nabc"));
    proxied.expect_flag("UT", 1);
}

#[test]
fn a_stream_on_which_nothing_moves() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let action = RouteAction { idle_timeout: Some(Duration::from_millis(200)), ..route_action("backend") };
    let proxied = served(&pod, action, &[BACKEND]);
    let answer = get(&pod);
    assert_eq!((answer.status(), answer.body.as_str()), (504, "stream timeout"));
    proxied.expect_flag("SI", 1);
    drop(servers.recv().unwrap());

    // One that moves now and then is not idle.
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = servers.recv().unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").unwrap();
    for byte in b"hello" {
        thread::sleep(Duration::from_millis(100));
        server.write_all(&[*byte]).unwrap();
    }
    assert_eq!(client.receive().body, "hello");
    assert_eq!(proxied.flag("SI"), 1);
}

#[test]
fn the_upstream_is_told_how_long_it_has_and_which_attempt_it_is() {
    let pod = Pod::new();
    let backend = says(pod.listen_outside(BACKEND), "hello");
    let action = RouteAction { timeout: Some(Duration::from_secs(15)), ..route_action("backend") };
    let _proxied = served(&pod, action, &[BACKEND]);
    get(&pod);
    assert_eq!(backend.request().header("x-envoy-expected-rq-timeout-ms"), Some("15000"));
}

#[test]
fn another_attempt_goes_to_another_endpoint() {
    let pod = Pod::new();
    let _backend = says(pod.listen_outside(BACKEND), "hello");
    let proxied = served(&pod, retrying(istio_retry_policy()), &[NOBODY, "10.77.0.2:2", BACKEND]);
    for _ in 0..20 {
        assert_eq!(get(&pod).body, "hello");
    }
    assert!(proxied.stats().response_flags.is_empty());
}

#[test]
fn attempts_end_with_the_policys_number() {
    let pod = Pod::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let _backend = backend(pod.listen_outside(BACKEND), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        status("503 Service Unavailable")
    });
    let proxied = served(&pod, retrying(istio_retry_policy()), &[BACKEND]);
    assert_eq!(get(&pod).status(), 503);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    proxied.expect_flag("URX", 1);
}

#[test]
fn a_body_is_sent_again_whole() {
    let pod = Pod::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let backend =
        backend(pod.listen_outside(BACKEND), move |request| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => status("503 Service Unavailable"),
            _ => ok(&request.body.len().to_string()),
        });
    let _proxied = served(&pod, retrying(istio_retry_policy()), &[BACKEND]);
    let mut client = Client::new(pod.connect(VIP));
    client
        .send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000)));
    assert_eq!(client.receive().body, "100000");
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn a_body_that_is_too_long_to_be_kept_is_sent_once() {
    const LENGTH: usize = 3 * 1024 * 1024;
    let pod = Pod::new();
    let backend = backend(pod.listen_outside(BACKEND), |_| status("503 Service Unavailable"));
    let _proxied = served(&pod, retrying(istio_retry_policy()), &[BACKEND]);
    let mut client = Client::new(pod.connect(VIP));
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n"));
    client.send(vec![b'x'; LENGTH]);
    assert_eq!(client.receive().status(), 503);
    assert_eq!(backend.requests().iter().map(|request| request.body.len()).collect::<Vec<_>>(), [LENGTH]);
}

#[test]
fn each_attempt_may_have_a_timeout_of_its_own() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let policy = RetryPolicy {
        retry_on: RetryOn { status_5xx: true, ..RetryOn::default() },
        num_retries: 1,
        per_try_timeout: Some(Duration::from_millis(200)),
        ..istio_retry_policy()
    };
    let proxied = served(&pod, retrying(policy), &[BACKEND]);
    let answer = get(&pod);
    assert_eq!((answer.status(), answer.body.as_str()), (504, "upstream request timeout"));
    assert_eq!(servers.try_iter().count(), 2);
    proxied.expect_flag("UT", 1);
    assert_eq!(proxied.flag("URX"), 1);
}

fn limited(circuit_breakers: CircuitBreakers) -> Cluster {
    Cluster { circuit_breakers, ..eds("backend") }
}

const NO_LIMITS: CircuitBreakers = CircuitBreakers {
    max_connections: u32::MAX,
    max_pending_requests: u32::MAX,
    max_requests: u32::MAX,
    max_retries: u32::MAX,
};

#[test]
fn beyond_max_requests_is_an_overflow() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let cluster = limited(CircuitBreakers { max_requests: 1, ..NO_LIMITS });
    let proxied = served_by(&pod, route_action("backend"), cluster, &[BACKEND]);
    let mut first = Client::new(pod.connect(VIP));
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = servers.recv().unwrap();

    let answer = get(&pod);
    assert_eq!((answer.status(), answer.header("x-envoy-overloaded")), (503, Some("true")));
    assert!(answer.body.ends_with("reset reason: overflow"));
    proxied.expect_flag("UO", 1);

    server.write_all(ok("hello").as_bytes()).unwrap();
    assert_eq!(first.receive().body, "hello");
}

#[test]
fn beyond_max_connections_requests_wait_and_beyond_max_pending_they_overflow() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let cluster = limited(CircuitBreakers { max_connections: 1, max_pending_requests: 1, ..NO_LIMITS });
    let proxied = served_by(&pod, route_action("backend"), cluster, &[BACKEND]);
    let mut first = Client::new(pod.connect(VIP));
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = servers.recv().unwrap();
    let mut second = Client::new(pod.connect(VIP));
    second.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    support::eventually("two requests", || proxied.stats().clusters["backend"].requests == 2);
    thread::sleep(Duration::from_millis(50));

    assert_eq!(get(&pod).status(), 503);
    proxied.expect_flag("UO", 1);

    for client in [&mut first, &mut second] {
        server.write_all(ok("hello").as_bytes()).unwrap();
        assert_eq!(client.receive().body, "hello");
    }
    assert_eq!(proxied.stats().clusters["backend"].connections, 1);
}

#[test]
fn a_removed_endpoint_finishes_what_it_was_asked_and_is_asked_nothing_more() {
    let pod = Pod::new();
    let old = accepted(pod.listen_outside("10.77.0.2:8081"));
    let new = says(pod.listen_outside(BACKEND), "new");
    let plan = |endpoint: SocketAddr| {
        let listener = http_listener(vec![route("/", Action::Route(Box::new(route_action("backend"))))]);
        Plan::new().outbound(VIP, listener).cluster_at("backend", &[endpoint]).build()
    };
    let proxied = pod.proxied(plan("10.77.0.2:8081".parse().unwrap()));
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = old.recv().unwrap();

    proxied.proxy.update(support::NAME, Arc::new(plan(new.address)), &["backend".into()].into()).unwrap();
    server.write_all(ok("old").as_bytes()).unwrap();

    assert_eq!(client.receive().body, "old");
    assert_eq!(get(&pod).body, "new");
    assert!(support::tcp::read_all(&mut server).is_ok(), "the connection to it is closed");
}
