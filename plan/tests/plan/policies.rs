//! Who may connect: whatever the kernel decides by a source's address, the proxy decides for each connection from it.

use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::{CidrRange, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use envoy_types::pb::envoy::config::rbac::v3::permission::{self, Rule};
use envoy_types::pb::envoy::config::rbac::v3::principal::{self, Authenticated, Identifier};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager, http_filter,
};
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use orlop_plan::classify::Destination;
use orlop_plan::compile::{Plans, WorkloadFacts};
use orlop_plan::kernel::{InboundAction, SourceAction};
use orlop_plan::rbac::{Answer, Connection, decide};
use orlop_plan::resource::listener::TerminalFilter;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::build::{
    World, any, chain, flag, http, listener, manager, network_filter, number, passthrough_cluster, refusal,
    route_configuration, route_to, router, tcp_proxy, virtual_host,
};

const PORT: u16 = 8080;
const OWN: [&str; 2] = ["10.77.0.1", "fd77::1"];
const SOURCES: [&str; 11] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.1.3.1",
    "10.2.0.1",
    "192.0.2.1",
    "192.0.2.200",
    "8.8.8.8",
    "fd00:1::2",
    "fd00:1::3",
    "fd00:2::1",
    "2001:db8::1",
];
const RANGES: [(&str, u32); 11] = [
    ("0.0.0.0", 0),
    ("10.0.0.0", 8),
    ("10.1.0.0", 16),
    ("10.1.2.0", 24),
    ("10.1.2.3", 32),
    ("192.0.2.0", 25),
    ("::", 0),
    ("fd00::", 8),
    ("fd00:1::", 32),
    ("fd00:1::2", 128),
    ("::ffff:10.0.0.0", 104),
];

fn range((address, length): (&str, u32)) -> CidrRange {
    CidrRange { address_prefix: address.to_owned(), prefix_len: number(length) }
}

fn from(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn to(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn principals() -> impl Strategy<Value = Principal> {
    let leaf = prop_oneof![
        1 => Just(from(Identifier::Any(true))),
        6 => select(RANGES.to_vec()).prop_map(|of| from(Identifier::DirectRemoteIp(range(of)))),
        1 => Just(from(Identifier::Authenticated(Authenticated::default()))),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(|ids| from(Identifier::AndIds(principal::Set { ids }))),
            vec(inner.clone(), 1..3).prop_map(|ids| from(Identifier::OrIds(principal::Set { ids }))),
            inner.prop_map(|id| from(Identifier::NotId(id.into()))),
        ]
    })
}

fn permissions() -> impl Strategy<Value = Permission> {
    let leaf = prop_oneof![
        Just(to(Rule::Any(true))),
        select(vec![PORT, 9000]).prop_map(|port| to(Rule::DestinationPort(port.into()))),
        (8000..8100, 1..100).prop_map(|(start, length)| {
            to(Rule::DestinationPortRange(Int32Range { start, end: start + length }))
        }),
        select(vec![("10.77.0.0", 24), ("fd77::", 16), ("10.78.0.0", 16)])
            .prop_map(|of| to(Rule::DestinationIp(range(of)))),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..3).prop_map(|rules| to(Rule::AndRules(permission::Set { rules }))),
            vec(inner.clone(), 1..3).prop_map(|rules| to(Rule::OrRules(permission::Set { rules }))),
            inner.prop_map(|rule| to(Rule::NotRule(rule.into()))),
        ]
    })
}

fn filters() -> impl Strategy<Value = Vec<Rbac>> {
    let policy = (vec(permissions(), 1..3), vec(principals(), 1..3))
        .prop_map(|(permissions, principals)| Policy { permissions, principals, ..Policy::default() });
    let rbac = (select(vec![Action::Allow, Action::Deny, Action::Log]), vec(policy, 0..3)).prop_map(
        |(action, policies)| {
            rules(action, policies.into_iter().enumerate().map(|(i, policy)| (i.to_string(), policy)))
        },
    );
    vec(rbac, 0..3)
}

