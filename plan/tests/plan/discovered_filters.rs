//! Listeners with filters that they take by name: they wait for them, and without them they are not served.

use envoy_types::pb::envoy::config::core::v3::{ExtensionConfigSource, TypedExtensionConfig};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig as GrpcStats;
use envoy_types::pb::envoy::extensions::filters::http::lua::v3::Lua;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter::ConfigType,
};
use orlop_plan::kernel::{Frontend, OutboundAction};

use crate::build::{
    World, ads, any, assignment, eds_cluster, endpoint, http_chain, listener, locality, manager,
    passthrough_cluster, route_configuration, route_to, virtual_host,
};

const FRONTEND: Frontend = Frontend { addr: None, port: 8080 };

fn with_filter(source: ExtensionConfigSource) -> Listener {
    let discovered = HttpFilter {
        name: "auth".to_owned(),
        config_type: Some(ConfigType::ConfigDiscovery(source)),
        ..HttpFilter::default()
    };
    let mut manager = manager("8080");
    manager.http_filters.insert(0, discovered);
    listener("http", "0.0.0.0:8080", vec![http_chain(&manager)])
}

fn by_ads() -> ExtensionConfigSource {
    ExtensionConfigSource { config_source: ads(), ..ExtensionConfigSource::default() }
}

/// One HTTP service, complete but for the filter.
fn world(source: ExtensionConfigSource) -> World {
    let mut world = World::default();
    world.clusters(&[eds_cluster("a"), passthrough_cluster()]);
    world.endpoints(&[assignment("a", vec![locality(vec![endpoint("10.0.0.1:80")])])]);
    let outcome = world.listeners(&[with_filter(source)]);
    assert_eq!(outcome.extensions_wanted.keys().map(|name| &**name).collect::<Vec<_>>(), ["auth"]);
    world.routes(&[route_configuration("8080", vec![virtual_host("h", &["*"], vec![route_to("a")])])]);
    world
}

fn auth<M: prost::Message + prost::Name>(filter: &M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: "auth".to_owned(), typed_config: Some(any(filter)) }
}

#[test]
fn a_listener_waits_for_its_filter() {
    let mut world = world(by_ads());
    let before = world.compile(None);
    assert_eq!(before.held()[0].to_string(), "listener `http` waits for extension configuration `auth`");
    assert_eq!(before.kernel().frontends.get(&FRONTEND), None);

    world.deliver(&[("auth", auth(&GrpcStats::default()))], &[]);
    let after = world.compile(Some(&before));

    assert_eq!(after.held(), []);
    assert!(after.kernel().frontends.get(&FRONTEND).is_some());
}

#[test]
fn without_its_filter_what_a_listener_would_have_taken_is_refused() {
    let mut world = world(by_ads());
    let before = world.compile(None);

    let outcome = world.deliver(&[("auth", auth(&Lua::default()))], &[]);
    assert_eq!(outcome.errors.len(), 1);
    let refused = world.compile(Some(&before));
    assert_eq!(refused.kernel().frontends.get(&FRONTEND), Some(&OutboundAction::Block));

    world.deliver(&[("auth", auth(&GrpcStats::default()))], &[]);
    let after = world.compile(Some(&refused));
    assert_ne!(after.kernel().frontends.get(&FRONTEND), Some(&OutboundAction::Block));
}

#[test]
fn an_older_version_of_the_listener_goes_on_while_the_filter_is_refused() {
    let mut world = world(by_ads());
    world.listeners(&[listener("http", "0.0.0.0:8080", vec![http_chain(&manager("8080"))])]);
    let before = world.compile(None);
    let served = before.kernel().frontends.get(&FRONTEND).cloned();

    world.listeners(&[with_filter(by_ads())]);
    world.deliver(&[("auth", auth(&Lua::default()))], &[]);
    let after = world.compile(Some(&before));

    assert_eq!(after.kernel().frontends.get(&FRONTEND).cloned(), served);
}

#[test]
fn a_default_stands_in_for_a_filter_that_is_refused() {
    let source = ExtensionConfigSource { default_config: Some(any(&GrpcStats::default())), ..by_ads() };
    let mut world = world(source);
    assert_eq!(world.compile(None).held().len(), 1, "it waits even so");

    world.deliver(&[("auth", auth(&Lua::default()))], &[]);
    let after = world.compile(None);

    assert_eq!(after.held(), []);
    assert_ne!(after.kernel().frontends.get(&FRONTEND), Some(&OutboundAction::Block));
}

#[test]
fn a_default_that_need_not_wait_serves_at_once() {
    let source = ExtensionConfigSource {
        default_config: Some(any(&GrpcStats::default())),
        apply_default_config_without_warming: true,
        ..by_ads()
    };
    assert_eq!(world(source).compile(None).held(), []);
}
