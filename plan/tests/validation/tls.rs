//! What becomes of TLS contexts, and which secrets they ask the control plane for.

use orlop_plan::resource::cluster::UpstreamTransportSocket;
use orlop_plan::resource::tls::{CertificateSource, SanType, SecretSource, TlsVersion, UpstreamTlsContext};
use orlop_plan::snapshot::{Interner, Outcome, Resource, ResourceType, Snapshot};
use serde_json::{Value, json};

use crate::support::{any, cluster, cluster_refusals, deliver};

fn socket(context: &Value) -> Value {
    let mut context = context.clone();
    context["@type"] =
        json!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext");
    json!({ "transport_socket": { "name": "tls", "typed_config": context } })
}

/// The context of a cluster that speaks TLS to every endpoint.
fn context(json: &Value) -> UpstreamTlsContext {
    match &cluster(&socket(json)).transport_socket {
        UpstreamTransportSocket::Tls(context) => (**context).clone(),
        other => panic!("{other:?}"),
    }
}

/// Why one is refused; below the context.
fn refusals(json: &Value) -> Vec<String> {
    let prefix = "transport_socket.typed_config.";
    let refusals = cluster_refusals(&socket(json)).into_iter();
    refusals.map(|refusal| refusal.strip_prefix(prefix).unwrap_or(&refusal).to_owned()).collect()
}

/// As istiod writes where a sidecar gets its identity from.
fn own_agent(name: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }],
            },
            "initial_fetch_timeout": "0s",
            "resource_api_version": "V3",
        },
    })
}

fn by_ads(name: &str) -> Value {
    json!({ "name": name, "sds_config": { "ads": {}, "resource_api_version": "V3" } })
}

#[test]
fn mutual_tls_as_istiod_asks_for_it() {
    let context = context(&json!({
        "sni": "outbound_.8080_._.web.shop.svc.cluster.local",
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [own_agent("default")],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [
                        { "san_type": "URI", "matcher": { "exact": "spiffe://cluster.local/ns/shop/sa/web" } },
                    ],
                },
                "validation_context_sds_secret_config": own_agent("ROOTCA"),
            },
            "alpn_protocols": ["istio-peer-exchange", "istio"],
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" },
        },
    }));

    assert_eq!(context.sni, "outbound_.8080_._.web.shop.svc.cluster.local");
    let common = &context.common;
    let own = CertificateSource::Sds(SecretSource::Node("default".into()));
    assert_eq!(common.certificates, [own]);
    assert_eq!(common.validation.secret, Some(SecretSource::Node("ROOTCA".into())));
    let name = &common.validation.context.subject_alt_names[0];
    assert_eq!(name.san_type, Some(SanType::Uri));
    assert!(name.matcher.matches(b"spiffe://cluster.local/ns/shop/sa/web"));
    assert_eq!(common.alpn_protocols, ["istio-peer-exchange", "istio"]);
    assert_eq!(
        (common.parameters.minimum, common.parameters.maximum),
        (Some(TlsVersion::Tls12), Some(TlsVersion::Tls13))
    );
}

#[test]
fn what_would_weaken_or_replace_the_check_is_refused_by_name() {
    let common = |fields: Value| refusals(&json!({ "common_tls_context": fields }));
    assert_eq!(
        common(json!({ "tls_params": { "tls_maximum_protocol_version": "TLSv1_1" } })),
        ["common_tls_context.tls_params.tls_maximum_protocol_version: is not supported: TLS 1.2 and 1.3 are"]
    );
    assert_eq!(
        common(json!({ "custom_handshaker": { "name": "other" } })),
        ["common_tls_context.custom_handshaker: is not supported"]
    );
    assert_eq!(
        common(json!({ "validation_context": { "custom_validator_config": { "name": "other" } } })),
        ["common_tls_context.validation_context.custom_validator_config: is not supported"]
    );
    assert_eq!(refusals(&json!({ "allow_renegotiation": true })), ["allow_renegotiation: is not supported"]);
}

#[test]
fn secrets_from_anywhere_but_the_control_plane_and_the_node_are_refused() {
    let elsewhere = json!({ "name": "s", "sds_config": { "api_config_source": {
        "api_type": "GRPC", "grpc_services": [{ "envoy_grpc": { "cluster_name": "vault" } }],
    } } });
    assert_eq!(
        refusals(&json!({ "common_tls_context": { "tls_certificate_sds_secret_configs": [elsewhere] } })),
        [
            "common_tls_context.tls_certificate_sds_secret_configs[0].sds_config.api_config_source: is not supported"
        ]
    );
}

fn wanted(outcome: &Outcome) -> Vec<&str> {
    outcome.secrets_wanted.iter().map(|(name, _)| &**name).collect()
}

#[test]
fn the_control_plane_is_asked_for_its_secrets_and_not_for_the_nodes() {
    let mut fields = socket(&json!({ "common_tls_context": {
        "tls_certificate_sds_secret_configs": [by_ads("kubernetes://client")],
        "combined_validation_context": { "validation_context_sds_secret_config": own_agent("ROOTCA") },
    } }));
    fields["name"] = json!("c");
    fields["type"] = json!("EDS");
    fields["eds_cluster_config"] = json!({ "eds_config": { "ads": {} } });
    let body = any(ResourceType::Cluster, &fields);
    let (_, outcome) = deliver(ResourceType::Cluster, [("c".to_owned(), body)]);

    assert_eq!(outcome.errors, []);
    assert_eq!(wanted(&outcome), ["kubernetes://client"]);
}

#[test]
fn a_secret_that_nothing_names_any_more_is_forgotten() {
    let (mut snapshot, mut interner) = (Snapshot::new(), Interner::new());
    let mut apply = |kind: ResourceType, json: Value, removed: &[&str]| {
        let name = json["name"].as_str().unwrap_or_default().to_owned();
        let upserts: Vec<_> = (!name.is_empty())
            .then(|| Resource { name, version: "1".to_owned(), body: any(kind, &json) })
            .into_iter()
            .collect();
        let removed: Vec<_> = removed.iter().map(|name| (*name).to_owned()).collect();
        let outcome =
            snapshot.apply(&mut interner, kind, &upserts, &removed, std::time::SystemTime::UNIX_EPOCH);
        assert_eq!(outcome.errors, []);
        (outcome, snapshot.secrets().len())
    };
    let mut fields = socket(&json!({ "common_tls_context": {
        "validation_context_sds_secret_config": by_ads("root"),
    } }));
    fields["name"] = json!("c");
    fields["type"] = json!("STATIC");
    apply(ResourceType::Cluster, fields, &[]);
    let secret = json!({ "name": "root", "validation_context": {} });
    assert_eq!(apply(ResourceType::Secret, secret, &[]).1, 1);

    let (outcome, secrets) = apply(ResourceType::Cluster, Value::Null, &["c"]);

    assert_eq!(wanted(&outcome), [""; 0]);
    assert_eq!(secrets, 0);
}
