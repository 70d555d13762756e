//! Messages as JSON for a reader: whatever they hold, the rest is printed, and secrets are not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter::ConfigType};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    GenericSecret, Secret, TlsCertificate, secret,
};
use envoy_types::pb::google::protobuf::Any;
use orlop_proto::Descriptors;
use prost::{Message, Name};
use serde_json::{Value, json};

const KEY: &str = "-----BEGIN PRIVATE KEY-----";

fn print<T: Message + Name>(message: &T) -> Value {
    Descriptors::load().unwrap().print(&T::type_url(), &message.encode_to_vec())
}

fn inline(text: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineString(text.to_owned())), ..DataSource::default() }
}

/// A listener with one network filter.
fn listener(typed_config: Any) -> Listener {
    let filter =
        Filter { name: "filter".to_owned(), config_type: Some(ConfigType::TypedConfig(typed_config)) };
    let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
    Listener { name: "0.0.0.0_80".to_owned(), filter_chains: vec![chain], ..Listener::default() }
}

fn typed_config(printed: &Value) -> &Value {
    printed.pointer("/filter_chains/0/filters/0/typed_config").unwrap()
}

#[test]
fn a_secret_shows_its_certificate_and_not_its_key() {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline("-----BEGIN CERTIFICATE-----")),
        private_key: Some(inline(KEY)),
        password: Some(inline("hunter2")),
        ..TlsCertificate::default()
    };
    let printed = print(&Secret {
        name: "default".to_owned(),
        r#type: Some(secret::Type::TlsCertificate(certificate)),
    });

    let redacted = json!({ "inline_string": "[redacted]" });
    assert_eq!(
        printed,
        json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "default",
            "tls_certificate": {
                "certificate_chain": { "inline_string": "-----BEGIN CERTIFICATE-----" },
                "private_key": redacted,
                "password": redacted,
            },
        })
    );
}

#[test]
fn secrets_are_found_in_maps_and_in_nested_values() {
    let secret =
        GenericSecret { secrets: [("a".to_owned(), inline(KEY))].into(), ..GenericSecret::default() };
    let secret = Secret { name: "s".to_owned(), r#type: Some(secret::Type::GenericSecret(secret)) };
    let extension = TypedExtensionConfig {
        name: "e".to_owned(),
        typed_config: Some(Any { type_url: Secret::type_url(), value: secret.encode_to_vec() }),
    };
    let nested =
        listener(Any { type_url: TypedExtensionConfig::type_url(), value: extension.encode_to_vec() });

    let printed = print(&nested).to_string();

    assert!(printed.contains("[redacted]"), "{printed}");
    assert!(!printed.contains("PRIVATE"), "{printed}");
}

#[test]
fn a_value_of_an_unknown_type_is_named_and_the_rest_is_printed() {
    let type_url = "type.googleapis.com/example.Unknown".to_owned();
    let printed = print(&listener(Any { type_url: type_url.clone(), value: vec![1, 2, 3] }));

    assert_eq!(printed["name"], "0.0.0.0_80");
    let typed_config = typed_config(&printed);
    assert_eq!(typed_config["@type"], "type.googleapis.com/udpa.type.v1.TypedStruct");
    assert_eq!(typed_config["type_url"], type_url);
    assert_eq!(typed_config["value"]["not_printed"], "this build has no descriptor of the type");
}

#[test]
fn a_malformed_value_is_named_and_the_rest_is_printed() {
    let printed = print(&listener(Any { type_url: Listener::type_url(), value: vec![0xff; 3] }));

    assert_eq!(typed_config(&printed)["type_url"], Listener::type_url());
    assert!(typed_config(&printed)["value"]["not_printed"].as_str().unwrap().starts_with("malformed: "));
}

#[test]
fn values_without_a_json_form_do_not_lose_the_message() {
    // A timestamp beyond the year 9999 has none.
    let printed = Descriptors::load().unwrap().print(
        "type.googleapis.com/google.protobuf.Timestamp",
        &envoy_types::pb::google::protobuf::Timestamp { seconds: i64::MAX, nanos: -1 }.encode_to_vec(),
    );

    assert_eq!(printed["type_url"], "type.googleapis.com/google.protobuf.Timestamp");
}

#[test]
fn values_nested_without_end_are_cut_off() {
    let mut any = Any { type_url: Listener::type_url(), value: Vec::new() };
    for _ in 0..1000 {
        let extension = TypedExtensionConfig { name: String::new(), typed_config: Some(any) };
        any = Any { type_url: TypedExtensionConfig::type_url(), value: extension.encode_to_vec() };
    }

    let printed = print(&listener(any)).to_string();

    assert!(printed.contains("nested too deeply"), "{printed}");
}