fn rules(action: Action, policies: impl IntoIterator<Item = (String, Policy)>) -> Rbac {
    Rbac { action: action.into(), policies: policies.into_iter().collect(), ..Rbac::default() }
}

fn tcp_chain(filters: &[Rbac]) -> FilterChain {
    let rbac = |rules: &Rbac| {
        let rules = Some(rules.clone());
        network_filter("rbac", &NetworkRbac { rules, ..NetworkRbac::default() })
    };
    let filters = filters.iter().map(rbac).chain([tcp_proxy("PassthroughCluster")]);
    chain(filters.collect())
}

fn http_chain(filters: &[Rbac]) -> FilterChain {
    let rbac = |rules: &Rbac| HttpFilter {
        name: "rbac".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&HttpRbac {
            rules: Some(rules.clone()),
            ..HttpRbac::default()
        }))),
        ..HttpFilter::default()
    };
    http_chain_of(filters.iter().map(rbac))
}

fn http_chain_of(filters: impl IntoIterator<Item = HttpFilter>) -> FilterChain {
    let hosts = vec![virtual_host("inbound", &["*"], vec![route_to("PassthroughCluster")])];
    let manager = HttpConnectionManager {
        route_specifier: Some(http_connection_manager::RouteSpecifier::RouteConfig(route_configuration(
            "inbound", hosts,
        ))),
        http_filters: filters.into_iter().chain([router()]).collect(),
        ..manager("inbound")
    };
    chain(vec![http(&manager)])
}

fn at(port: u16, protocols: &[&str], chain: FilterChain) -> FilterChain {
    FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            destination_port: number(port.into()),
            application_protocols: protocols.iter().map(|protocol| (*protocol).to_owned()).collect(),
            ..FilterChainMatch::default()
        }),
        ..chain
    }
}

fn inbound(chains: Vec<FilterChain>) -> Listener {
    Listener {
        use_original_dst: flag(true),
        bind_to_port: flag(true),
        traffic_direction: TrafficDirection::Inbound.into(),
        ..listener("virtualInbound", "0.0.0.0:15006", chains)
    }
}

fn plans(chains: Vec<FilterChain>) -> Plans {
    let addresses = OWN.map(|address| address.parse().unwrap()).to_vec();
    let mut world =
        World { facts: WorkloadFacts { addresses, ..WorkloadFacts::default() }, ..World::default() };
    world.clusters(&[passthrough_cluster()]);
    let outcome = world.listeners(&[inbound(chains)]);
    assert_eq!(outcome.errors, []);
    world.compile(None)
}

fn action(plans: &Plans, source: IpAddr) -> SourceAction {
    match plans.kernel().inbound.get(&PORT).unwrap() {
        InboundAction::Direct => SourceAction::Direct,
        InboundAction::Proxy => SourceAction::Proxy,
        InboundAction::Drop => panic!("there is somebody to connect to"),
        InboundAction::BySource(policy) => policy.actions(source).anybody,
    }
}

