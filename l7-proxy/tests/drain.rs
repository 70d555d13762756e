//! Releasing a pod, and shutting down, with connections open.

mod support;

use std::io::Write;
use std::time::{Duration, Instant};

use support::plan::{Matching, Plan, listener, tcp_chain, tcp_listener};
use support::tcp::{accepted, is_reset, read_all, round_trip, serve_echo};
use support::{NAME, Pod, Proxied, block_on};

const VIP: &str = "10.96.0.1:80";

fn echoing(pod: &Pod) -> Proxied {
    let server = serve_echo(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new().outbound(VIP, tcp_listener("backend")).cluster_at("backend", &[server]);
    pod.proxied(plan.build())
}

#[test]
fn an_open_connection_may_finish_before_the_deadline() {
    let pod = Pod::new();
    let proxied = echoing(&pod);
    let mut client = pod.connect(VIP);
    assert_eq!(round_trip(&mut client, "before"), "before");

    let drained = proxied.proxy.release(NAME, Duration::from_secs(30)).unwrap();
    assert_eq!(round_trip(&mut client, "after"), "after");
    drop(client);

    let begun = Instant::now();
    block_on(drained);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_connection_that_outlives_the_deadline_is_reset_on_both_sides() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new()
        .outbound(VIP, tcp_listener("backend"))
        .cluster_at("backend", &["10.77.0.2:8080".parse().unwrap()]);
    let proxied = pod.proxied(plan.build());
    let mut client = pod.connect(VIP);
    client.write_all(b"half a message").unwrap();
    let mut server = servers.recv().unwrap();

    block_on(proxied.proxy.release(NAME, Duration::from_millis(100)).unwrap());

    assert!(is_reset(&mut client));
    assert!(is_reset(&mut server));
}

#[test]
fn a_connection_that_said_nothing_yet_is_ended_at_once() {
    let pod = Pod::new();
    let plan = Plan::new().outbound(VIP, listener(vec![tcp_chain("x").on_protocols(&["h2c"])]));
    let proxied = pod.proxied(plan.build());
    let mut client = pod.connect(VIP);
    support::eventually("accepted", || proxied.stats().active == 1);

    let begun = Instant::now();
    block_on(proxied.proxy.release(NAME, Duration::from_secs(30)).unwrap());

    assert_eq!(read_all(&mut client).unwrap(), "");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn shutting_down_waits_for_the_connections_of_every_pod() {
    let pods = [Pod::new(), Pod::new()];
    let proxied = echoing(&pods[0]);
    let server = serve_echo(pods[1].listen_outside("10.77.0.2:8080"));
    let plan = Plan::new().outbound(VIP, tcp_listener("backend")).cluster_at("backend", &[server]);
    proxied.proxy.enrol("other", pods[1].network(), plan.build().into()).unwrap();
    let mut clients = pods.each_ref().map(|pod| pod.connect(VIP));
    for client in &mut clients {
        round_trip(client, "open");
    }
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        clients.each_mut().map(|client| round_trip(client, "still served"))
    });

    block_on(proxied.proxy.shutdown(Duration::from_secs(30)));

    assert_eq!(leaving.join().unwrap(), ["still served"; 2]);
}
