//! Connections to the pod: through the proxy to the application, which sees its true client.

mod support;

use std::collections::HashSet;
use std::io::Write;

use support::plan::{Matching, Plan, listener, original_dst, tcp_chain};
use support::tcp::{accepted, is_reset, read_all, reset, round_trip, serve_addresses, serve_echo};
use support::{CLIENT_IP, POD_IP, Pod, Proxied};

/// `virtualInbound` as istiod makes it for a TCP port: the application at its own address.
fn served(pod: &Pod) -> Proxied {
    pod.capture_inbound(8080);
    let cluster = original_dst("inbound|8080||");
    let listener = listener(vec![tcp_chain("inbound|8080||").on_port(8080)]);
    pod.proxied(Plan::new().virtual_inbound(listener).cluster(cluster).build())
}

#[test]
fn the_application_sees_its_true_client_and_the_client_sees_the_pod() {
    let pod = Pod::new();
    serve_addresses(pod.listen_inside(&format!("{POD_IP}:8080")));
    let proxied = served(&pod);

    let mut client = pod.connect_from_outside(&format!("{POD_IP}:8080"));

    assert_eq!(client.peer_addr().unwrap().to_string(), format!("{POD_IP}:8080"));
    assert_eq!(read_all(&mut client).unwrap(), format!("{CLIENT_IP} {POD_IP}:8080"));
    assert_eq!(proxied.stats().accepted_inbound, 1);
    assert_eq!(proxied.stats().accepted_outbound, 0, "the proxy's own connection is not captured again");
}

#[test]
fn many_connections_of_one_client_at_once_have_ports_of_their_own() {
    let pod = Pod::new();
    serve_echo(pod.listen_inside(&format!("{POD_IP}:8080")));
    let proxied = served(&pod);

    let mut clients: Vec<_> = (0..300).map(|_| pod.connect_from_outside(&format!("{POD_IP}:8080"))).collect();

    for (i, client) in clients.iter_mut().enumerate() {
        let text = format!("connection {i}");
        assert_eq!(round_trip(client, &text), text);
    }
    assert_eq!(proxied.stats().clusters["inbound|8080||"].connect_failures, 0);
}

#[test]
fn connections_after_one_another_find_a_free_port() {
    let pod = Pod::new();
    let applications = accepted(pod.listen_inside(&format!("{POD_IP}:8080")));
    let _proxied = served(&pod);

    let mut ports = HashSet::new();
    for _ in 0..200 {
        let client = pod.connect_from_outside(&format!("{POD_IP}:8080"));
        ports.insert(applications.recv().unwrap().peer_addr().unwrap().port());
        drop(client);
    }
    assert_eq!(ports.len(), 200, "a port is not used again at once");
}

#[test]
fn a_reset_of_the_application_reaches_the_client_and_the_other_way_round() {
    let pod = Pod::new();
    let applications = accepted(pod.listen_inside(&format!("{POD_IP}:8080")));
    let _proxied = served(&pod);

    let mut client = pod.connect_from_outside(&format!("{POD_IP}:8080"));
    reset(applications.recv().unwrap());
    assert!(is_reset(&mut client));

    let mut client = pod.connect_from_outside(&format!("{POD_IP}:8080"));
    client.write_all(b"x").unwrap();
    let mut application = applications.recv().unwrap();
    reset(client);
    assert!(is_reset(&mut application));
}

#[test]
fn a_port_that_no_application_listens_on_is_reset() {
    let pod = Pod::new();
    let proxied = served(&pod);

    assert!(is_reset(&mut pod.connect_from_outside(&format!("{POD_IP}:8080"))));
    proxied.expect_flag("UF", 1);
}
