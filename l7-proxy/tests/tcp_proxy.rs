//! Bytes through the TCP proxy, from a pod's captured connection to an endpoint outside the pod.

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use orlop_plan::resource::cluster::{Cluster, LbPolicy};
use orlop_plan::resource::tcp_proxy::TcpClusterSpecifier;
use support::plan::{Plan, chain, eds, endpoint, listener, original_dst, tcp_listener, tcp_proxy};
use support::tcp::{
    accepted, is_reset, read_all, reset, round_trip, serve_addresses, serve_echo, serve_name,
};
use support::{CLIENT_IP, POD_IP, Pod};

const VIP: &str = "10.96.0.1:80";

#[test]
fn a_connection_to_a_vip_reaches_an_endpoint_and_both_ends_see_true_addresses() {
    let pod = Pod::new();
    let server = serve_addresses(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new().outbound(VIP, tcp_listener("backend")).cluster_at("backend", &[server]);
    let proxied = pod.proxied(plan.build());

    let mut client = pod.connect(VIP);

    assert_eq!(client.peer_addr().unwrap().to_string(), VIP);
    assert_eq!(client.local_addr().unwrap().ip().to_string(), POD_IP);
    assert_eq!(read_all(&mut client).unwrap(), format!("{POD_IP} 10.77.0.2:8080"));
    let stats = proxied.stats();
    assert_eq!(stats.accepted_outbound, 1);
    assert_eq!(stats.clusters["backend"].connections, 1);
}

#[test]
fn a_connection_to_an_unknown_destination_passes_to_where_it_was_going() {
    let pod = Pod::new();
    let server = serve_echo(pod.listen_outside("10.77.0.2:9000"));
    let plan = Plan::new()
        .virtual_outbound(tcp_listener("PassthroughCluster"))
        .cluster(original_dst("PassthroughCluster"));
    let _proxied = pod.proxied(plan.build());

    let mut client = pod.connect(&server.to_string());

    assert_eq!(round_trip(&mut client, "hello"), "hello");
}

#[test]
fn a_pod_that_is_its_own_endpoint_reaches_itself_without_a_loop() {
    let pod = Pod::new();
    let server = serve_addresses(pod.listen_inside(&format!("{POD_IP}:8080")));
    let plan = Plan::new().outbound(VIP, tcp_listener("backend")).cluster_at("backend", &[server]);
    let proxied = pod.proxied(plan.build());

    assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), format!("{POD_IP} {POD_IP}:8080"));
    assert_eq!((proxied.stats().accepted_outbound, proxied.stats().accepted_inbound), (1, 0));
}

#[test]
fn a_source_address_comes_to_the_same_endpoint_again_and_again() {
    let pod = Pod::new();
    let servers: Vec<_> = [("10.77.0.2:8081", "one"), ("10.77.0.2:8082", "two"), ("10.77.0.2:8083", "three")]
        .map(|(address, name)| endpoint(serve_name(pod.listen_outside(address), name)))
        .into();
    let cluster = Cluster { lb_policy: LbPolicy::Maglev { table_size: 65537 }, ..eds("backend") };
    let mut config = tcp_proxy(TcpClusterSpecifier::Cluster("backend".into()));
    config.hash_source_ip = true;
    let plan = Plan::new().outbound(VIP, listener(vec![chain(config)])).cluster_with(cluster, &servers);
    let _proxied = pod.proxied(plan.build());

    let first = read_all(&mut pod.connect(VIP)).unwrap();
    for _ in 0..20 {
        assert_eq!(read_all(&mut pod.connect(VIP)).unwrap(), first);
    }
}

#[test]
fn each_side_can_end_its_half_and_go_on_reading() {
    let pod = Pod::new();
    let server = accepted(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new()
        .outbound(VIP, tcp_listener("backend"))
        .cluster_at("backend", &["10.77.0.2:8080".parse().unwrap()]);
    let proxied = pod.proxied(plan.build());
    let mut client = pod.connect(VIP);
    let mut server = server.recv().unwrap();

    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut server).unwrap(), "question");

    server.write_all(b"answer").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), "answer");
    support::eventually("the connection is closed", || proxied.stats().active == 0);
    assert_eq!((proxied.stats().bytes_received, proxied.stats().bytes_sent), (8, 6));
    assert_eq!(proxied.stats().clusters["backend"].active, 0);
}

