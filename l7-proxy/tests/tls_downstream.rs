//! Mutual TLS of clients: which chain takes them, who they have to be, and what is known of them afterwards.

#![allow(clippy::unwrap_used, clippy::format_collect, reason = "helpers of tests fail the test")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::http_connection_manager::{ClientCertDetails, ForwardClientCert};
use orlop_plan::resource::listener::{
    DownstreamTransportSocket, FilterChain, NetworkFilter, TransportProtocol,
};
use orlop_plan::resource::matcher::{StringMatcher, StringPattern};
use orlop_plan::resource::rbac::{Action, Permission, Policy, Principal, Rbac};
use support::http::{backend, ok};
use support::http_plan::{all_to, http_chain, manager, route_configuration, virtual_host};
use support::plan::{Matching, Plan, listener, original_dst, tcp_chain};
use support::tcp::{is_reset, read_all, round_trip, serve_addresses, serve_echo};
use support::tls::{
    Authority, CLIENT, Issued, SERVER, SNI, TlsClient, connect_tls, downstream, refusal, with_identity,
};
use support::{CLIENT_IP, NAME, POD_IP, Pod, Proxied};

const CLUSTER: &str = "inbound|8080||";

/// Takes TLS of whoever is of the trust domain.
fn terminating(mut chain: FilterChain, alpn: &[&str]) -> FilterChain {
    chain.transport_socket = DownstreamTransportSocket::Tls(downstream(alpn));
    chain.on_transport(TransportProtocol::Tls)
}

fn strict() -> Vec<FilterChain> {
    vec![terminating(tcp_chain(CLUSTER), &["istio"]).on_port(8080)]
}

/// As istiod has it for a TCP port: Istio's own TLS is terminated, other TLS and plaintext pass.
fn permissive() -> Vec<FilterChain> {
    let port = |chain: FilterChain| chain.on_port(8080);
    vec![
        port(terminating(tcp_chain(CLUSTER), &["istio-peer-exchange", "istio"]).on_protocols(&["istio"])),
        port(tcp_chain(CLUSTER).on_transport(TransportProtocol::Tls)),
        port(tcp_chain(CLUSTER).on_transport(TransportProtocol::RawBuffer)),
    ]
}

/// A pod behind the proxy, and the mesh that it is of.
struct World {
    pod: Pod,
    mesh: Authority,
    client: Issued,
    proxied: Proxied,
}

fn plan(chains: Vec<FilterChain>) -> ProxyPlan {
    Plan::new().virtual_inbound(listener(chains)).cluster(original_dst(CLUSTER)).build()
}

impl World {
    fn new(chains: Vec<FilterChain>) -> Self {
        let (pod, mesh) = (Pod::new(), Authority::new());
        pod.capture_inbound(8080);
        let proxied = pod.proxied(with_identity(plan(chains), &mesh.issue(SERVER), &mesh));
        Self { client: mesh.issue(CLIENT), pod, mesh, proxied }
    }

    fn tcp(&self) -> TcpStream {
        self.pod.connect_from_outside(&at())
    }

    fn connect(&self, alpn: &[&str]) -> std::io::Result<TlsClient> {
        self.connect_as(Some(&self.client), alpn)
    }

    fn connect_as(&self, own: Option<&Issued>, alpn: &[&str]) -> std::io::Result<TlsClient> {
        connect_tls(self.tcp(), &self.mesh, own, alpn)
    }
}

fn at() -> String {
    format!("{POD_IP}:8080")
}

fn echoes(client: &mut TlsClient) -> bool {
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).is_ok() && back == *b"hello"
}

#[test]
fn the_application_gets_plaintext_from_its_true_client() {
    let world = World::new(strict());
    serve_addresses(world.pod.listen_inside(&at()));

    let mut client = world.connect(&["istio"]).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{CLIENT_IP} {POD_IP}:8080"), "and the end comes as close_notify");
}

#[test]
fn strict_takes_no_plaintext() {
    let world = World::new(strict());
    serve_echo(world.pod.listen_inside(&at()));

    let mut client = world.tcp();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(is_reset(&mut client));
    world.proxied.expect_refused("no_filter_chain", 1);
}

#[test]
fn permissive_terminates_istios_tls_and_passes_plaintext_and_other_tls() {
    let world = World::new(permissive());
    serve_echo(world.pod.listen_inside(&at()));

    assert!(echoes(&mut world.connect(&["istio"]).unwrap()));
    assert_eq!(round_trip(&mut world.tcp(), "plain\n"), "plain\n");
    // The application is no TLS server: the client gets its own hello back.
    assert!(world.connect(&["h2"]).is_err());
    assert_eq!(world.proxied.stats().refused.values().sum::<u64>(), 0);
}

