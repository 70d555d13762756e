//! Policies on requests: by whom the newest policy is meant, also on connections that were there before it.

mod support;

use std::sync::Arc;

use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::http_connection_manager::{HttpConnectionManager, HttpFilter};
use orlop_plan::resource::listener::FilterChain;
use orlop_plan::resource::matcher::{StringMatcher, StringPattern};
use orlop_plan::resource::rbac::{
    Action, PathRule, Permission, Policy, Principal, Rbac, RbacFilter, ShadowPrefix,
};

use support::http::{Answer, Client, says};
use support::http_plan::{all_to, http_chain, manager, route_configuration, virtual_host};
use support::plan::{Plan, listener, original_dst, tcp_chain};
use support::{NAME, POD_IP, Pod, Proxied};

const CLUSTER: &str = "inbound|8080||";

fn plan(chains: Vec<FilterChain>) -> ProxyPlan {
    Plan::new().virtual_inbound(listener(chains)).cluster(original_dst(CLUSTER)).build()
}

fn with(filters: Vec<RbacFilter>) -> HttpConnectionManager {
    let mut manager = manager(route_configuration(vec![virtual_host(all_to(CLUSTER))]));
    let filters = filters.into_iter().map(|filter| HttpFilter::Rbac(Arc::new(filter)));
    manager.http_filters.splice(0..0, filters);
    manager
}

fn deny(permission: Permission, principal: Principal) -> RbacFilter {
    let policy =
        Policy { name: "who".to_owned(), permissions: vec![permission], principals: vec![principal] };
    RbacFilter {
        rules: Some(Rbac::new(Action::Deny, vec![policy])),
        shadow_rules: None,
        shadow_rules_stat_prefix: ShadowPrefix::None,
    }
}

fn path(path: &str) -> Permission {
    let pattern = StringPattern::Exact(path.to_owned());
    Permission::Path(PathRule::String(StringMatcher { pattern, ignore_case: false }))
}

struct World {
    pod: Pod,
    proxied: Proxied,
}

impl World {
    fn new(manager: HttpConnectionManager) -> Self {
        let pod = Pod::new();
        pod.capture_inbound(8080);
        says(pod.listen_inside(&format!("{POD_IP}:8080")), "hello");
        let proxied = pod.proxied(plan(vec![http_chain(manager)]));
        Self { pod, proxied }
    }

    fn client(&self) -> Client {
        Client::new(self.pod.connect_from_outside(&format!("{POD_IP}:8080")))
    }

    fn update(&self, chains: Vec<FilterChain>) {
        let updated = self.proxied.proxy.update(NAME, Arc::new(plan(chains)), &Arc::default());
        assert!(updated.is_ok(), "{updated:?}");
    }

    fn sent_by(&self, forwarded_for: &str) -> Answer {
        let mut client = self.client();
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {forwarded_for}\r\n\r\n"));
        client.receive()
    }
}

#[test]
fn a_new_policy_holds_for_the_next_request_of_an_open_connection() {
    let world = World::new(with(vec![]));
    let mut client = world.client();
    assert_eq!(client.get("/secret").status(), 200);

    world.update(vec![http_chain(with(vec![deny(path("/secret"), Principal::Any)]))]);
    let answer = client.get("/secret?again");
    assert_eq!((answer.status(), answer.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(answer.header("connection"), Some("close"), "the connection's listener is gone");
    assert_eq!(world.client().get("/public").status(), 200);
    world.proxied.expect_refused("policy", 1);
    assert_eq!(world.proxied.stats().http[""].filters, [("rbac.allowed", 1), ("rbac.denied", 1)].into());
}

#[test]
fn a_policy_that_is_gone_is_gone_for_open_connections() {
    let world = World::new(with(vec![deny(path("/secret"), Principal::Any)]));
    let mut client = world.client();
    assert_eq!(client.get("/secret").status(), 403);
    world.update(vec![http_chain(with(vec![]))]);
    assert_eq!(client.get("/secret").status(), 200);
}

#[test]
fn a_connection_that_no_chain_takes_any_more_is_not_served() {
    for chains in [vec![], vec![tcp_chain(CLUSTER)]] {
        let world = World::new(with(vec![]));
        let mut client = world.client();
        assert_eq!(client.get("/").status(), 200);
        world.update(chains);
        assert_eq!(client.get("/").status(), 503);
        world.proxied.expect_refused("no_filter_chain", 1);
    }
}

#[test]
fn who_sent_a_request_is_what_trusted_proxies_say() {
    let from = || deny(Permission::Any, Principal::RemoteIp("192.0.2.0/24".parse().unwrap()));
    for (use_remote_address, trusted, forwarded_for, status) in [
        (false, 0, "192.0.2.1", 403),
        (false, 0, "192.0.2.1, 10.0.0.1", 200),
        (false, 1, "192.0.2.1, 10.0.0.1", 403),
        (false, 1, "192.0.2.1", 200),
        (true, 0, "192.0.2.1", 200),
        (true, 1, "192.0.2.1", 403),
        (true, 2, "192.0.2.1, 10.0.0.1", 403),
        (true, 2, "192.0.2.1", 200),
        (false, 0, "192.0.2.", 200),
    ] {
        let mut manager = with(vec![from()]);
        manager.use_remote_address = use_remote_address;
        manager.xff_num_trusted_hops = trusted;
        let world = World::new(manager);
        let answer = world.sent_by(forwarded_for);
        assert_eq!(answer.status(), status, "{use_remote_address} {trusted} {forwarded_for}");
    }
}
