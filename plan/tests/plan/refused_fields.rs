//! A resource that asks for what is not supported is refused, with the path of every field that does.

use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::core::v3::{TypedExtensionConfig, WatchedDirectory};
use envoy_types::pb::envoy::config::listener::v3::{Filter, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{CorsPolicy, Route, RouteAction, route};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
use orlop_proto::typed_struct::TypedStruct;
use prost::{Message, Name};

use crate::build::{
    World, action_to, any, chain, eds_cluster, flag, http, listener, manager, network_filter, prefix,
    refusal, route_configuration, route_to, router, tcp_proxy, virtual_host,
};

fn text<M: Message + Name>(name: &str, message: M) -> Vec<String> {
    refusal(name, message).fields.iter().map(ToString::to_string).collect()
}

#[test]
fn every_offending_field_is_named_with_its_path() {
    let bad = Route {
        action: Some(route::Action::Route(RouteAction {
            priority: RoutingPriority::High.into(),
            cors: Some(CorsPolicy::default()),
            ..action_to("a")
        })),
        typed_per_filter_config: [("envoy.filters.http.cors".to_owned(), Any::default())].into(),
        ..route_to("a")
    };
    let host = virtual_host("h", &["*"], vec![route_to("a"), bad]);
    assert_eq!(
        text("r", route_configuration("r", vec![host])),
        [
            r#"virtual_hosts[0].routes[1].typed_per_filter_config["envoy.filters.http.cors"]: configuration by route of the filter "envoy.filters.http.cors" () is not supported"#,
            "virtual_hosts[0].routes[1].route.priority: is not supported",
            "virtual_hosts[0].routes[1].route.cors: is not supported",
        ]
    );
}

#[test]
fn an_unknown_http_filter_is_named_with_its_type() {
    let lua = HttpFilter {
        name: "envoy.filters.http.lua".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Lua::default()))),
        ..HttpFilter::default()
    };
    let mut manager = manager("r");
    manager.http_filters = vec![lua, router()];
    assert_eq!(
        text("l", listener("l", "0.0.0.0:80", vec![chain(vec![http(&manager)])])),
        [concat!(
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: ",
            r#"filter "envoy.filters.http.lua" (envoy.extensions.filters.http.lua.v3.Lua) is not supported"#
        )]
    );
}

#[test]
fn an_unknown_network_filter_in_a_typed_struct_is_named_by_what_it_wraps() {
    let wrapped = TypedStruct {
        type_url: "type.googleapis.com/example.Unheard".to_owned(),
        value: Some(Struct {
            fields: [("a".to_owned(), Value { kind: Some(Kind::BoolValue(true)) })].into(),
        }),
    };
    let unheard = network_filter("unheard", &wrapped);
    assert_eq!(
        text("l", listener("l", "0.0.0.0:80", vec![chain(vec![unheard, tcp_proxy("a")])])),
        [r#"filter_chains[0].filters[0].typed_config: filter "unheard" (example.Unheard) is not supported"#]
    );
}

#[test]
fn a_filter_with_a_fault_of_its_own_is_refused() {
    let fault = HttpFault { max_active_faults: crate::build::number(1), ..HttpFault::default() };
    let mut manager = manager("r");
    manager.http_filters.insert(
        0,
        HttpFilter {
            name: "envoy.filters.http.fault".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any(&fault))),
            ..HttpFilter::default()
        },
    );
    assert_eq!(
        text("l", listener("l", "0.0.0.0:80", vec![chain(vec![http(&manager)])])),
        [
            "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.max_active_faults: is not supported"
        ]
    );
}

#[test]
fn the_router_must_be_the_last_filter() {
    let mut manager = manager("r");
    manager.http_filters.clear();
    assert_eq!(
        text("l", listener("l", "0.0.0.0:80", vec![chain(vec![http(&manager)])])),
        [
            "filter_chains[0].filters[0].typed_config.http_filters: does not have the router as its last filter, and nowhere else"
        ]
    );
}