#[test]
fn the_protocol_is_the_first_of_the_chains_that_the_client_offers_and_none_where_none_is_shared() {
    let world = World::new(vec![terminating(tcp_chain(CLUSTER), &["istio-peer-exchange", "istio", "h2"])]);
    serve_echo(world.pod.listen_inside(&at()));

    for (offered, chosen) in [
        (&["h2", "istio"][..], Some("istio")),
        (&["istio-peer-exchange", "h2"], Some("h2")),
        (&["istio-peer-exchange"], None),
        (&["another"], None),
        (&[], None),
    ] {
        let mut client = world.connect(offered).unwrap();
        assert_eq!(client.conn.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
        assert!(echoes(&mut client));
    }
}

/// What a client is told, and what is counted.
fn refused(own: impl FnOnce(&Authority) -> Option<Issued>, alert: &str, reason: &str) {
    let world = World::new(strict());
    serve_echo(world.pod.listen_inside(&at()));

    let own = own(&world.mesh);
    let said = refusal(world.connect_as(own.as_ref(), &["istio"]));
    assert!(said.contains(alert), "{said}");
    world.proxied.expect_refused(reason, 1);
    assert!(world.proxied.stats().clusters.is_empty(), "the application sees nothing of it");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    refused(|_| None, "CertificateRequired", "no_client_certificate");
}

#[test]
fn a_client_of_an_unknown_authority_is_refused() {
    refused(|_| Some(Authority::new().issue(CLIENT)), "UnknownCA", "client_certificate");
}

#[test]
fn a_client_whose_certificate_has_expired_is_refused() {
    refused(|mesh| Some(mesh.issue_until(CLIENT, 2021)), "CertificateExpired", "client_certificate");
}

#[test]
fn a_client_of_another_trust_domain_is_refused() {
    let another = "spiffe://example.org/ns/default/sa/client";
    refused(|mesh| Some(mesh.issue(another)), "CertificateUnknown", "client_name");
}

#[test]
fn a_trust_domain_is_not_known_by_its_beginning() {
    let another = "spiffe://cluster.local.example.org/ns/default/sa/client";
    refused(|mesh| Some(mesh.issue(another)), "CertificateUnknown", "client_name");
}

#[test]
fn what_is_no_handshake_is_told_so() {
    let world = World::new(vec![terminating(tcp_chain(CLUSTER), &[])]);
    // The record says handshake, and the message in it is none that begins one.
    let mut chain = tcp_chain(CLUSTER);
    chain.transport_socket = DownstreamTransportSocket::Tls(downstream(&[]));
    let plan = with_identity(plan(vec![chain]), &world.mesh.issue(SERVER), &world.mesh);
    world.proxied.proxy.update(NAME, Arc::new(plan), &Arc::default()).unwrap();

    for (n, bytes) in [(1, &b"GET / HTTP/1.1\r\n\r\n"[..]), (2, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")]
    {
        let mut client = world.tcp();
        client.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ended = client.read_to_end(&mut answer);
        assert_eq!(answer.first(), Some(&21), "an alert");
        world.proxied.expect_refused("downstream_tls_handshake", n);
    }
}

#[test]
fn a_client_that_stops_in_the_middle_of_the_handshake_is_not_waited_for() {
    let mut chain = tcp_chain(CLUSTER);
    chain.transport_socket = DownstreamTransportSocket::Tls(downstream(&[]));
    chain.transport_socket_connect_timeout = Some(Duration::from_millis(100));
    let world = World::new(vec![chain]);

    let mut client = world.tcp();
    client.write_all(b"\x16\x03\x01").unwrap();
    assert_eq!(read_all(&mut client).unwrap_or_default(), "");
    world.proxied.expect_refused("downstream_tls_timeout", 1);
}

#[test]
fn the_server_name_chooses_the_chain() {
    let mut chains = vec![tcp_chain(CLUSTER).on_transport(TransportProtocol::Tls)];
    chains.push(terminating(tcp_chain(CLUSTER), &[]).on_server_name(SNI));
    let world = World::new(chains);
    serve_echo(world.pod.listen_inside(&at()));

    assert!(echoes(&mut world.connect(&[]).unwrap()));
}

#[test]
fn without_a_secret_nobody_is_served_and_plaintext_goes_on() {
    let world = World::new(permissive());
    serve_echo(world.pod.listen_inside(&at()));
    world.proxied.proxy.update(NAME, Arc::new(plan(permissive())), &Arc::default()).unwrap();

    assert!(world.connect(&["istio"]).is_err());
    world.proxied.expect_refused("downstream_tls", 1);
    assert_eq!(round_trip(&mut world.tcp(), "plain\n"), "plain\n");
}

#[test]
fn a_new_certificate_is_shown_to_new_clients_and_the_others_go_on() {
    let world = World::new(strict());
    serve_echo(world.pod.listen_inside(&at()));
    let mut before = world.connect(&["istio"]).unwrap();
    let new = world.mesh.issue(SERVER);

    let plan = with_identity(plan(strict()), &new, &world.mesh);
    world.proxied.proxy.update(NAME, Arc::new(plan), &Arc::default()).unwrap();

    let mut after = world.connect(&["istio"]).unwrap();
    let shown = |client: &TlsClient| client.conn.peer_certificates().unwrap().first().cloned().unwrap();
    assert_eq!(shown(&after), new.certificate);
    assert_ne!(shown(&before), new.certificate);
    assert!(echoes(&mut before) && echoes(&mut after));
}

fn allows(identity: &str) -> Arc<Rbac> {
    let pattern = StringPattern::Exact(identity.to_owned());
    let name = StringMatcher { pattern, ignore_case: false };
    let policy = Policy {
        name: "who".to_owned(),
        permissions: vec![Permission::Any],
        principals: vec![Principal::Authenticated(Some(name))],
    };
    Arc::new(Rbac::new(Action::Allow, vec![policy]))
}

#[test]
fn a_policy_lets_in_the_identity_that_it_names_and_nobody_else() {
    let mut chains = permissive();
    for chain in &mut chains {
        chain.filters = vec![NetworkFilter::Rbac(allows(CLIENT))];
    }
    let world = World::new(chains);
    serve_echo(world.pod.listen_inside(&at()));

    assert!(echoes(&mut world.connect(&["istio"]).unwrap()));
    let another = world.mesh.issue("spiffe://cluster.local/ns/default/sa/another");
    let said = refusal(world.connect_as(Some(&another), &["istio"]));
    assert!(said.contains("reset"), "{said}");
    let mut plain = world.tcp();
    let _written = plain.write_all(b"hello\n");
    assert!(is_reset(&mut plain), "plaintext is nobody");
    world.proxied.expect_refused("policy", 2);
}

#[test]
fn a_policy_that_changes_closes_connections_that_it_denies_and_leaves_the_others() {
    let allow = |identity| {
        let mut chains = permissive();
        for chain in &mut chains {
            chain.filters = vec![NetworkFilter::Rbac(allows(identity))];
        }
        chains
    };
    let another = "spiffe://cluster.local/ns/default/sa/another";
    let world = World::new(allow(CLIENT));
    serve_echo(world.pod.listen_inside(&at()));
    let own = world.mesh.issue(SERVER);
    let update = |chains| {
        let plan = with_identity(plan(chains), &own, &world.mesh);
        world.proxied.proxy.update(NAME, Arc::new(plan), &Arc::default()).unwrap();
    };
    let mut client = world.connect(&["istio"]).unwrap();
    assert!(echoes(&mut client));

    update(allow(CLIENT));
    assert!(echoes(&mut client), "the policy is a new one and lets it in");
    let changed = Instant::now();
    update(allow(another));
    let mut end = [0; 1];
    assert_eq!(client.read(&mut end).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(changed.elapsed() < Duration::from_millis(300), "at once: {:?}", changed.elapsed());
    world.proxied.expect_refused("policy", 1);
}

#[test]
fn a_request_says_who_sent_it() {
    let mut manager = manager(route_configuration(vec![virtual_host(all_to(CLUSTER))]));
    manager.forward_client_cert = ForwardClientCert::AppendForward;
    manager.client_cert_details = ClientCertDetails { subject: true, dns: true, uri: true };
    let world = World::new(vec![terminating(http_chain(manager), &["istio-http/1.1"])]);
    let application = backend(world.pod.listen_inside(&at()), |_| ok("hello"));

    let mut client = world.connect(&["istio-http/1.1"]).unwrap();
    let request = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: By=one\r\nconnection: close\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let request = application.request();
    let digest = ring::digest::digest(&ring::digest::SHA256, &world.client.certificate);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let subject = "Subject=\"CN=rcgen self signed cert\"";
    assert_eq!(
        request.header("x-forwarded-client-cert"),
        Some(&*format!("By=one,By={SERVER};Hash={digest};{subject};URI={CLIENT}"))
    );
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
}
