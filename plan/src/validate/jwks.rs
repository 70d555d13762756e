//! JSON web key sets (RFC 7517), as they come in the configuration.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::resource::jwt_authn::{Jwk, JwkKey};

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// The fields that keys of all kinds have, those of other kinds left out.
#[derive(Deserialize)]
struct Key {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    #[serde(default)]
    k: String,
}

/// The keys of a set that can be used. As with Envoy, one that cannot be is passed over, and a text that is no set has none:
/// tokens that need a key are refused then.
pub(super) fn jwks(text: &[u8]) -> Vec<Jwk> {
    let set = serde_json::from_slice::<Set>(text).map(|set| set.keys).unwrap_or_default();
    set.into_iter().filter_map(|key| jwk(serde_json::from_value(key).ok()?)).collect()
}

fn jwk(key: Key) -> Option<Jwk> {
    let Key { kty, kid, alg, crv, n, e, x, y, k } = key;
    let key = match (kty.as_str(), crv.as_str()) {
        ("RSA", _) => JwkKey::Rsa { n: bytes(&n)?, e: bytes(&e)? },
        ("EC", "P-256") => JwkKey::P256(point(&x, &y, 32)?),
        ("EC", "P-384") => JwkKey::P384(point(&x, &y, 48)?),
        ("OKP", "Ed25519") => JwkKey::Ed25519(bytes(&x)?),
        ("oct", _) => JwkKey::Secret(bytes(&k)?),
        _ => return None,
    };
    Some(Jwk { kid, alg, key })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty())
}

fn point(x: &str, y: &str, length: usize) -> Option<Vec<u8>> {
    let (x, y) = (bytes(x)?, bytes(y)?);
    (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
}
