//! What is not a valid request is answered as Envoy 1.40 answers it (each line below was tried against it), and reaches
//! nobody.

#![allow(
    clippy::unwrap_used,
    clippy::format_collect,
    clippy::type_complexity,
    reason = "helpers of tests fail the test"
)]

mod support;

use support::http::{Client, says};
use support::http_plan::{all_to, http_listener};
use support::plan::Plan;
use support::{Pod, Proxied};

const VIP: &str = "10.96.0.1:80";
const BACKEND: &str = "10.77.0.2:8080";

fn served(pod: &Pod) -> (support::http::Backend, Proxied) {
    let backend = says(pod.listen_outside(BACKEND), "hello");
    let plan = Plan::new().outbound(VIP, http_listener(all_to("backend")));
    let proxied = pod.proxied(plan.cluster_at("backend", &[backend.address]).build());
    (backend, proxied)
}

/// A request with these headers after its line.
fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{headers}\r\n").into_bytes()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn requests_that_are_refused() {
    let many: String = (0..120).map(|n| format!("x{n}: 1\r\n")).collect();
    let long = format!("host: a\r\nx: {}\r\n", "a".repeat(70_000));
    // What was sent, the status, and the body where it is not the status's name.
    let cases: Vec<(&str, Vec<u8>, u16, Option<&str>)> = vec![
        ("no host", get("/", ""), 400, Some("")),
        ("a blank in the host", get("/", "host: a b\r\n"), 400, None),
        ("a slash in the host", get("/", "host: a/b\r\n"), 400, None),
        ("a method with a blank", b"G ET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), 400, None),
        ("a method in lower case", b"get / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), 400, None),
        ("a method of the client's own", b"FOOBAR / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), 400, None),
        ("not HTTP at all", b"\x16\x03\x01hello\r\n\r\n".to_vec(), 400, None),
        ("HTTP/1.0", b"GET / HTTP/1.0\r\nhost: a\r\n\r\n".to_vec(), 426, None),
        ("HTTP/0.9", b"GET /\r\n\r\n".to_vec(), 426, None),
        ("a later version", b"GET / HTTP/2.7\r\nhost: a\r\n\r\n".to_vec(), 426, None),
        ("headers that are too long", get("/", &long), 431, None),
        ("too many headers", get("/", &format!("host: a\r\n{many}")), 431, None),
        (
            "a length and chunks",
            post("content-length: 3\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            400,
            None,
        ),
        ("a length that is none", post("content-length: 3x\r\n", "abc"), 400, None),
        ("a negative length", post("content-length: -3\r\n", "abc"), 400, None),
        ("two equal lengths", post("content-length: 3\r\ncontent-length: 3\r\n", "abc"), 400, None),
        ("two lengths", post("content-length: 3\r\ncontent-length: 4\r\n", "abc"), 400, None),
        ("a list of lengths", post("content-length: 3, 3\r\n", "abc"), 400, None),
        ("another coding", post("transfer-encoding: gzip\r\n", ""), 501, None),
        ("another coding and chunks", post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501, None),
        (
            "chunks twice",
            post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            501,
            None,
        ),
        ("a chunk without a size", post("transfer-encoding: chunked\r\n", "zz\r\n\r\n"), 400, None),
        (
            "a chunk longer than its size",
            post("transfer-encoding: chunked\r\n", "1\r\nabc\r\n0\r\n\r\n"),
            400,
            None,
        ),
        ("a blank before the colon", get("/", "host: a\r\nfoo : b\r\n"), 400, None),
        ("a header's name that is none", get("/", "host: a\r\nx(: b\r\n"), 400, None),
        ("a zero byte in a header", get("/", "host: a\r\nx: a\0b\r\n"), 400, None),
        ("a path that is not ASCII", get("/ä", "host: a\r\n"), 400, None),
        ("a relative path", get("api", "host: a\r\n"), 400, None),
        ("a fragment", get("/api#x", "host: a\r\n"), 400, Some("")),
        ("an escaped zero byte", get("/a%00", "host: a\r\n"), 400, Some("")),
    ];
    let pod = Pod::new();
    let (backend, _proxied) = served(&pod);

    for (what, request, status, body) in cases {
        let mut client = Client::new(pod.connect(VIP));
        client.send(request);
        let answer = client.receive();
        let reason = answer.head.lines().next().unwrap().splitn(3, ' ').nth(2).unwrap().to_owned();
        assert_eq!(answer.status(), status, "{what}");
        assert_eq!(answer.body, body.unwrap_or(&reason), "{what}");
        assert_eq!(answer.header("server"), Some("istio-envoy"), "{what}");
        assert!(answer.header("date").is_some(), "{what}");
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        assert_eq!(client.rest(), "", "{what}: the connection closes");
    }
    let reached: Vec<_> = backend.requests().iter().map(|request| request.head.clone()).collect();
    assert!(reached.is_empty(), "{reached:?}");
}

#[test]
fn requests_that_look_odd_and_are_served() {
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("lines that end with LF alone", b"GET / HTTP/1.1\nhost: a\n\n".to_vec(), "a"),
        ("empty lines before", b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), "a"),
        ("an empty host", get("/", "host: \r\n"), ""),
        ("two hosts", get("/", "host: a\r\nhost: b\r\n"), "a,b"),
        ("a target with an authority", get("http://b.example/x", "host: a\r\n"), "b.example"),
        ("a host with user and port", get("/", "host: u@a:80\r\n"), "u@a:80"),
        ("an expectation that is not known", get("/", "host: a\r\nexpect: 200-ok\r\n"), "a"),
    ];
    let pod = Pod::new();
    let (backend, _proxied) = served(&pod);

    for (what, request, host) in cases {
        let mut client = Client::new(pod.connect(VIP));
        client.send(request);
        assert_eq!(client.receive().status(), 200, "{what}");
        let received = backend.request();
        assert_eq!(
            received.head.lines().nth(1).unwrap().trim_end(),
            format!("host: {host}").trim_end(),
            "{what}"
        );
    }
}

#[test]
fn a_malformed_request_is_counted_and_so_is_its_status() {
    let pod = Pod::new();
    let (_backend, proxied) = served(&pod);
    let mut client = Client::new(pod.connect(VIP));
    client.send("nonsense\r\n\r\n");
    client.rest();
    proxied.expect_flag("DPE", 1);
    assert_eq!(proxied.stats().requests["4xx"], 1);
}

#[test]
fn a_target_that_is_no_path_is_not_found() {
    let pod = Pod::new();
    let (_backend, _proxied) = served(&pod);
    let mut client = Client::new(pod.connect(VIP));
    client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.receive().status(), 404);
    assert_eq!(client.get("/").status(), 200);
}

/// As Envoy's `normalize_path`.
#[test]
fn paths_are_normalized() {
    let cases = [
        ("/a/%2e%2e/b", "/b"),
        ("/a/..%2fb", "/a/..%2fb"),
        ("/a\\b", "/a/b"),
        ("/a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/../../a", "/a"),
        ("/a//b", "/a//b"),
        ("/a%zz", "/a%zz"),
        ("/a%7eb", "/a~b"),
        ("/a?b/../c|", "/a?b/../c|"),
        ("/a|b\"{c}<d>^`", "/a%7Cb%22%7Bc%7D%3Cd%3E%5E%60"),
        ("/%E4%BD%A0", "/%E4%BD%A0"),
        ("/%41%2D%2E%5F%7E%21", "/A-._~%21"),
        ("/a[b]", "/a[b]"),
    ];
    let pod = Pod::new();
    let (backend, _proxied) = served(&pod);
    let mut client = Client::new(pod.connect(VIP));
    for (asked, forwarded) in cases {
        assert_eq!(client.get(asked).status(), 200, "{asked}");
        assert_eq!(backend.request().line(), format!("GET {forwarded} HTTP/1.1"), "{asked}");
    }
}
