//! Messages to JSON and back: nested types, strictness, and errors that say where.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use envoy_types::pb::envoy::config::listener::v3::Listener;
use orlop_proto::{DecodeError, Descriptors, JsonError};
use prost::{Message, Name};
use serde_json::{Value, json};

fn descriptors() -> Descriptors {
    Descriptors::load().unwrap()
}

/// A listener with one network filter of the given type.
fn listener(filter: &Value) -> Value {
    json!({
        "name": "0.0.0.0_8080",
        "filter_chains": [{ "filters": [{ "name": "filter", "typed_config": filter }] }],
    })
}

#[test]
fn a_message_with_nested_any_values_survives_the_round_trip() {
    let descriptors = descriptors();
    let written = listener(&json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound",
        "stream_idle_timeout": "30s",
        "http_filters": [{
            "name": "istio.alpn",
            "typed_config": {
                "@type": "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
                "alpn_override": [{ "upstream_protocol": "HTTP2", "alpn_override": ["istio-h2", "istio", "h2"] }],
            },
        }],
    }));

    let any = descriptors.from_json(&Listener::type_url(), &written).unwrap();

    assert_eq!(Listener::decode(any.value.as_slice()).unwrap().name, "0.0.0.0_8080");
    assert_eq!(descriptors.to_json(&any).unwrap(), written);
}

#[test]
fn a_typed_struct_keeps_its_own_type_and_value() {
    let descriptors = descriptors();
    let written = listener(&json!({
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange",
        "value": { "protocol": "istio-peer-exchange" },
    }));

    let any = descriptors.from_json(&Listener::type_url(), &written).unwrap();

    assert_eq!(descriptors.to_json(&any).unwrap(), written);
}

#[test]
fn lower_camel_case_is_read_as_well() {
    let any = descriptors().from_json(&Listener::type_url(), &json!({ "bindToPort": false })).unwrap();

    let listener = Listener::decode(any.value.as_slice()).unwrap();

    assert_eq!(listener.bind_to_port.map(|bind| bind.value), Some(false));
}

#[test]
fn a_field_that_the_message_lacks_is_refused_with_its_path() {
    let written = json!({ "filter_chains": [{ "filters": [{ "nmae": "typo" }] }] });

    let error = descriptors().from_json(&Listener::type_url(), &written).unwrap_err();

    assert_eq!(error.to_string(), "filter_chains[0].filters[0]: unrecognized field name 'nmae'");
}

#[test]
fn an_unknown_nested_type_is_named_with_its_path() {
    let written = listener(&json!({ "@type": "type.googleapis.com/acme.Filter" }));

    let error = descriptors().from_json(&Listener::type_url(), &written).unwrap_err();

    let JsonError::UnknownType { type_url, path } = error else { panic!("{error}") };
    assert_eq!(type_url, "type.googleapis.com/acme.Filter");
    assert_eq!(path, "filter_chains[0].filters[0].typed_config");
}

#[test]
fn an_unknown_type_met_while_printing_is_named_with_its_path() {
    let descriptors = descriptors();
    let written = listener(&json!({ "@type": "type.googleapis.com/stats.PluginConfig" }));
    let mut any = descriptors.from_json(&Listener::type_url(), &written).unwrap();
    let position = any.value.windows(12).position(|bytes| bytes == b"PluginConfig").unwrap();
    any.value[position..position + 12].copy_from_slice(b"UnknownThing");

    let error = descriptors.to_json(&any).unwrap_err();

    let JsonError::UnknownType { type_url, path } = error else { panic!("{error}") };
    assert_eq!(type_url, "type.googleapis.com/stats.UnknownThing");
    assert_eq!(path, "filter_chains[0].filters[0].typed_config");
}

#[test]
fn an_error_in_yaml_names_path_and_line() {
    let yaml = "name: web\nfilter_chains:\n- filters:\n  - nmae: typo\n";

    let error =
        descriptors().decode(&Listener::type_url(), serde_norway::Deserializer::from_str(yaml)).unwrap_err();

    let DecodeError::Invalid { path, source } = error else { panic!("{error}") };
    assert_eq!(path, "filter_chains[0].filters[0]");
    assert!(source.to_string().contains("line 4"), "{source}");
}

#[test]
fn a_type_that_nothing_defines_is_refused() {
    let error = descriptors().from_json("type.googleapis.com/acme.Thing", &json!({})).unwrap_err();

    assert_eq!(error.to_string(), ".: unknown type 'type.googleapis.com/acme.Thing'");
}

#[test]
fn integers_may_be_json_strings() {
    let written = json!({ "per_connection_buffer_limit_bytes": "1024" });

    let any = descriptors().from_json(&Listener::type_url(), &written).unwrap();

    let listener = Listener::decode(any.value.as_slice()).unwrap();
    assert_eq!(listener.per_connection_buffer_limit_bytes.map(|limit| limit.value), Some(1024));
}
