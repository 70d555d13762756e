//! The choice of a filter chain by what the client says first, and by what it does not say.

#![expect(clippy::unwrap_used, reason = "a test bed that cannot be built fails the test")]

mod support;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use orlop_plan::resource::listener::{DownstreamTransportSocket, FilterChain, TransportProtocol};
use support::plan::{Matching, Plan, listener, tcp_chain, tcp_listener};
use support::tcp::{is_reset, read_all, serve_name};
use support::{Pod, Proxied};

const VIP: &str = "10.96.0.1:443";

/// A TLS 1.2 hello for `a.b`, offering `istio`.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x47\x01\x00\x00\x43\x03\x03\
    0123456789abcdef0123456789abcdef\x00\x00\x02\x13\x01\x01\x00\
    \x00\x18\x00\x00\x00\x08\x00\x06\x00\x00\x03a.b\x00\x10\x00\x08\x00\x06\x05istio";

/// Servers that say how their chain was reached.
fn plan(pod: &Pod, chains: Vec<FilterChain>) -> (Plan, orlop_plan::resource::listener::Listener) {
    let mut plan = Plan::new();
    for (port, name) in (8081..).zip(["raw", "http", "tls"]) {
        let server = serve_name(pod.listen_outside(&format!("10.77.0.2:{port}")), name);
        plan = plan.cluster_at(name, &[server]);
    }
    (plan, listener(chains))
}

fn by_protocol() -> Vec<FilterChain> {
    vec![
        tcp_chain("raw"),
        tcp_chain("http").on_protocols(&["http/1.1", "h2c"]),
        tcp_chain("tls").on_transport(TransportProtocol::Tls).on_protocols(&["istio"]).on_server_name("a.b"),
    ]
}

fn served(pod: &Pod, chains: Vec<FilterChain>) -> Proxied {
    let (plan, listener) = plan(pod, chains);
    pod.proxied(plan.outbound(VIP, listener).build())
}

/// What answers to these first bytes, sent one by one.
fn answer_to(pod: &Pod, bytes: &[u8]) -> String {
    let mut client = pod.connect(VIP);
    client.set_nodelay(true).unwrap();
    // Writing fails once the server has ended, and whoever meets a reset first is the only one to be told of it.
    let written = bytes.iter().try_for_each(|byte| client.write_all(&[*byte]));
    match read_all(&mut client) {
        Ok(answer) if answer.is_empty() => written.map_or_else(|error| error.to_string(), |()| answer),
        answer => answer.unwrap_or_else(|error| error.to_string()),
    }
}

#[test]
fn http_is_told_from_tls_and_from_everything_else() {
    let pod = Pod::new();
    let _proxied = served(&pod, by_protocol());

    assert_eq!(answer_to(&pod, b"GET / HTTP/1.1\r\n"), "http");
    assert_eq!(answer_to(&pod, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "http");
    assert_eq!(answer_to(&pod, b"GET / HTTP/1.0\r\n"), "raw", "not among the chain's protocols");
    assert_eq!(answer_to(&pod, CLIENT_HELLO), "tls");
    assert_eq!(answer_to(&pod, b"\x16\x03\x01junk"), "raw");
    assert_eq!(answer_to(&pod, b"*1\r\n"), "raw");
}

#[test]
fn a_server_that_speaks_first_is_heard_where_no_chain_asks_for_a_protocol() {
    let pod = Pod::new();
    let (plan, _) = plan(&pod, Vec::new());
    let chains = vec![tcp_chain("raw").on_port(443), tcp_chain("http").on_port(80).on_protocols(&["h2c"])];
    let _proxied = pod.proxied(plan.outbound(VIP, listener(chains)).build());

    assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), "raw");
}

#[test]
fn a_silent_client_goes_on_after_the_timeout_where_the_listener_says_so() {
    let pod = Pod::new();
    let (plan, mut listener) = plan(&pod, by_protocol());
    listener.listener_filters_timeout = Some(Duration::from_millis(100));
    listener.continue_on_listener_filters_timeout = true;
    let _proxied = pod.proxied(plan.outbound(VIP, listener).build());

    assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), "raw");
}

#[test]
fn a_silent_client_is_refused_after_the_timeout_otherwise() {
    let pod = Pod::new();
    let (plan, mut listener) = plan(&pod, by_protocol());
    listener.listener_filters_timeout = Some(Duration::from_millis(100));
    let proxied = pod.proxied(plan.outbound(VIP, listener).build());

    assert!(pod.is_reset(VIP));
    proxied.expect_refused("listener_filter_timeout", 1);
}

#[test]
fn a_request_line_that_does_not_end_is_refused() {
    let pod = Pod::new();
    let proxied = served(&pod, by_protocol());
    let mut client = pod.connect(VIP);

    client.write_all(b"GET /").unwrap();
    // The rest may meet the reset.
    let _written = client.write_all(&vec![b'a'; 64 * 1024]);

    proxied.expect_refused("listener_filter_overflow", 1);
}

#[test]
fn a_client_that_leaves_without_a_word_reaches_nobody() {
    let pod = Pod::new();
    let proxied = served(&pod, by_protocol());

    drop(pod.connect(VIP));

    proxied.expect_flag("DC", 1);
    assert!(proxied.stats().clusters.is_empty());
}

#[test]
fn a_connection_that_no_chain_takes_is_refused() {
    let pod = Pod::new();
    let proxied = served(&pod, vec![tcp_chain("http").on_protocols(&["http/1.1"])]);

    assert!(answer_to(&pod, b"\0\0\0\0").contains("reset"));
    proxied.expect_flag("NR", 1);
    proxied.expect_refused("no_filter_chain", 1);
}

#[test]
fn a_chain_that_terminates_tls_is_refused_and_never_served_in_plaintext() {
    let pod = Pod::new();
    let mut terminates = tcp_chain("tls").on_transport(TransportProtocol::Tls);
    terminates.transport_socket = DownstreamTransportSocket::Tls(Arc::default());
    let proxied = served(&pod, vec![tcp_chain("raw"), terminates]);

    assert!(answer_to(&pod, CLIENT_HELLO).contains("reset"));
    proxied.expect_refused("downstream_tls", 1);
    assert_eq!(answer_to(&pod, b"plain"), "raw");
}

#[test]
fn a_connection_without_any_listener_is_refused() {
    let pod = Pod::new();
    let proxied = pod.proxied(Plan::new().build());

    assert!(pod.is_reset(VIP));
    proxied.expect_refused("no_filter_chain", 1);
}

#[test]
fn dialling_the_proxys_own_listener_does_not_loop() {
    let pod = Pod::new();
    let plan = Plan::new()
        .virtual_outbound(tcp_listener("PassthroughCluster"))
        .cluster(support::plan::original_dst("PassthroughCluster"));
    let proxied = pod.proxied(plan.build());

    for port in [15001, 15006] {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let client = pod.netns.run(|| std::net::TcpStream::connect::<std::net::SocketAddr>(address));
        assert!(is_reset(&mut client.unwrap().unwrap()));
    }
    proxied.expect_refused("own_listener", 2);
    assert!(proxied.stats().clusters.is_empty());
}
