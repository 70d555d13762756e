//! Requests and responses through the proxy, unchanged but for what a proxy has to change.

#![allow(clippy::unwrap_used, clippy::format_collect, reason = "helpers of tests fail the test")]

mod support;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use support::http::{Backend, Client, backend, ok, says};
use support::http_plan::{all_to, http_listener};
use support::plan::Plan;
use support::tcp::accepted;
use support::{Pod, Proxied};

const VIP: &str = "10.96.0.1:80";
const BACKEND: &str = "10.77.0.2:8080";

/// Everything that the pod asks at [`VIP`] goes to [`BACKEND`].
fn served(pod: &Pod) -> Proxied {
    let plan = Plan::new().outbound(VIP, http_listener(all_to("backend")));
    pod.proxied(plan.cluster_at("backend", &[BACKEND.parse().unwrap()]).build())
}

fn with_backend(
    answer: impl Fn(&support::http::Received) -> String + Clone + Send + 'static,
) -> (Pod, Backend, Proxied) {
    let pod = Pod::new();
    let backend = backend(pod.listen_outside(BACKEND), answer);
    let proxied = served(&pod);
    (pod, backend, proxied)
}

#[test]
fn a_request_reaches_the_backend_and_its_answer_the_client() {
    let (pod, backend, proxied) = with_backend(|_| ok("hello"));

    let answer = Client::new(pod.connect(VIP)).get("/some/path?query=1");

    assert_eq!((answer.status(), answer.body.as_str()), (200, "hello"));
    let request = backend.request();
    assert_eq!(request.line(), "GET /some/path?query=1 HTTP/1.1");
    assert_eq!(request.header("host"), Some("a.example"));
    assert_eq!(proxied.stats().requests["2xx"], 1);
    assert!(proxied.stats().response_flags.is_empty());
}

#[test]
fn requests_one_after_the_other_share_connections_on_both_sides() {
    let (pod, backend, proxied) = with_backend(|_| ok("hello"));
    let mut client = Client::new(pod.connect(VIP));

    for _ in 0..20 {
        assert_eq!(client.get("/").body, "hello");
    }
    let mut another = Client::new(pod.connect(VIP));
    assert_eq!(another.get("/").body, "hello");

    assert!(backend.requests().iter().all(|request| request.connection == 0));
    assert_eq!(proxied.stats().clusters["backend"].connections, 1);
    assert_eq!(proxied.stats().clusters["backend"].requests, 21);
}

#[test]
fn requests_at_the_same_time_have_connections_of_their_own() {
    let (pod, backend, _proxied) = with_backend(|_| {
        thread::sleep(Duration::from_millis(100));
        ok("hello")
    });
    let mut clients: Vec<_> = (0..8).map(|_| Client::new(pod.connect(VIP))).collect();

    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.receive().body, "hello");
    }

    let mut connections: Vec<_> = backend.requests().iter().map(|request| request.connection).collect();
    connections.sort_unstable();
    assert_eq!(connections, (0..8).collect::<Vec<_>>());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (pod, _backend, _proxied) = with_backend(|request| ok(request.line()));
    let mut client = Client::new(pod.connect(VIP));

    let requests: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    client.send(requests);

    for n in 0..50 {
        assert_eq!(client.receive().body, format!("GET /{n} HTTP/1.1"));
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_a_head() {
    let (pod, _backend, _proxied) = with_backend(|_| ok("hello"));
    let mut client = Client::new(pod.connect(VIP));
    for byte in b"\r\n\r\nGET /slow HTTP/1.1\r\nhost: a\r\n\r\n" {
        client.send([*byte]);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.receive().body, "hello");
}

#[test]
fn a_body_with_a_length_is_forwarded_with_it() {
    let (pod, backend, _proxied) = with_backend(|request| ok(std::str::from_utf8(&request.body).unwrap()));
    let mut client = Client::new(pod.connect(VIP));

    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");

    assert_eq!(client.receive().body, "hello");
    let request = backend.request();
    assert_eq!(request.header("content-length"), Some("5"));
    assert_eq!(request.header("transfer-encoding"), None);
    assert_eq!(client.get("/next").status(), 200);
}

#[test]
fn a_chunked_body_is_forwarded_in_chunks_and_its_trailers_are_dropped() {
    let (pod, backend, _proxied) = with_backend(|request| ok(std::str::from_utf8(&request.body).unwrap()));
    let mut client = Client::new(pod.connect(VIP));

    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("3;ext=1\r\nhel\r\n2\r\nlo\r\n0\r\nx-trailer: 1\r\n\r\n");

    assert_eq!(client.receive().body, "hello");
    assert_eq!(backend.request().header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.get("/next").status(), 200);
}

#[test]
fn a_response_in_chunks_is_forwarded_in_chunks() {
    let (pod, _backend, _proxied) = with_backend(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n".to_owned()
    });
    let mut client = Client::new(pod.connect(VIP));

    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.body, "hello");
    }
}

#[test]
fn a_response_that_ends_with_its_connection_is_forwarded_in_chunks() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let _proxied = served(&pod);
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut server = servers.recv().unwrap();
    // A server that has not read everything would end by a reset.
    assert!(server.read(&mut [0; 4096]).unwrap() > 0);
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap();
    drop(server);

    assert_eq!(client.receive().body, "until the end");
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let (pod, backend, _proxied) =
        with_backend(|_| "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_owned());
    let mut client = Client::new(pod.connect(VIP));

    for _ in 0..2 {
        assert_eq!(client.head("/").header("content-length"), Some("1000"));
    }
    assert!(backend.requests().iter().all(|request| request.connection == 0));
}

