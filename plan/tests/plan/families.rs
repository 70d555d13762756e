//! IPv4 and IPv6: the kernel leads a connection to endpoints of its own family, the proxy to whichever there are.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::endpoint::v3::endpoint::AdditionalAddress;
use envoy_types::pb::envoy::config::endpoint::v3::{LbEndpoint, lb_endpoint};
use envoy_types::pb::envoy::config::listener::v3;
use orlop_plan::classify::{Destination, Path};
use orlop_plan::compile::Plans;
use orlop_plan::kernel::{Frontend, OutboundAction};

use crate::build::{World, address, assignment, chain, eds_cluster, endpoint, listener, locality, tcp_proxy};

/// A service with an address of each family, and its endpoints.
fn dual_stack(endpoints: Vec<LbEndpoint>) -> Plans {
    let mut world = World::default();
    world.clusters(&[eds_cluster("a")]);
    world.endpoints(&[assignment("a", vec![locality(endpoints)])]);
    let mut listener = listener("tcp", "10.96.0.1:9000", vec![chain(vec![tcp_proxy("a")])]);
    let second = v3::AdditionalAddress { address: address("[fd96::1]:9000"), ..Default::default() };
    listener.additional_addresses.push(second);
    world.listeners(&[listener]);
    world.compile(None)
}

fn with_second(first: &str, second: &str) -> LbEndpoint {
    let mut both = endpoint(first);
    if let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &mut both.host_identifier {
        endpoint.additional_addresses.push(AdditionalAddress { address: address(second) });
    }
    both
}

/// Where the kernel leads connections to the service's address; none where the proxy does.
fn led(plans: &Plans, to: &str) -> Vec<String> {
    let addr: IpAddr = to.parse().unwrap();
    match plans.kernel().frontends.get(&Frontend { addr: Some(addr), port: 9000 }) {
        Some(OutboundAction::Balance(set)) => {
            set.backends.iter().map(|one| one.address.to_string()).collect()
        }
        Some(OutboundAction::Proxy) => Vec::new(),
        other => panic!("{to}: {other:?}"),
    }
}

#[test]
fn connections_of_either_family_go_to_the_endpoints_addresses_of_that_family() {
    let plans = dual_stack(vec![
        with_second("10.244.0.1:90", "[fd44::1]:90"),
        with_second("[fd44::2]:90", "10.244.0.2:90"),
    ]);

    assert_eq!(led(&plans, "10.96.0.1"), ["10.244.0.1:90", "10.244.0.2:90"]);
    assert_eq!(led(&plans, "fd96::1"), ["[fd44::1]:90", "[fd44::2]:90"]);
}

#[test]
fn connections_to_endpoints_of_the_other_family_go_through_the_proxy() {
    let plans = dual_stack(vec![endpoint("10.244.0.1:90"), with_second("10.244.0.2:90", "[fd44::2]:90")]);

    assert_eq!(led(&plans, "10.96.0.1"), ["10.244.0.1:90", "10.244.0.2:90"]);
    assert_eq!(led(&plans, "fd96::1"), Vec::<String>::new());
    let frontend = Frontend { addr: Some("fd96::1".parse().unwrap()), port: 9000 };
    let verdict = &plans.verdicts()[&Destination::Outbound(frontend)];
    assert_eq!(verdict.path, Path::TcpProxy);
    let reason = verdict.reason.to_string();
    assert!(reason.contains("without an address of the destination's family"), "{reason}");
}

#[test]
fn endpoints_that_have_no_family_in_common_are_the_proxys() {
    let plans = dual_stack(vec![endpoint("10.244.0.1:90"), endpoint("[fd44::2]:90")]);

    assert_eq!(led(&plans, "10.96.0.1"), Vec::<String>::new());
    assert_eq!(led(&plans, "fd96::1"), Vec::<String>::new());
}
