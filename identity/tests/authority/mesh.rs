//! An authority's key, and whatever can be made with it: good certificates and bad ones.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};

/// How far back certificates begin, as istiod does it.
const SKEW: Duration = Duration::from_mins(2);

pub(crate) struct Mesh {
    pub(crate) root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What is to be in a certificate.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) uri: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Wanted {
    pub(crate) fn of(uri: &str, lifetime: Duration) -> Self {
        let now = SystemTime::now();
        Self { uri: uri.to_owned(), not_before: now - SKEW, not_after: now + lifetime }
    }
}

impl Mesh {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = authority(name);
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn sign(&self, wanted: &Wanted, key: &impl PublicKeyData) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(wanted.uri.as_str().try_into().unwrap())];
        params.not_before = wanted.not_before.into();
        params.not_after = wanted.not_after.into();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    /// An authority below this one, and its certificate.
    pub(crate) fn below(&self, name: &str) -> (Self, String) {
        let key = KeyPair::generate().unwrap();
        let params = authority(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        (Self { root: self.root.clone(), issuer: Issuer::new(params, key) }, certificate)
    }

    /// A server's certificate and key.
    pub(crate) fn server(&self, name: &str) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
