//! What becomes of secrets and of the mesh's roots.

use std::sync::LazyLock;

use orlop_plan::resource::secret::{Material, SecretContent};
use orlop_plan::snapshot::ResourceType;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use serde_json::{Value, json};

use crate::support::{accepted, refused};

const KIND: ResourceType = ResourceType::Secret;

static CERTIFICATE: LazyLock<String> = LazyLock::new(|| ISSUED.cert.pem());
static KEY: LazyLock<String> = LazyLock::new(|| ISSUED.signing_key.serialize_pem());
static ISSUED: LazyLock<CertifiedKey<KeyPair>> =
    LazyLock::new(|| generate_simple_self_signed(["web.example".to_owned()]).expect("a certificate"));

fn certificate(fields: &Value) -> Value {
    let mut json = json!({
        "certificate_chain": { "inline_string": *CERTIFICATE },
        "private_key": { "inline_string": *KEY },
    });
    for (field, value) in fields.as_object().expect("fields") {
        json[field] = value.clone();
    }
    json!({ "name": "kubernetes://web", "tls_certificate": json })
}

#[test]
fn a_certificate_has_its_chain_and_its_key() {
    let snapshot = accepted(KIND, &certificate(&json!({})));

    let secret = snapshot.secrets().get("kubernetes://web").expect("accepted");
    let SecretContent::TlsCertificate(certificate) = &secret.content else { panic!("{secret:?}") };
    let Material::Inline(chain) = &certificate.certificate_chain else { panic!("inline") };
    assert_eq!(chain.len(), 1);
    let Material::Inline(key) = &certificate.private_key else { panic!("inline") };
    assert!(key.der().secret_der().len() > 100);
}

#[test]
fn a_key_is_neither_printed_nor_kept_beside_the_resource() {
    let snapshot = accepted(KIND, &certificate(&json!({})));

    let (_, stored) = snapshot.secrets().iter().next().expect("accepted");
    let line = KEY.lines().nth(1).expect("a line of the key");
    assert!(format!("{stored:?}").contains("PrivateKey([redacted])"));
    let kept = String::from_utf8_lossy(&stored.bytes.bytes()).into_owned();
    assert!(kept.contains("[redacted]") && kept.contains("BEGIN CERTIFICATE"), "{kept}");
    assert!(!kept.contains(line), "the key is kept");
}

#[test]
fn what_holds_no_key_is_refused_without_being_repeated() {
    let refusals = refused(KIND, &certificate(&json!({ "private_key": { "inline_string": "s3cret" } })));
    assert_eq!(refusals, ["tls_certificate.private_key: holds no private key in PEM"]);
}

#[test]
fn what_holds_no_certificate_is_refused() {
    let refusals = refused(KIND, &certificate(&json!({ "certificate_chain": { "inline_string": *KEY } })));
    assert_eq!(refusals, ["tls_certificate.certificate_chain: holds no certificate in PEM"]);
    let refusals = refused(KIND, &json!({ "name": "r", "validation_context": { "trusted_ca": {} } }));
    assert_eq!(refusals, ["validation_context.trusted_ca: is required"]);
}

#[test]
fn other_kinds_of_secrets_are_refused_by_name() {
    assert_eq!(
        refused(KIND, &json!({ "name": "g", "generic_secret": {} })),
        ["generic_secret: is not supported"]
    );
    let keys = json!({ "name": "k", "session_ticket_keys": {} });
    assert_eq!(refused(KIND, &keys), ["session_ticket_keys: is not supported"]);
}

#[test]
fn the_roots_of_the_mesh_are_every_certificate_of_every_text() {
    let two = CERTIFICATE.repeat(2);
    let snapshot =
        accepted(ResourceType::ProxyConfig, &json!({ "ca_certificates_pem": [two, *CERTIFICATE] }));

    assert_eq!(snapshot.proxy_config().expect("accepted").ca_certificates.len(), 3);
}

#[test]
fn a_root_that_is_none_is_refused_where_it_stands() {
    let refusals =
        refused(ResourceType::ProxyConfig, &json!({ "ca_certificates_pem": [*CERTIFICATE, "root"] }));
    assert_eq!(refusals, ["ca_certificates_pem[1]: holds no certificate in PEM"]);
}
