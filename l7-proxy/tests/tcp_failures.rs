//! Connections that the TCP proxy cannot serve: each ends by a reset and is counted by its reason.

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use orlop_plan::resource::cluster::{Cluster, UpstreamTransportSocket};
use orlop_plan::resource::endpoint::{EndpointAbout, HealthStatus, LbEndpoint};
use orlop_plan::resource::tcp_proxy::TcpClusterSpecifier;
use support::plan::{Plan, chain, eds, endpoint, listener, tcp_listener, tcp_proxy};
use support::tcp::{accepted, read_all, serve_echo, serve_name};
use support::tls::{SERVER, upstream};
use support::{Pod, Proxied};

const VIP: &str = "10.96.0.1:80";

fn served(pod: &Pod, cluster: Cluster, endpoints: &[LbEndpoint]) -> Proxied {
    pod.proxied(Plan::new().outbound(VIP, tcp_listener("backend")).cluster_with(cluster, endpoints).build())
}

fn live_endpoint(pod: &Pod) -> LbEndpoint {
    endpoint(serve_name(pod.listen_outside("10.77.0.2:8080"), "plaintext"))
}

#[test]
fn an_endpoint_that_refuses() {
    let pod = Pod::new();
    let proxied = served(&pod, eds("backend"), &[endpoint("10.77.0.2:1".parse().unwrap())]);

    assert!(pod.is_reset(VIP));
    proxied.expect_flag("UF", 1);
    assert_eq!(proxied.flag("URX"), 1);
    assert_eq!(proxied.stats().clusters["backend"].connect_failures, 1);
}

#[test]
fn an_endpoint_that_does_not_answer_within_connect_timeout() {
    let pod = Pod::new();
    // On the pod's link, with nobody there.
    let silent = endpoint("10.77.0.99:80".parse().unwrap());
    let cluster = Cluster { connect_timeout: Duration::from_millis(200), ..eds("backend") };
    let proxied = served(&pod, cluster, &[silent]);

    assert!(pod.is_reset(VIP));
    proxied.expect_flag("UF", 1);
}

#[test]
fn another_attempt_goes_to_another_endpoint() {
    let pod = Pod::new();
    let live = serve_name(pod.listen_outside("10.77.0.2:8080"), "live");
    let mut config = tcp_proxy(TcpClusterSpecifier::Cluster("backend".into()));
    config.max_connect_attempts = 2;
    let plan = Plan::new()
        .outbound(VIP, listener(vec![chain(config)]))
        .cluster_at("backend", &["10.77.0.2:1".parse().unwrap(), live]);
    let proxied = pod.proxied(plan.build());

    for _ in 0..4 {
        assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), "live");
    }
    assert_eq!(proxied.flag("UF"), 0);
    assert!(proxied.stats().clusters["backend"].connect_failures >= 1);
}

#[test]
fn an_endpoint_is_reached_by_the_address_of_its_that_answers() {
    for first in ["10.77.0.2:1", "10.77.0.99:80"] {
        let pod = Pod::new();
        let live = serve_name(pod.listen_outside("10.77.0.2:8080"), "live");
        let about = EndpointAbout { additional_addresses: vec![live], ..EndpointAbout::default() };
        let both = LbEndpoint { about: Arc::new(about), ..endpoint(first.parse().unwrap()) };
        let proxied = served(&pod, eds("backend"), &[both]);

        assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), "live", "{first} does not answer");
        assert_eq!(proxied.stats().clusters["backend"].connect_failures, 0);
    }
}

#[test]
fn a_cluster_without_a_healthy_endpoint() {
    let pod = Pod::new();
    let unhealthy = LbEndpoint { health: HealthStatus::Unhealthy, ..live_endpoint(&pod) };
    let cluster = Cluster { healthy_panic_threshold: 0, ..eds("backend") };
    let proxied = served(&pod, cluster, &[unhealthy]);

    assert!(pod.is_reset(VIP));
    proxied.expect_flag("UH", 1);
}

#[test]
fn a_cluster_that_is_not_known() {
    let pod = Pod::new();
    let proxied = pod.proxied(Plan::new().outbound(VIP, tcp_listener("elsewhere")).build());

    assert!(pod.is_reset(VIP));
    proxied.expect_flag("NC", 1);
}

#[test]
fn the_connection_beyond_max_connections() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside("10.77.0.2:8080"));
    let mut cluster = eds("backend");
    cluster.circuit_breakers.max_connections = 1;
    let proxied = served(&pod, cluster, &[endpoint("10.77.0.2:8080".parse().unwrap())]);
    let first = pod.connect(VIP);
    let server = servers.recv().unwrap();

    assert!(pod.is_reset(VIP));
    proxied.expect_flag("UO", 1);

    drop((first, server));
    support::eventually("the first is closed", || proxied.stats().active == 0);
    let _second = pod.connect(VIP);
    servers.recv().unwrap();
}

#[test]
fn a_hop_that_owes_tls_gets_no_plaintext() {
    let pod = Pod::new();
    let cluster =
        Cluster { transport_socket: UpstreamTransportSocket::Tls(upstream(SERVER)), ..eds("backend") };
    let proxied = served(&pod, cluster, &[live_endpoint(&pod)]);

    assert!(pod.is_reset(VIP));
    proxied.expect_refused("upstream_tls", 1);
    assert_eq!(proxied.stats().clusters["backend"].connections, 0);
}

#[test]
fn an_endpoint_whose_metadata_asks_for_tls_gets_no_plaintext_and_its_neighbour_does() {
    let pod = Pod::new();
    let mode = |value: &str| {
        let pair = ("tlsMode".to_owned(), value.to_owned());
        Arc::new(EndpointAbout { transport_socket_match: vec![pair], ..EndpointAbout::default() })
    };
    let strict =
        LbEndpoint { about: mode("istio"), ..endpoint(serve_echo(pod.listen_outside("10.77.0.2:8081"))) };
    let plain =
        LbEndpoint { about: mode("disabled"), ..endpoint(serve_echo(pod.listen_outside("10.77.0.2:8082"))) };
    let by_metadata = UpstreamTransportSocket::TlsForEndpointsWith {
        key: "tlsMode".to_owned(),
        value: "istio".to_owned(),
        context: upstream(SERVER),
        others: None,
    };
    let cluster = Cluster { transport_socket: by_metadata, ..eds("backend") };
    let proxied = served(&pod, cluster, &[strict, plain]);

    // The reset of a refused one may come before its connect has returned.
    let mut clients: Vec<_> = (0..4).filter_map(|_| pod.try_connect(VIP).ok()).collect();

    let served = clients.iter_mut().filter_map(|client| {
        client.write_all(b"x").ok()?;
        client.read_exact(&mut [0]).ok()
    });
    assert_eq!(served.count(), 2);
    proxied.expect_refused("upstream_tls", 2);
}
