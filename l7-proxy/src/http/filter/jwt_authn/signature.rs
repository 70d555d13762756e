//! Whether one of a provider's keys has signed a token.

use orlop_plan::jwt::{Algorithm, JwtError, Token};
use orlop_plan::resource::jwt_authn::{Jwk, JwkKey};
use ring::hmac;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

/// A key says whose tokens it is for by `kid` and `alg`; what either of both leaves out does not matter.
pub(super) fn verify(token: &Token<'_>, keys: &[Jwk]) -> Result<(), JwtError> {
    if keys.is_empty() {
        return Err(JwtError::NoKeys);
    }
    let (algorithm, alg) = &token.algorithm;
    let for_it = |key: &&Jwk| {
        (token.kid.is_empty() || key.kid.is_empty() || key.kid == token.kid)
            && (key.alg.is_empty() || key.alg == *alg)
    };
    let mut matching = keys.iter().filter(for_it).peekable();
    if matching.peek().is_none() {
        return Err(JwtError::NoMatchingKey);
    }
    if matching.any(|key| is_signed(token, *algorithm, &key.key)) {
        return Ok(());
    }
    Err(JwtError::Signature)
}

/// A key of another kind than the algorithm's has signed nothing.
fn is_signed(token: &Token<'_>, algorithm: Algorithm, key: &JwkKey) -> bool {
    match (algorithm, key) {
        (Algorithm::Rs256, JwkKey::Rsa { n, e }) => rsa(token, &signature::RSA_PKCS1_2048_8192_SHA256, n, e),
        (Algorithm::Rs384, JwkKey::Rsa { n, e }) => rsa(token, &signature::RSA_PKCS1_2048_8192_SHA384, n, e),
        (Algorithm::Rs512, JwkKey::Rsa { n, e }) => rsa(token, &signature::RSA_PKCS1_2048_8192_SHA512, n, e),
        (Algorithm::Ps256, JwkKey::Rsa { n, e }) => rsa(token, &signature::RSA_PSS_2048_8192_SHA256, n, e),
        (Algorithm::Ps384, JwkKey::Rsa { n, e }) => rsa(token, &signature::RSA_PSS_2048_8192_SHA384, n, e),
        (Algorithm::Ps512, JwkKey::Rsa { n, e }) => rsa(token, &signature::RSA_PSS_2048_8192_SHA512, n, e),
        (Algorithm::Es256, JwkKey::P256(point)) => {
            unparsed(token, &signature::ECDSA_P256_SHA256_FIXED, point)
        }
        (Algorithm::Es384, JwkKey::P384(point)) => {
            unparsed(token, &signature::ECDSA_P384_SHA384_FIXED, point)
        }
        (Algorithm::EdDsa, JwkKey::Ed25519(key)) => unparsed(token, &signature::ED25519, key),
        (Algorithm::Hs256, JwkKey::Secret(secret)) => shared(token, hmac::HMAC_SHA256, secret),
        (Algorithm::Hs384, JwkKey::Secret(secret)) => shared(token, hmac::HMAC_SHA384, secret),
        (Algorithm::Hs512, JwkKey::Secret(secret)) => shared(token, hmac::HMAC_SHA512, secret),
        _ => false,
    }
}

fn rsa(token: &Token<'_>, parameters: &'static RsaParameters, n: &[u8], e: &[u8]) -> bool {
    RsaPublicKeyComponents { n, e }.verify(parameters, token.signed, &token.signature).is_ok()
}

fn unparsed(token: &Token<'_>, algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(token.signed, &token.signature).is_ok()
}

fn shared(token: &Token<'_>, algorithm: hmac::Algorithm, secret: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(algorithm, secret), token.signed, &token.signature).is_ok()
}
