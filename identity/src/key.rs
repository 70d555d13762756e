//! A new private key, and what is asked for with it. The key exists in memory only and is wiped when it is dropped or, with
//! its certificate, when the last plan that holds it is.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm,
    SigningKey,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::Error;
use crate::spiffe::SpiffeId;

/// An ECDSA key on P-256, which every Istio and Envoy takes.
pub(crate) struct NewKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl NewKey {
    pub(crate) fn generate() -> Result<Self, Error> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| Error::Key("the system gives no randomness".to_owned()))?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random)
            .map_err(|error| Error::Key(error.to_string()))?;
        Ok(Self { pkcs8, pair, random })
    }

    /// A request in PEM for a certificate of this name (PKCS #10, RFC 2986).
    pub(crate) fn request(&self, id: &SpiffeId) -> Result<String, Error> {
        let made = || {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
            params.serialize_request(self)?.pem()
        };
        made().map_err(|error| Error::Key(error.to_string()))
    }

    pub(crate) fn into_der(mut self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(std::mem::take(&mut *self.pkcs8)).into()
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey([redacted])")
    }
}

impl PublicKeyData for NewKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for NewKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&self.random, message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        let key = NewKey::generate().unwrap();

        assert_eq!(format!("{key:?}"), "NewKey([redacted])");
    }

    #[test]
    fn no_two_keys_are_equal() {
        let [one, other] = [NewKey::generate().unwrap(), NewKey::generate().unwrap()];

        assert_ne!(one.into_der(), other.into_der());
    }
}
