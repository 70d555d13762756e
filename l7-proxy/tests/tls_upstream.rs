//! Mutual TLS to endpoints: who they have to be, what they are shown, and that nothing goes there in plaintext.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail the test")]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, mpsc};

use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::cluster::{Cluster, UpstreamProtocol, UpstreamTransportSocket};
use orlop_plan::resource::http_connection_manager::{
    AlpnOverride, AlpnProtocol, HttpConnectionManager, HttpFilter,
};
use support::http::Client;
use support::http_plan::{all_to, http_chain, manager, route_configuration, virtual_host};
use support::plan::{Plan, eds, endpoint, listener, tcp_listener};
use support::tcp::{accepted, read_all, round_trip, serve_echo};
use support::tls::{Authority, CLIENT, Issued, SERVER, SNI, Seen, echo, serve_tls, upstream, with_identity};
use support::{NAME, Pod, Proxied};

const VIP: &str = "10.96.0.1:8080";
const BACKEND: &str = "10.77.0.2:8080";

fn cluster() -> Cluster {
    Cluster { transport_socket: UpstreamTransportSocket::Tls(upstream(SERVER)), ..eds("backend") }
}

fn tcp_plan() -> ProxyPlan {
    let endpoints = [endpoint(BACKEND.parse().unwrap())];
    Plan::new().outbound(VIP, tcp_listener("backend")).cluster_with(cluster(), &endpoints).build()
}

fn server(pod: &Pod, own: &Issued, trusted: &Authority) -> mpsc::Receiver<Seen> {
    serve_tls(pod.listen_outside(BACKEND), own, trusted, &["istio"], echo)
}

#[test]
fn an_endpoint_sees_the_workloads_certificate_the_sni_and_the_alpn_of_the_context() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let own = mesh.issue(CLIENT);
    let seen = server(&pod, &mesh.issue(SERVER), &mesh);
    let proxied = pod.proxied(with_identity(tcp_plan(), &own, &mesh));

    let mut client = pod.connect(VIP);
    assert_eq!(round_trip(&mut client, "hello"), "hello");

    let seen = seen.recv().unwrap();
    assert_eq!(seen.certificate.as_ref(), Some(&own.certificate));
    assert_eq!((seen.sni.as_deref(), seen.alpn.as_deref()), (Some(SNI), Some("istio")));
    assert_eq!(proxied.stats().clusters["backend"].connections, 1);
}

#[test]
fn what_is_longer_than_every_buffer_goes_both_ways_and_ends_by_halves() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let _seen = server(&pod, &mesh.issue(SERVER), &mesh);
    let _proxied = pod.proxied(with_identity(tcp_plan(), &mesh.issue(CLIENT), &mesh));

    let mut client = pod.connect(VIP);
    let mut writer = client.try_clone().unwrap();
    let text = "0123456789abcdef".repeat(512 * 1024);
    let sent = text.clone();
    let sending = std::thread::spawn(move || {
        writer.write_all(sent.as_bytes()).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert!(read_all(&mut client).unwrap() == text, "every byte comes back, and then the end");
    sending.join().unwrap();
}

#[test]
fn sessions_are_resumed() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let seen = server(&pod, &mesh.issue(SERVER), &mesh);
    let _proxied = pod.proxied(with_identity(tcp_plan(), &mesh.issue(CLIENT), &mesh));

    for resumed in [false, true] {
        assert_eq!(round_trip(&mut pod.connect(VIP), "hello"), "hello");
        assert_eq!(seen.recv().unwrap().resumed, resumed);
    }
}

/// What is counted when such a server is connected to.
fn refused(server_certificate: impl FnOnce(&Authority) -> Issued, reason: &str) {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let _seen = server(&pod, &server_certificate(&mesh), &mesh);
    let proxied = pod.proxied(with_identity(tcp_plan(), &mesh.issue(CLIENT), &mesh));

    assert!(pod.is_reset(VIP));
    proxied.expect_refused(reason, 1);
    proxied.expect_flag("UF", 1);
    assert_eq!(proxied.stats().clusters["backend"].connections, 0);
}

#[test]
fn an_endpoint_of_another_identity_is_refused() {
    refused(|mesh| mesh.issue("spiffe://cluster.local/ns/default/sa/another"), "upstream_tls_name");
}

#[test]
fn an_endpoint_of_an_unknown_authority_is_refused() {
    refused(|_| Authority::new().issue(SERVER), "upstream_tls_certificate");
}

#[test]
fn an_endpoint_whose_certificate_has_expired_is_refused() {
    refused(|mesh| mesh.issue_until(SERVER, 2021), "upstream_tls_certificate");
}

#[test]
fn an_endpoint_that_speaks_no_tls_gets_nothing_but_a_handshake() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    serve_echo(pod.listen_outside(BACKEND));
    let proxied = pod.proxied(with_identity(tcp_plan(), &mesh.issue(CLIENT), &mesh));

    assert!(pod.is_reset(VIP));
    proxied.expect_refused("upstream_tls_handshake", 1);
}

#[test]
fn an_endpoint_that_never_answers_the_handshake_times_out() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let servers = accepted(pod.listen_outside(BACKEND));
    let proxied = pod.proxied(with_identity(tcp_plan(), &mesh.issue(CLIENT), &mesh));

    assert!(pod.is_reset(VIP));
    proxied.expect_refused("upstream_tls_timeout", 1);
    let mut first = [0; 1];
    servers.recv().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(first, [22], "a handshake record");
}

