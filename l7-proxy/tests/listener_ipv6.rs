//! A dual-stack pod: the same capture and the same true addresses over IPv6.

#![expect(clippy::unwrap_used, reason = "a test bed that cannot be built fails the test")]

mod support;

use std::sync::Arc;

use orlop_l7_proxy::{Description, PodFacts, Proxy, ProxyConfig};
use support::plan::{Matching, Plan, listener, original_dst, tcp_chain, tcp_listener};
use support::tcp::{read_all, serve_addresses};
use support::{CLIENT_IPV6, MARK, NAME, POD_IP, POD_IPV6, Pod};

fn served(pod: &Pod, plan: Plan) -> Proxy {
    let proxy = Proxy::start(ProxyConfig { workers: 1, mark: MARK }).unwrap();
    let addresses = [POD_IP, POD_IPV6].map(|address| address.parse().unwrap()).to_vec();
    let network = PodFacts {
        netns: Arc::clone(&pod.netns),
        addresses,
        resolvers: Vec::new(),
        description: Description::default(),
    };
    let listeners = proxy.enrol(NAME, network, Arc::new(plan.build())).unwrap();
    assert_eq!(listeners.outbound_v6.unwrap().local_addr().unwrap().to_string(), "[::1]:15001");
    assert_eq!(listeners.inbound_v6.unwrap().local_addr().unwrap().to_string(), "[::1]:15006");
    proxy
}

#[test]
fn outbound_connections_keep_their_addresses() {
    let pod = Pod::dual_stack(8080);
    let server = serve_addresses(pod.listen_outside(&format!("[{CLIENT_IPV6}]:9000")));
    let plan = Plan::new().outbound("[fd96::1]:80", tcp_listener("backend")).cluster_at("backend", &[server]);
    let _proxy = served(&pod, plan);

    let mut client = pod.connect("[fd96::1]:80");

    assert_eq!(client.local_addr().unwrap().ip().to_string(), POD_IPV6);
    assert_eq!(read_all(&mut client).unwrap(), format!("{POD_IPV6} [{CLIENT_IPV6}]:9000"));
}

#[test]
fn the_application_sees_its_true_client() {
    let pod = Pod::dual_stack(8080);
    serve_addresses(pod.listen_inside(&format!("[{POD_IPV6}]:8080")));
    let inbound = listener(vec![tcp_chain("inbound|8080||").on_port(8080)]);
    let _proxy = served(&pod, Plan::new().virtual_inbound(inbound).cluster(original_dst("inbound|8080||")));

    let mut client = pod.connect_from_outside(&format!("[{POD_IPV6}]:8080"));

    assert_eq!(read_all(&mut client).unwrap(), format!("{CLIENT_IPV6} [{POD_IPV6}]:8080"));
}