#[test]
fn a_chain_without_a_terminal_filter_is_refused() {
    let nothing = Filter { name: "nothing".to_owned(), config_type: None::<filter::ConfigType> };
    assert_eq!(
        text("l", listener("l", "0.0.0.0:80", vec![chain(vec![])])),
        ["filter_chains[0].filters: does not end with a connection manager or a TCP proxy"]
    );
    assert_eq!(
        text("l", listener("l", "0.0.0.0:80", vec![chain(vec![nothing])])),
        [r#"filter_chains[0].filters[0].typed_config: of filter "nothing" is required"#]
    );
}

#[test]
fn two_chains_for_the_same_connections_are_refused() {
    let same = || chain(vec![tcp_proxy("a")]);
    assert_eq!(
        text("l", listener("l", "0.0.0.0:80", vec![same(), same()])),
        ["filter_chains[1].filter_chain_match: is the same as filter_chains[0].filter_chain_match"]
    );
}

#[test]
fn a_listener_with_a_socket_of_its_own_is_refused() {
    let own = Listener {
        bind_to_port: flag(true),
        ..listener("l", "127.0.0.1:80", vec![chain(vec![tcp_proxy("a")])])
    };
    assert_eq!(
        text("l", own),
        [
            "bind_to_port: is not supported: only virtualOutbound and virtualInbound have a socket of their own"
        ]
    );
}

#[test]
fn a_field_that_is_newer_than_this_version_is_not_dropped_silently() {
    let mut bytes = eds_cluster("a").encode_to_vec();
    // Field 2000, a varint 1.
    bytes.extend([0x80, 0x7d, 0x01]);
    let mut world = World::default();
    let body =
        Any { type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(), value: bytes };
    let delivered = orlop_plan::snapshot::Resource { name: "a".to_owned(), version: "1".to_owned(), body };
    let outcome = world.apply(orlop_plan::snapshot::ResourceType::Cluster, &[delivered], &[]);
    assert_eq!(outcome.errors[0].to_string(), "a: has 3 bytes of fields that this version does not know");
}

#[test]
fn a_domain_belongs_to_one_virtual_host() {
    let hosts = vec![
        virtual_host("one", &["a.example.com"], vec![route_to("a")]),
        virtual_host("two", &["b.example.com", "A.example.com"], vec![route_to("a")]),
    ];
    let fields = text("r", route_configuration("r", hosts));
    assert!(
        fields[0].starts_with(
            r#"virtual_hosts: domain "a.example.com" belongs to the virtual hosts "one" and "two""#
        ),
        "{fields:?}"
    );
}

#[test]
fn a_path_policy_and_a_file_of_a_direct_response_are_refused() {
    use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
    use envoy_types::pb::envoy::config::route::v3::{DirectResponseAction, RouteMatch, route_match};
    let policy =
        TypedExtensionConfig { name: "envoy.path.match.uri_template".to_owned(), typed_config: None };
    let from_file = DataSource {
        watched_directory: None::<WatchedDirectory>,
        specifier: Some(data_source::Specifier::Filename("/etc/passwd".to_owned())),
    };
    let bad = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::PathMatchPolicy(policy)),
            ..prefix("/")
        }),
        action: Some(route::Action::DirectResponse(DirectResponseAction {
            status: 99,
            body: Some(from_file),
            ..DirectResponseAction::default()
        })),
        ..Route::default()
    };
    assert_eq!(
        text("r", route_configuration("r", vec![virtual_host("h", &["*"], vec![bad])])),
        [
            r#"virtual_hosts[0].routes[0].match.path_match_policy: "envoy.path.match.uri_template" is not supported"#,
            "virtual_hosts[0].routes[0].direct_response.status: 99 is not in 200..=599",
            "virtual_hosts[0].routes[0].direct_response.body.filename: is not supported",
        ]
    );
}