#[test]
fn without_a_secret_nothing_is_sent_and_with_it_everything_goes_on() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let _seen = server(&pod, &mesh.issue(SERVER), &mesh);
    let proxied = pod.proxied(tcp_plan());

    assert!(pod.is_reset(VIP));
    proxied.expect_refused("upstream_tls", 1);
    assert_eq!(proxied.stats().clusters["backend"].connect_failures, 0, "nobody was dialled");

    let plan = with_identity(tcp_plan(), &mesh.issue(CLIENT), &mesh);
    proxied.proxy.update(NAME, Arc::new(plan), &Arc::default()).unwrap();
    assert_eq!(round_trip(&mut pod.connect(VIP), "hello"), "hello");
}

#[test]
fn a_new_certificate_is_shown_on_new_connections_and_the_old_ones_go_on() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let (old, new) = (mesh.issue(CLIENT), mesh.issue(CLIENT));
    let seen = server(&pod, &mesh.issue(SERVER), &mesh);
    let plan = tcp_plan();
    let proxied = pod.proxied(with_identity(plan.clone(), &old, &mesh));
    let mut before = pod.connect(VIP);
    assert_eq!(round_trip(&mut before, "one"), "one");
    assert_eq!(seen.recv().unwrap().certificate.as_ref(), Some(&old.certificate));

    proxied.proxy.update(NAME, Arc::new(with_identity(plan, &new, &mesh)), &Arc::default()).unwrap();
    assert_eq!(round_trip(&mut pod.connect(VIP), "two"), "two");
    let after = seen.recv().unwrap();
    assert_eq!(after.certificate.as_ref(), Some(&new.certificate));
    assert!(!after.resumed, "a session is not resumed with another certificate");
    assert_eq!(round_trip(&mut before, "three"), "three");
}

#[test]
fn of_two_pods_that_share_the_proxy_each_shows_its_own_certificate() {
    let (one, other, mesh) = (Pod::new(), Pod::new(), Authority::new());
    let identities =
        ["one", "other"].map(|name| mesh.issue(&format!("spiffe://cluster.local/ns/a/sa/{name}")));
    let own = mesh.issue(SERVER);
    let plans = identities.each_ref().map(|identity| with_identity(tcp_plan(), identity, &mesh));
    let [first, second] = plans;
    let proxied = one.proxied(first);
    proxied.proxy.enrol("default/other-0", other.network(), Arc::new(second)).unwrap();

    for (pod, identity) in [(&one, &identities[0]), (&other, &identities[1])] {
        let seen = server(pod, &own, &mesh);
        for _ in 0..3 {
            assert_eq!(round_trip(&mut pod.connect(VIP), "hello"), "hello");
            assert_eq!(seen.recv().unwrap().certificate.as_ref(), Some(&identity.certificate));
        }
    }
}

/// A connection manager with Istio's filter for the ALPN.
fn http_manager() -> HttpConnectionManager {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let alpn = vec![
        AlpnOverride {
            upstream_protocol: AlpnProtocol::Http11,
            protocols: list(&["istio-http/1.1", "istio", "http/1.1"]),
        },
        AlpnOverride {
            upstream_protocol: AlpnProtocol::Http2,
            protocols: list(&["istio-h2", "istio", "h2"]),
        },
    ];
    let mut manager = manager(route_configuration(vec![virtual_host(all_to("backend"))]));
    manager.http_filters.insert(0, HttpFilter::Alpn(alpn));
    manager
}

fn http(pod: &Pod, cluster: Cluster, own: &Issued, mesh: &Authority) -> Proxied {
    let plan = Plan::new()
        .outbound(VIP, listener(vec![http_chain(http_manager())]))
        .cluster_with(cluster, &[endpoint(BACKEND.parse().unwrap())]);
    pod.proxied(with_identity(plan.build(), own, mesh))
}

#[test]
fn requests_share_a_connection_and_offer_the_alpn_of_istios_filter() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let answer = |mut tls: rustls::StreamOwned<rustls::ServerConnection, std::net::TcpStream>| {
        let mut buffer = [0; 4096];
        while let Ok(1..) = tls.read(&mut buffer) {
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            tls.flush().unwrap();
        }
    };
    let listening = pod.listen_outside(BACKEND);
    let seen = serve_tls(listening, &mesh.issue(SERVER), &mesh, &["istio", "istio-http/1.1"], answer);
    let proxied = http(&pod, cluster(), &mesh.issue(CLIENT), &mesh);

    for _ in 0..3 {
        let mut client = Client::new(pod.connect(VIP));
        client.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
        assert_eq!(client.receive().body, "ok");
    }
    assert_eq!(seen.recv().unwrap().alpn.as_deref(), Some("istio"), "the server's first of those offered");
    assert_eq!(proxied.stats().clusters["backend"].connections, 1);
}

#[test]
fn http2_offers_its_own() {
    let (pod, mesh) = (Pod::new(), Authority::new());
    let listening = pod.listen_outside(BACKEND);
    let seen = serve_tls(listening, &mesh.issue(SERVER), &mesh, &["istio-h2", "istio-http/1.1"], drop);
    let cluster = Cluster { protocol: UpstreamProtocol::Http2, ..cluster() };
    let _proxied = http(&pod, cluster, &mesh.issue(CLIENT), &mesh);

    let mut client = Client::new(pod.connect(VIP));
    client.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(client.receive().status(), 503, "the server closes");
    assert_eq!(seen.recv().unwrap().alpn.as_deref(), Some("istio-h2"));
}
