//! Which requests are traced and how, and what becomes of what is not done.

use std::sync::Arc;

use orlop_plan::resource::collector::CollectorProtocol;
use orlop_plan::resource::http_connection_manager::HttpConnectionManager;
use orlop_plan::resource::listener::TerminalFilter;
use orlop_plan::resource::tracing::{CustomTagValue, Fraction, Tracing, TracingProvider};
use orlop_plan::snapshot::{ResourceType, Snapshot};
use serde_json::{Value, json};

use crate::support::{accepted, refused};

const KIND: ResourceType = ResourceType::Listener;
const AT: &str = "filter_chains[0].filters[0].typed_config.tracing";

fn listener(tracing: &Value) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http", "route_config": {}, "tracing": tracing,
        "http_filters": [{ "name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
    });
    json!({
        "name": "l", "bind_to_port": false,
        "address": { "socket_address": { "address": "10.0.0.8", "port_value": 80 } },
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    })
}

fn provider(kind: &str, config: &Value) -> Value {
    let mut config = config.clone();
    config["@type"] = json!(format!("type.googleapis.com/envoy.config.trace.v3.{kind}"));
    json!({ "name": "provider", "typed_config": config })
}

fn zipkin() -> Value {
    let uri = json!({ "uri": "http://zipkin.example:9411/api/v2/spans", "cluster": "c", "timeout": "1s" });
    provider(
        "ZipkinConfig",
        &json!({ "collector_endpoint_version": "HTTP_JSON", "collector_service": { "http_uri": uri } }),
    )
}

fn manager(snapshot: &Snapshot) -> Arc<HttpConnectionManager> {
    let listener = snapshot.listeners().get("l").expect("accepted");
    let TerminalFilter::HttpConnectionManager(manager) = &listener.filter_chains[0].terminal else {
        panic!("{listener:?}")
    };
    Arc::clone(manager)
}

fn with<T>(tracing: &Value, look: impl FnOnce(&Tracing) -> T) -> T {
    look(manager(&accepted(KIND, &listener(tracing))).tracing.as_ref().expect("there"))
}

fn told(tracing: &Value) -> Vec<String> {
    let snapshot = accepted(KIND, &listener(tracing));
    snapshot.without_effect().iter().map(|told| told.note.to_string()).collect()
}

#[test]
fn sampling_has_envoys_steps() {
    let sampling = json!({ "client_sampling": { "value": 33.9 }, "random_sampling": { "value": 1.006 } });
    with(&sampling, |tracing| {
        assert_eq!(tracing.sampling.client, Fraction { numerator: 33, denominator: 100 });
        assert_eq!(tracing.sampling.random, Fraction { numerator: 101, denominator: 10_000 });
        assert_eq!(tracing.sampling.overall, Fraction::ALL);
    });
    assert_eq!(
        refused(KIND, &listener(&json!({ "random_sampling": { "value": 101 } }))),
        [format!("{AT}.random_sampling.value: 101 is not in 0..=100")]
    );
}

#[test]
fn a_uri_is_taken_apart() {
    with(&json!({ "provider": zipkin() }), |tracing| {
        let collector = tracing.provider.as_ref().expect("known").collector().clone();
        assert_eq!((&*collector.cluster, collector.authority.as_str()), ("c", "zipkin.example:9411"));
        assert_eq!(collector.protocol, CollectorProtocol::Http { path: "/api/v2/spans".to_owned() });
    });
}

#[test]
fn a_provider_that_is_not_known_is_told_by_name_and_holds_nothing_up() {
    let datadog = provider("DatadogConfig", &json!({ "collector_cluster": "c", "service_name": "s" }));
    assert_eq!(
        told(&json!({ "provider": datadog })),
        [format!(
            "{AT}.provider.typed_config: tracing provider \"provider\" (envoy.config.trace.v3.DatadogConfig) is not \
             supported; no traces are made"
        )]
    );
    let nowhere = provider("OpenTelemetryConfig", &json!({ "service_name": "s" }));
    assert_eq!(
        told(&json!({ "provider": nowhere })),
        [format!(
            "{AT}.provider.typed_config.grpc_service: is missing, and spans would go nowhere; no traces are made"
        )]
    );
}

#[test]
fn attempts_without_spans_of_their_own_are_told() {
    let tracing = |spawns: bool| json!({ "provider": zipkin(), "spawn_upstream_span": spawns });
    assert_eq!(told(&tracing(false)), [""; 0]);
    assert_eq!(
        told(&tracing(true)),
        [format!("{AT}.spawn_upstream_span: a span is one of a request, not of each of its attempts")]
    );
}

#[test]
fn what_a_resource_is_comes_from_its_name_and_from_static_detectors() {
    let attributes = json!({
        "@type": "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3.StaticConfigResourceDetectorConfig",
        "attributes": { "place": "here" },
    });
    let config = json!({
        "service_name": "shop",
        "grpc_service": { "envoy_grpc": { "cluster_name": "c" } },
        "resource_detectors": [{ "name": "static", "typed_config": attributes }],
    });
    with(&json!({ "provider": provider("OpenTelemetryConfig", &config) }), |tracing| {
        let Some(TracingProvider::OpenTelemetry(config)) = tracing.provider.as_deref() else {
            panic!("{tracing:?}")
        };
        let resource = [("place", "here"), ("service.name", "shop")];
        assert_eq!(config.resource, resource.map(|(name, value)| (name.to_owned(), value.to_owned())));
    });
}

#[test]
fn a_tag_for_which_something_is_missing_is_left_out_alone() {
    let tags = json!([
        { "tag": "kept", "literal": { "value": "v" } },
        { "tag": "environment", "environment": { "name": "HOME", "default_value": "none" } },
        { "tag": "lost", "value": "%DYNAMIC_METADATA(a)%" },
    ]);
    let tracing = json!({ "provider": zipkin(), "custom_tags": tags });
    with(&tracing, |tracing| {
        let tags: Vec<_> = tracing.custom_tags.iter().map(|tag| (&*tag.tag, tag.value.clone())).collect();
        let literal = |value: &str| CustomTagValue::Literal(value.to_owned());
        assert_eq!(tags, [("kept", literal("v")), ("environment", literal("none"))]);
    });
    assert_eq!(
        told(&tracing),
        [format!(
            "{AT}.custom_tags[2].value: the operator %DYNAMIC_METADATA(a)% is not supported; spans are without the tag"
        )]
    );
}
