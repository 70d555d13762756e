//! `l7: always | on-intent | never`, by service, by namespace and for all.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::endpoint::v3::LbEndpoint;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction, route};
use orlop_plan::classify::{L7Modes, Mode, Path, Verdict};
use orlop_plan::compile::{WorkloadFacts, explain};

use crate::build::{
    World, action_to, assignment, eds_cluster, endpoint, http_listener, locality, mtls_endpoint,
    passthrough_cluster, prefix, route_configuration, route_to, seconds, virtual_host,
};

const WEB: &str = "web.shop.svc.cluster.local";

fn modes(modes: L7Modes) -> WorkloadFacts {
    WorkloadFacts { l7: modes, ..WorkloadFacts::default() }
}

fn service(mode: Mode) -> L7Modes {
    L7Modes { by_service: [(WEB.to_owned(), mode)].into(), ..L7Modes::default() }
}

/// One HTTP service with these routes, judged by these modes.
fn verdict(l7: L7Modes, routes: Vec<Route>, cluster: Cluster, at: LbEndpoint) -> Verdict {
    let mut world = World { facts: modes(l7), ..World::default() };
    world.clusters(&[
        Cluster { name: "web".to_owned(), ..cluster },
        eds_cluster("other"),
        passthrough_cluster(),
    ]);
    world.endpoints(&[
        assignment("web", vec![locality(vec![at])]),
        assignment("other", vec![locality(vec![endpoint("10.0.0.9:80")])]),
    ]);
    world.listeners(&[http_listener(8080)]);
    let host = virtual_host(&format!("{WEB}:8080"), &[WEB, "web", "10.96.0.1"], routes);
    let outcome = world.routes(&[route_configuration("8080", vec![host])]);
    assert_eq!(outcome.errors, []);
    let plans = world.compile(None);
    assert!(plans.ready());
    explain(&plans, "10.96.0.1", 8080).remove(0).verdict
}

fn plain(l7: L7Modes) -> Verdict {
    verdict(l7, vec![route_to("web")], eds_cluster("web"), endpoint("10.0.0.1:80"))
}

/// Routes of which the last takes everything, with a timeout.
fn asking() -> Vec<Route> {
    let mut action = action_to("web");
    action.timeout = seconds(3);
    let api = Route { r#match: Some(prefix("/api")), ..route_to("other") };
    vec![api, Route { action: Some(route::Action::Route(action)), ..route_to("web") }]
}

#[test]
fn a_service_counts_before_its_namespace_and_that_before_the_default() {
    let namespace =
        |mode| L7Modes { by_namespace: [("shop".to_owned(), mode)].into(), ..service(Mode::OnIntent) };
    assert_eq!(plain(L7Modes::default()).path, Path::Kernel);
    assert_eq!(plain(service(Mode::Always)).path, Path::L7Proxy);
    assert_eq!(plain(namespace(Mode::Always)).path, Path::Kernel);
    let in_namespace = L7Modes { by_service: [].into(), ..namespace(Mode::Always) };
    let verdict = plain(in_namespace);
    assert_eq!(verdict.path, Path::L7Proxy);
    assert_eq!(verdict.mode.unwrap().to_string(), "always (namespace shop)");
    assert_eq!(plain(L7Modes { default: Mode::Always, ..L7Modes::default() }).path, Path::L7Proxy);
}

#[test]
fn never_balances_over_the_cluster_of_the_last_route_and_says_what_is_forgone() {
    let cluster = Cluster { outlier_detection: Some(OutlierDetection::default()), ..eds_cluster("web") };
    let intent = verdict(L7Modes::default(), asking(), cluster.clone(), endpoint("10.0.0.1:80"));
    assert_eq!(intent.path, Path::L7Proxy);
    let never = verdict(service(Mode::Never), asking(), cluster, endpoint("10.0.0.1:80"));
    assert_eq!(never.path, Path::Kernel);
    let forgone: Vec<_> = never.forgone.iter().map(|reason| reason.field.to_string()).collect();
    assert_eq!(
        forgone,
        [
            "outlier_detection",
            r#"virtual_hosts["web.shop.svc.cluster.local:8080"].routes[0].match"#,
            r#"virtual_hosts["web.shop.svc.cluster.local:8080"].routes[1].route.timeout"#,
        ]
    );
}

#[test]
fn a_route_that_is_refused_by_itself_goes_to_the_proxy_whatever_the_mode() {
    let action = RouteAction { priority: RoutingPriority::High.into(), ..action_to("web") };
    let urgent = || vec![Route { action: Some(route::Action::Route(action.clone())), ..route_to("web") }];
    for mode in [Mode::OnIntent, Mode::Never] {
        let verdict = verdict(service(mode), urgent(), eds_cluster("web"), endpoint("10.0.0.1:80"));
        assert_eq!(verdict.path, Path::L7Proxy);
        let field = r#"virtual_hosts["web.shop.svc.cluster.local:8080"].routes[0].route.priority"#;
        assert_eq!(verdict.reason.field.to_string(), field);
        assert!(
            verdict.reason.to_string().contains("is not supported and answers 503"),
            "{}",
            verdict.reason
        );
    }
}

#[test]
fn never_does_not_send_plaintext_where_tls_is_owed() {
    let mut tls = eds_cluster("web");
    tls.transport_socket_matches = vec![crate::kernel_equals_proxy::tls_by_metadata()];
    let verdict = verdict(service(Mode::Never), asking(), tls, mtls_endpoint("10.0.0.1:80"));
    assert_eq!(verdict.path, Path::Blocked);
}

#[test]
fn never_stays_with_the_proxy_where_no_cluster_stands_for_the_service() {
    let api = Route { r#match: Some(prefix("/api")), ..route_to("web") };
    let verdict = verdict(service(Mode::Never), vec![api], eds_cluster("web"), endpoint("10.0.0.1:80"));
    assert_eq!(verdict.path, Path::L7Proxy);
    assert!(verdict.reason.to_string().starts_with("l7 is never, but no route"), "{}", verdict.reason);
}

#[test]
fn other_modes_are_taken_up_by_plans_in_force() {
    let mut world = World::default();
    world.clusters(&[eds_cluster("web"), passthrough_cluster()]);
    world.endpoints(&[assignment("web", vec![locality(vec![endpoint("10.0.0.1:80")])])]);
    world.listeners(&[http_listener(8080)]);
    let host = virtual_host(&format!("{WEB}:8080"), &[WEB, "10.96.0.1"], vec![route_to("web")]);
    world.routes(&[route_configuration("8080", vec![host])]);
    let mut plans = world.compile(None);
    let before = plans.kernel().clone();
    assert!(plans.set_facts(&mut world.interner, modes(service(Mode::Always))) > 0);
    assert_eq!(explain(&plans, WEB, 8080)[0].verdict.path, Path::L7Proxy);
    assert_eq!(before.frontends.diff(&plans.kernel().frontends).len(), 1);
    plans.set_facts(&mut world.interner, modes(L7Modes::default()));
    assert!(*plans.kernel() == before);
}