#[test]
fn statuses_without_a_body_have_none() {
    let (pod, _backend, _proxied) = with_backend(|request| match request.line() {
        "GET /204 HTTP/1.1" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n".to_owned(),
    });
    let mut client = Client::new(pod.connect(VIP));

    for (path, status) in [("/204", 204), ("/304", 304), ("/204", 204)] {
        let answer = client.get(path);
        assert_eq!(answer.status(), status);
        assert_eq!(answer.header("content-length"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
    }
}

#[test]
fn informational_responses_are_not_the_response() {
    let (pod, _backend, _proxied) = with_backend(|_| {
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n{}", ok("hello"))
    });
    assert_eq!(Client::new(pod.connect(VIP)).get("/").body, "hello");
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let (pod, backend, _proxied) = with_backend(|request| ok(std::str::from_utf8(&request.body).unwrap()));
    let mut client = Client::new(pod.connect(VIP));

    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.receive().status(), 100);
    client.send("hello");

    assert_eq!(client.receive().body, "hello");
    assert_eq!(backend.request().header("expect"), None);
}

#[test]
fn headers_of_the_hop_stay_on_the_hop() {
    let (pod, backend, _proxied) = with_backend(|_| {
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-hop\r\nkeep-alive: timeout=3\r\nx-hop: 1\r\nx-end: 1\r\n\
         content-length: 0\r\n\r\n"
            .to_owned()
    });
    let mut client = Client::new(pod.connect(VIP));

    client.send(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-hop\r\nkeep-alive: 3\r\nproxy-connection: x\r\n\
         te: trailers, deflate\r\nupgrade: h2c\r\nx-hop: 1\r\nx-end: 1\r\n\r\n",
    );
    let answer = client.receive();

    let request = backend.request();
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "x-hop"] {
        assert_eq!(request.header(name), None, "{name}");
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(request.header("te"), Some("trailers"));
    assert_eq!((request.header("x-end"), answer.header("x-end")), (Some("1"), Some("1")));
}

#[test]
fn a_client_that_says_close_is_closed() {
    let (pod, _backend, _proxied) = with_backend(|_| ok("hello"));
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!(client.receive().header("connection"), Some("close"));
    assert_eq!(client.rest(), "");
}

#[test]
fn a_backend_that_says_close_is_not_used_again() {
    let (pod, backend, _proxied) =
        with_backend(|_| "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned());
    let mut client = Client::new(pod.connect(VIP));
    for expected in 0..3 {
        assert_eq!(client.get("/").header("connection"), None);
        assert_eq!(backend.request().connection, expected);
    }
}

#[test]
fn a_pooled_connection_that_the_backend_closed_is_not_used() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let _proxied = served(&pod);
    let mut client = Client::new(pod.connect(VIP));
    for _ in 0..5 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut server = servers.recv().unwrap();
        server.write_all(ok("hello").as_bytes()).unwrap();
        assert_eq!(client.receive().body, "hello");
        drop(server);
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn long_bodies_pass_whole_in_both_directions() {
    const LENGTH: usize = 20 * 1024 * 1024;
    let (pod, backend, _proxied) = with_backend(|request| ok(&"x".repeat(request.body.len())));
    let mut client = Client::new(pod.connect(VIP));

    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n"));
    client.send(vec![b'x'; LENGTH]);

    assert_eq!(client.receive().body.len(), LENGTH);
    assert_eq!(backend.request().body.len(), LENGTH);
}

#[test]
fn a_response_streams_as_it_is_made() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let _proxied = served(&pod);
    let mut client = pod.connect(VIP);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut server = servers.recv().unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let mut seen = String::new();
    for event in ["one", "two", "three"] {
        server.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).unwrap();
        while !seen.ends_with(&format!("{event}\r\n")) {
            let mut bytes = [0; 1024];
            let n = client.read(&mut bytes).unwrap();
            seen.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
    }
}

#[test]
fn a_slow_reader_slows_the_backend_down() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let _proxied = served(&pod);
    let mut client = pod.connect(VIP);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut server = servers.recv().unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").unwrap();

    server.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = vec![0; 1024 * 1024];
    let taken = std::iter::from_fn(|| server.write_all(&piece).ok()).take(100).count();

    assert!(taken < 50, "the proxy took {taken} MiB that nobody reads");
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside(BACKEND));
    let _proxied = served(&pod);
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nearly");
    let mut server = servers.recv().unwrap();
    let mut request = vec![0; 4096];
    let n = server.read(&mut request).unwrap();
    let request = std::str::from_utf8(&request[..n]).unwrap();
    assert_eq!(support::http::header(request, "connection"), Some("upgrade"));
    assert_eq!(support::http::header(request, "upgrade"), Some("websocket"));

    server
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi")
        .unwrap();

    let answer = client.receive();
    assert_eq!(answer.status(), 101);
    assert_eq!((answer.header("connection"), answer.header("upgrade")), (Some("upgrade"), Some("websocket")));
    let mut early = [0; 5];
    server.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    drop(server);
    assert_eq!(client.rest(), "hi");
}

#[test]
fn another_upgrade_is_refused() {
    let pod = Pod::new();
    let _backend = says(pod.listen_outside(BACKEND), "hello");
    let _proxied = served(&pod);
    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n");
    assert_eq!(client.receive().status(), 403);
}
