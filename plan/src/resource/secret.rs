//! `tls.v3.Secret`. A private key is not printed, and is wiped when nobody holds it any more.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::tls::{SanType, SubjectAltNameMatcher};

/// `Secret`. Session ticket keys and generic secrets are refused when validated.
#[derive(Debug)]
pub struct Secret {
    /// The name that SDS knows it by.
    pub name: Arc<str>,
    /// What it is.
    pub content: SecretContent,
}

impl Secret {
    /// A certificate with its key, `chain` with the own one first.
    pub fn certificate(name: &str, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        let certificate = TlsCertificate {
            certificate_chain: Material::Inline(chain),
            private_key: Material::Inline(PrivateKey::new(key)),
        };
        Self { name: name.into(), content: SecretContent::TlsCertificate(certificate) }
    }

    /// Authorities to trust, and nothing else that is asked of a peer.
    pub fn trusted_ca(name: &str, authorities: Vec<CertificateDer<'static>>) -> Self {
        let context = CertificateValidationContext {
            trusted_ca: Some(Material::Inline(authorities)),
            ..CertificateValidationContext::default()
        };
        Self { name: name.into(), content: SecretContent::ValidationContext(context) }
    }
}

/// What a [`Secret`] is.
#[derive(Debug, PartialEq)]
pub enum SecretContent {
    /// `tls_certificate`
    TlsCertificate(TlsCertificate),
    /// `validation_context`
    ValidationContext(CertificateValidationContext),
}

/// `TlsCertificate`.
#[derive(Debug, PartialEq)]
pub struct TlsCertificate {
    /// `certificate_chain`, the peer's own first.
    pub certificate_chain: Material<Vec<CertificateDer<'static>>>,
    /// `private_key`.
    pub private_key: Material<PrivateKey>,
}

/// `CertificateValidationContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CertificateValidationContext {
    /// `trusted_ca`: the authorities; any certificate will do without.
    pub trusted_ca: Option<Material<Vec<CertificateDer<'static>>>>,
    /// `match_typed_subject_alt_names` and its predecessor: one has to match; any name will do without.
    pub subject_alt_names: Vec<SubjectAltNameMatcher>,
    /// `crl`.
    pub crl: Option<Material<Vec<CertificateRevocationListDer<'static>>>>,
    /// `trust_chain_verification` is `ACCEPT_UNTRUSTED`.
    pub accepts_untrusted: bool,
}

impl CertificateValidationContext {
    /// Whether a certificate of this SPIFFE identity has one of the names that are looked for.
    pub(crate) fn expects(&self, principal: &str) -> bool {
        let mut names = self.subject_alt_names.iter();
        let is_uri = |name: &SubjectAltNameMatcher| matches!(name.san_type, None | Some(SanType::Uri));
        self.subject_alt_names.is_empty()
            || names.any(|name| is_uri(name) && name.matcher.matches(principal.as_bytes()))
    }
}

/// Where certificates and keys are.
#[derive(Debug, Clone, PartialEq)]
pub enum Material<T> {
    /// Here.
    Inline(T),
    /// In a file of the pod.
    File(String),
}

/// A private key. It is shared rather than copied.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Arc<Zeroizing<PrivateKeyDer<'static>>>);

impl PrivateKey {
    pub(crate) fn new(key: PrivateKeyDer<'static>) -> Self {
        Self(Arc::new(Zeroizing::new(key)))
    }

    /// The key itself.
    pub fn der(&self) -> &PrivateKeyDer<'static> {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey([redacted])")
    }
}
