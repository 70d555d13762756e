//! `jwt_authn` in a listener: what is taken, and what is refused by its field.

use orlop_plan::resource::http_connection_manager::{HttpConnectionManager, HttpFilter};
use orlop_plan::resource::jwt_authn::{JwkKey, JwtRequirement};
use orlop_plan::resource::listener::TerminalFilter;
use orlop_plan::snapshot::ResourceType;
use serde_json::{Value, json};

use crate::support::{accepted, refused};

const TYPE: &str = "type.googleapis.com/envoy.extensions.filters";

fn listener(direction: &str, jwt: &Value) -> Value {
    let mut filter = jwt.clone();
    filter["@type"] = json!(format!("{TYPE}.http.jwt_authn.v3.JwtAuthentication"));
    let router = json!({ "@type": format!("{TYPE}.http.router.v3.Router") });
    let manager = json!({
        "@type": format!("{TYPE}.network.http_connection_manager.v3.HttpConnectionManager"),
        "route_config": { "name": "r" },
        "http_filters": [
            { "name": "envoy.filters.http.jwt_authn", "typed_config": filter },
            { "name": "router", "typed_config": router },
        ],
    });
    json!({
        "name": "virtualInbound",
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 15006 } },
        "use_original_dst": true,
        "traffic_direction": direction,
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }],
    })
}

fn provider() -> Value {
    let rsa = json!({ "kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB" });
    let secret = json!({ "kty": "oct", "k": "c2VjcmV0" });
    let unknown = json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" });
    let keys = json!({ "keys": [rsa, secret, unknown] });
    json!({ "issuer": "i", "local_jwks": { "inline_string": keys.to_string() } })
}

fn with(provider: &Value, requires: &Value) -> Value {
    json!({
        "providers": { "p": provider },
        "rules": [{ "match": { "prefix": "/" }, "requires": requires }],
    })
}

fn manager(listener: &Value) -> std::sync::Arc<HttpConnectionManager> {
    let snapshot = accepted(ResourceType::Listener, listener);
    let listener = snapshot.listeners().get("virtualInbound").expect("accepted");
    match &listener.filter_chains[0].terminal {
        TerminalFilter::HttpConnectionManager(manager) => manager.clone(),
        TerminalFilter::TcpProxy(_) => panic!("it is HTTP"),
    }
}

#[test]
fn what_istiod_writes_is_taken_and_a_secret_is_not_printed() {
    let any =
        json!({ "requires_any": { "requirements": [{ "allow_missing": {} }, { "provider_name": "p" }] } });
    let manager = manager(&listener("INBOUND", &with(&provider(), &any)));
    let HttpFilter::JwtAuthn(filter) = &manager.http_filters[0] else { panic!("{manager:?}") };

    let provider = &filter.providers[0];
    assert_eq!(provider.keys.len(), 2, "a key of another kind is passed over");
    assert_eq!(provider.keys[1].key, JwkKey::Secret(b"secret".to_vec()));
    assert!(!format!("{provider:?}").contains("115, 101"), "{provider:?}");
    assert_eq!(provider.from_headers[0].prefix, "Bearer ");
    assert_eq!((provider.from_params[0].as_str(), provider.clock_skew_seconds), ("access_token", 60));
    let Some(JwtRequirement::Any(any)) = &filter.rules[0].requires else { panic!("{filter:?}") };
    assert!(matches!(any[..], [JwtRequirement::Provider(_), JwtRequirement::AllowMissing(_)]), "{any:?}");
}

#[test]
fn keys_that_are_none_leave_a_provider_without_any() {
    let provider = json!({ "issuer": "i", "local_jwks": { "inline_string": "no keys" } });
    let manager = manager(&listener("INBOUND", &with(&provider, &json!({ "provider_name": "p" }))));
    let HttpFilter::JwtAuthn(filter) = &manager.http_filters[0] else { panic!("{manager:?}") };
    assert_eq!(filter.providers[0].keys, []);
}

#[test]
fn what_is_not_supported_is_refused_by_its_field() {
    let remote = json!({ "issuer": "i", "remote_jwks": {} });
    let mut subjects = provider();
    subjects["subjects"] = json!({ "exact": "s" });
    let by_name = json!({ "provider_name": "p" });
    for (jwt, field) in [
        (with(&remote, &by_name), "providers[\"p\"].remote_jwks: is not supported"),
        (with(&subjects, &by_name), "providers[\"p\"].subjects: is not supported"),
        (
            with(&provider(), &json!({ "provider_name": "q" })),
            "rules[0].requires.provider_name: there is no provider",
        ),
        (
            with(&provider(), &json!({ "allow_missing_or_failed": {} })),
            "allow_missing_or_failed: is not supported",
        ),
    ] {
        let refusals = refused(ResourceType::Listener, &listener("INBOUND", &jwt));
        assert!(refusals[0].contains(field), "{field} in {refusals:?}");
    }
}

#[test]
fn it_stands_where_requests_come_in_alone() {
    let jwt = with(&provider(), &json!({ "provider_name": "p" }));
    let refusals = refused(ResourceType::Listener, &listener("OUTBOUND", &jwt));
    assert!(refusals[0].contains("traffic_direction INBOUND alone"), "{refusals:?}");
}