#[test]
fn a_reset_of_one_side_resets_the_other() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new()
        .outbound(VIP, tcp_listener("backend"))
        .cluster_at("backend", &["10.77.0.2:8080".parse().unwrap()]);
    let proxied = pod.proxied(plan.build());

    let connected = || {
        let mut client = pod.connect(VIP);
        let mut server = servers.recv().unwrap();
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        (client, server)
    };

    let (mut client, server) = connected();
    reset(server);
    assert!(is_reset(&mut client));
    proxied.expect_flag("UC", 1);

    let (client, mut server) = connected();
    reset(client);
    assert!(is_reset(&mut server));
    proxied.expect_flag("DC", 1);
}

#[test]
fn a_receiver_that_does_not_read_stops_its_sender() {
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new()
        .outbound(VIP, tcp_listener("backend"))
        .cluster_at("backend", &["10.77.0.2:8080".parse().unwrap()]);
    let _proxied = pod.proxied(plan.build());
    let mut client = pod.connect(VIP);
    let mut server = servers.recv().unwrap();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();

    // Far more than the socket buffers and the proxy hold.
    let chunk = vec![7; 1 << 20];
    let mut sent: usize = 0;
    while let Ok(n) = client.write(&chunk) {
        sent += n;
        assert!(sent < 64 << 20, "nothing holds the sender back");
    }
    client.shutdown(Shutdown::Write).unwrap();

    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    assert_eq!(received.len(), sent);
}

#[test]
fn a_gigabyte_arrives_as_it_was_sent() {
    const SIZE: usize = 1 << 30;
    let pod = Pod::new();
    let servers = accepted(pod.listen_outside("10.77.0.2:8080"));
    let plan = Plan::new()
        .outbound(VIP, tcp_listener("backend"))
        .cluster_at("backend", &["10.77.0.2:8080".parse().unwrap()]);
    let _proxied = pod.proxied(plan.build());
    let mut client = pod.connect(VIP);
    let mut server = servers.recv().unwrap();

    let pattern: Vec<u8> = (0..=255u8).cycle().take(251 * 1024).collect();
    let sent = pattern.clone();
    let sender = std::thread::spawn(move || {
        let mut left = SIZE;
        while left > 0 {
            let n = left.min(sent.len());
            client.write_all(&sent[..n]).unwrap();
            left -= n;
        }
    });
    let (mut at, mut buffer) = (0, vec![0; 1 << 18]);
    loop {
        let n = server.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        for (offset, byte) in buffer[..n].iter().enumerate() {
            assert_eq!(*byte, pattern[(at + offset) % pattern.len()], "at {}", at + offset);
        }
        at += n;
    }
    sender.join().unwrap();
    assert_eq!(at, SIZE);
}

#[test]
fn weighted_clusters_share_connections_by_weight() {
    let pod = Pod::new();
    let many = serve_name(pod.listen_outside("10.77.0.2:8081"), "many");
    let few = serve_name(pod.listen_outside("10.77.0.2:8082"), "few");
    let weighted = TcpClusterSpecifier::Weighted {
        clusters: vec![("many".into(), 90), ("few".into(), 10)],
        total_weight: 100,
    };
    let plan = Plan::new()
        .outbound(VIP, listener(vec![chain(tcp_proxy(weighted))]))
        .cluster_at("many", &[many])
        .cluster_at("few", &[few]);
    let proxied = pod.proxied(plan.build());

    let answers: Vec<_> = (0..500).map(|_| read_all(&mut pod.connect(VIP)).unwrap()).collect();

    let few = answers.iter().filter(|answer| *answer == "few").count();
    assert!((25..=85).contains(&few), "{few} of 500 went to the cluster with a tenth of the weight");
    assert_eq!(proxied.stats().clusters["few"].connections, few as u64);
}

#[test]
fn an_idle_connection_is_ended_and_a_busy_one_is_not() {
    let pod = Pod::new();
    let server = serve_echo(pod.listen_outside(&format!("{CLIENT_IP}:8080")));
    let mut config = tcp_proxy(TcpClusterSpecifier::Cluster("backend".into()));
    config.idle_timeout = Some(Duration::from_millis(300));
    let plan = Plan::new().outbound(VIP, listener(vec![chain(config)])).cluster_at("backend", &[server]);
    let proxied = pod.proxied(plan.build());
    let mut client = pod.connect(VIP);

    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(round_trip(&mut client, "still here"), "still here");
    }
    assert_eq!(read_all(&mut client).unwrap(), "", "ended, not reset");
    proxied.expect_flag("SI", 1);
}