fn asks_for_an_identity(principal: &Principal) -> bool {
    match principal.identifier.as_ref().unwrap() {
        Identifier::Authenticated(_) => true,
        Identifier::AndIds(set) | Identifier::OrIds(set) => set.ids.iter().any(asks_for_an_identity),
        Identifier::NotId(id) => asks_for_an_identity(id),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn the_kernel_lets_in_and_refuses_whom_the_proxy_would(
        first in filters(),
        second in filters(),
        kinds in select(vec!["tcp", "http", "either"]),
    ) {
        let chains = match kinds {
            "tcp" => vec![at(PORT, &[], tcp_chain(&first))],
            "http" => vec![at(PORT, &[], http_chain(&first))],
            _ => vec![at(PORT, &["http/1.1"], http_chain(&first)), at(PORT, &[], tcp_chain(&second))],
        };
        let plans = plans(chains);
        let served = &plans.proxy().inbound.as_ref().unwrap().filter_chains;
        let all_tcp = served.iter().all(|chain| matches!(chain.terminal, TerminalFilter::TcpProxy(_)));
        let asked = first.iter().chain(second.iter().filter(|_| kinds == "either"));
        let by_address_alone = asked
            .filter(|rbac| rbac.action != i32::from(Action::Log))
            .flat_map(|rbac| rbac.policies.values())
            .all(|policy| !policy.principals.iter().any(asks_for_an_identity));
        for source in SOURCES {
            let source: IpAddr = source.parse().unwrap();
            let own = OWN.map(|own| own.parse::<IpAddr>().unwrap());
            let own = own.into_iter().find(|own| own.is_ipv4() == source.is_ipv4()).unwrap();
            let destination = SocketAddr::new(own, PORT);
            let connection =
                Connection { source: (source, 40_000).into(), destination, peer: None, server_name: "" };
            let allowed: Vec<_> =
                served.iter().map(|chain| decide(chain.rbac(), &connection).allowed == Answer::Yes).collect();
            let (all, none) = (!allowed.contains(&false), !allowed.contains(&true));
            match action(&plans, source) {
                SourceAction::Direct => prop_assert!(all, "{source} is let in"),
                SourceAction::Drop => prop_assert!(none && all_tcp, "{source} is refused"),
                SourceAction::ProxyRefuses => prop_assert!(none, "{source} is refused by the proxy"),
                SourceAction::Proxy => prop_assert!(!by_address_alone || !all && !none, "{source} can be judged"),
            }
        }
    }
}

fn allow(name: &str, source: (&str, u32)) -> Rbac {
    let principals = vec![from(Identifier::DirectRemoteIp(range(source)))];
    let permissions = vec![to(Rule::DestinationPort(PORT.into()))];
    rules(Action::Allow, [(name.to_owned(), Policy { permissions, principals, ..Policy::default() })])
}

fn deny(name: &str, principal: Identifier) -> Rbac {
    let policy = Policy {
        permissions: vec![to(Rule::Any(true))],
        principals: vec![from(principal)],
        ..Policy::default()
    };
    rules(Action::Deny, [(name.to_owned(), policy)])
}

fn said(plans: &Plans) -> Vec<String> {
    let verdict = &plans.verdicts()[&Destination::Inbound(PORT)];
    let said = verdict.sources.iter();
    said.map(|rule| format!("{}: {} ({})", rule.sources, rule.action, rule.because)).collect()
}

#[test]
fn denials_come_before_what_is_allowed_and_the_policy_is_named() {
    let filters =
        [deny("no", Identifier::DirectRemoteIp(range(("10.1.2.0", 24)))), allow("yes", ("10.1.0.0", 16))];
    assert_eq!(
        said(&plans(vec![at(PORT, &[], tcp_chain(&filters))])),
        [
            "0.0.0.0/0: refused (no policy allows it)",
            "::/0: refused (no policy allows it)",
            "10.1.0.0/16: direct (allowed by `yes`)",
            "10.1.2.0/24: refused (denied by `no`)",
        ]
    );
}

#[test]
fn an_http_port_answers_in_words() {
    let chains = vec![at(PORT, &[], http_chain(&[allow("yes", ("10.1.0.0", 16))]))];
    let refused: IpAddr = "8.8.8.8".parse().unwrap();
    assert_eq!(action(&plans(chains), refused), SourceAction::ProxyRefuses);
}

#[test]
fn who_is_asked_for_an_identity_goes_to_the_proxy_unless_the_address_decides() {
    let filters = [
        allow("yes", ("10.1.0.0", 16)),
        deny("somebody", Identifier::Authenticated(Authenticated::default())),
    ];
    let plans = plans(vec![at(PORT, &[], tcp_chain(&filters))]);
    assert_eq!(action(&plans, "10.1.2.3".parse().unwrap()), SourceAction::Proxy);
    assert_eq!(action(&plans, "10.2.0.1".parse().unwrap()), SourceAction::Drop);
    assert!(
        said(&plans).contains(&"10.1.0.0/16: proxy (`somebody` asks for more than addresses)".to_owned())
    );
}

#[test]
fn a_policy_for_another_port_keeps_this_one_in_the_kernel() {
    let other = Policy {
        permissions: vec![to(Rule::DestinationPort(9000))],
        principals: vec![from(Identifier::Any(true))],
        ..Policy::default()
    };
    let filters = [rules(Action::Deny, [("other".to_owned(), other)])];
    let plans = plans(vec![at(PORT, &[], http_chain(&filters))]);
    assert_eq!(plans.kernel().inbound.get(&PORT), Some(&InboundAction::Direct));
}

#[test]
fn without_rules_nobody_is_refused_and_with_none_everybody_is() {
    let none = network_filter("rbac", &NetworkRbac::default());
    let shadow = NetworkRbac { shadow_rules: Some(rules(Action::Deny, [])), ..NetworkRbac::default() };
    let chains = |filter: Filter| vec![at(PORT, &[], chain(vec![filter, tcp_proxy("PassthroughCluster")]))];
    for filter in [none, network_filter("rbac", &shadow)] {
        assert_eq!(plans(chains(filter)).kernel().inbound.get(&PORT), Some(&InboundAction::Direct));
    }
    let nothing = plans(vec![at(PORT, &[], tcp_chain(&[rules(Action::Allow, [])]))]);
    for source in SOURCES {
        assert_eq!(action(&nothing, source.parse().unwrap()), SourceAction::Drop);
    }
}

fn looks_into_requests() -> Rbac {
    let header = HeaderMatcher { name: "x-a".to_owned(), ..HeaderMatcher::default() };
    let policy = Policy {
        permissions: vec![to(Rule::Header(header))],
        principals: vec![from(Identifier::DirectRemoteIp(range(("10.1.0.0", 16))))],
        ..Policy::default()
    };
    rules(Action::Deny, [("p".to_owned(), policy)])
}

#[test]
fn what_looks_into_requests_goes_to_the_proxy_unless_the_address_decides() {
    let plans = plans(vec![at(PORT, &[], http_chain(&[looks_into_requests()]))]);
    assert_eq!(
        said(&plans),
        [
            "0.0.0.0/0: direct (no policy denies it)",
            "::/0: direct (no policy denies it)",
            "10.1.0.0/16: proxy (`p` asks for more than addresses)",
        ]
    );
}

#[test]
fn what_looks_into_requests_is_refused_in_a_filter_of_tcp() {
    let error = refusal("virtualInbound", inbound(vec![tcp_chain(&[looks_into_requests()])])).to_string();
    assert!(
        error.contains("typed_config.rules.policies[\"p\"].permissions[0].header: looks into requests"),
        "{error}"
    );
}

#[test]
fn a_dry_run_sends_requests_through_the_proxy() {
    let tried = HttpRbac { shadow_rules: Some(rules(Action::Deny, [])), ..HttpRbac::default() };
    let filter = HttpFilter {
        name: "rbac".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&tried))),
        ..HttpFilter::default()
    };
    let plans = plans(vec![at(PORT, &[], http_chain_of([filter]))]);
    assert_eq!(plans.kernel().inbound.get(&PORT), Some(&InboundAction::Proxy));
}

#[test]
fn a_policy_on_the_way_out_is_refused() {
    let outbound = listener("l", "10.96.0.1:80", vec![tcp_chain(&[rules(Action::Allow, [])])]);
    let error = refusal("l", outbound).to_string();
    assert!(error.contains("filter_chains[0].filters: has a filter of RBAC, JWT or ext_authz"), "{error}");
}
