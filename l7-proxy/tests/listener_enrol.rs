//! Enrolling and releasing pods: whose listener it is, and what is said when it cannot be opened.

#![expect(clippy::unwrap_used, reason = "a test bed that cannot be built fails the test")]

mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use orlop_l7_proxy::{Proxy, ProxyConfig, ProxyError};
use support::plan::{Plan, tcp_listener};
use support::tcp::{read_all, serve_name};
use support::{MARK, NAME, Pod, block_on};

const VIP: &str = "10.96.0.1:80";

fn proxy() -> Proxy {
    Proxy::start(ProxyConfig { workers: 1, mark: MARK }).unwrap()
}

#[test]
fn a_taken_address_is_named_with_its_namespace_and_nothing_stays_open() {
    let pod = Pod::new();
    let sidecar = pod.listen_inside("127.0.0.1:15006");
    let proxy = proxy();

    let error = proxy.enrol(NAME, pod.network(), Arc::default()).unwrap_err();

    assert!(matches!(error, ProxyError::AddressTaken { .. }));
    let expected = format!("127.0.0.1:15006 in {}", pod.netns.path().display());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(proxy.stats(NAME).is_none());

    drop(sidecar);
    // A child that another test is just starting has a copy of the socket until it runs its own program.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = proxy.enrol(NAME, pod.network(), Arc::default()) {
        assert!(Instant::now() < deadline, "{error}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_name_is_enrolled_once() {
    let (pod, other) = (Pod::new(), Pod::new());
    let proxy = proxy();
    proxy.enrol(NAME, pod.network(), Arc::default()).unwrap();

    let again = proxy.enrol(NAME, other.network(), Arc::default());

    assert!(matches!(again, Err(ProxyError::AlreadyEnrolled { .. })));
    other.listen_inside("127.0.0.1:15001");
}

#[test]
fn a_released_pod_refuses_at_once_and_can_be_enrolled_again() {
    let pod = Pod::new();
    let proxy = proxy();
    for _ in 0..3 {
        let listeners = proxy.enrol(NAME, pod.network(), Arc::default()).unwrap();
        let drained = proxy.release(NAME, Duration::from_secs(1)).unwrap();

        // The caller's descriptor is no reason for the kernel to accept.
        assert!(pod.try_connect(VIP).is_err());
        assert!(TcpListener::accept(&listeners.outbound).is_err());
        block_on(drained);
    }
    assert!(matches!(
        proxy.update(NAME, Arc::default(), &Arc::default()),
        Err(ProxyError::NotEnrolled { .. })
    ));
    assert!(matches!(proxy.release(NAME, Duration::ZERO).err(), Some(ProxyError::NotEnrolled { .. })));
}

#[test]
fn pods_with_the_same_addresses_are_served_apart() {
    let pods = [("one", Pod::new()), ("two", Pod::new())];
    let proxy = proxy();
    for (name, pod) in &pods {
        let server = serve_name(pod.listen_outside("10.77.0.2:8080"), name);
        let plan = Plan::new().outbound(VIP, tcp_listener("backend")).cluster_at("backend", &[server]);
        proxy.enrol(name, pod.network(), Arc::new(plan.build())).unwrap();
    }
    for (name, pod) in &pods {
        assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), *name);
        assert_eq!(proxy.stats(name).unwrap().accepted_outbound, 1);
    }
    assert_eq!(proxy.totals().accepted_outbound, 2);
}

#[test]
fn a_new_plan_serves_the_next_connection_and_leaves_open_ones_alone() {
    let pod = Pod::new();
    let old = serve_name(pod.listen_outside("10.77.0.2:8081"), "old");
    let new = serve_name(pod.listen_outside("10.77.0.2:8082"), "new");
    let plan =
        |server| Plan::new().outbound(VIP, tcp_listener("backend")).cluster_at("backend", &[server]).build();
    let proxied = pod.proxied(plan(old));
    assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), "old");

    proxied.proxy.update(NAME, Arc::new(plan(new)), &["backend".into()].into()).unwrap();

    assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), "new");
    assert_eq!(proxied.stats().clusters["backend"].connections, 2);
}

#[test]
fn connections_are_spread_over_the_workers() {
    let pod = Pod::new();
    let servers = support::tcp::accepted(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new()
        .outbound(VIP, tcp_listener("backend"))
        .cluster_at("backend", &["10.77.0.2:8080".parse().unwrap()]);
    let proxied = pod.proxied_by(3, plan.build());

    let mut open: Vec<_> = (0..30).map(|_| (pod.connect(VIP), servers.recv().unwrap())).collect();

    for (client, server) in &mut open {
        std::io::Write::write_all(client, b"x").unwrap();
        std::io::Read::read_exact(server, &mut [0]).unwrap();
    }
    assert_eq!(proxied.stats().active, 30);
    let threads = std::fs::read_dir("/proc/self/task").unwrap().filter(|task| {
        let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm")).unwrap_or_default();
        name.starts_with("orlop-proxy-")
    });
    assert!(threads.count() >= 3);
}

#[test]
fn a_proxy_without_workers_is_refused() {
    assert!(matches!(Proxy::start(ProxyConfig { workers: 0, mark: MARK }), Err(ProxyError::NoWorkers)));
}
