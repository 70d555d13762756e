//! From a TLS context and a workload's secrets to keys and authorities, or to what is missing.

use std::sync::Arc;

use orlop_plan::resource::secret::{
    CertificateValidationContext, Material, Secret, SecretContent, TlsCertificate,
};
use orlop_plan::resource::tls::{
    CertificateSource, CommonTlsContext, SecretSource, SubjectAltNameMatcher, Validation,
};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateRevocationListDer;

use super::Secrets;

/// Why TLS cannot be spoken as a context asks for it.
#[derive(Debug, thiserror::Error)]
pub(super) enum MaterialError {
    /// It has not come.
    #[error("secret {0:?} is not there")]
    Missing(SecretSource),
    /// A certificate where authorities are asked for, or the other way round.
    #[error("secret {0:?} is of another kind")]
    OfAnotherKind(SecretSource),
    /// A server without a certificate.
    #[error("there is no certificate to show to clients")]
    NothingToShow,
    /// Nothing is read from the pod's files.
    #[error("{0} is a file of the pod, which is not read")]
    File(String),
    /// Names without authorities would mean nothing.
    #[error("names are asked for, and no authority to vouch for them")]
    NamesWithoutAuthority,
    /// `crl` towards endpoints.
    #[error("revocation lists of endpoints are not looked at")]
    RevocationOfEndpoints,
    /// `auto_host_sni` or `sni` is no name.
    #[error("{0:?} cannot be a server name")]
    ServerName(String),
    /// A key, certificate, list or parameter that is of no use.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// Authorities or revocation lists that are of no use.
    #[error(transparent)]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The secrets that something was made of.
#[derive(Debug, Default)]
pub(super) struct Used {
    all: Option<Secrets>,
    named: Vec<(SecretSource, Arc<Secret>)>,
}

impl Used {
    /// Whether it would be made of the same again.
    pub(super) fn are_still_in(&mut self, secrets: &Secrets) -> bool {
        if self.all.as_ref().is_some_and(|all| Arc::ptr_eq(all, secrets)) {
            return true;
        }
        let same = self
            .named
            .iter()
            .all(|(source, used)| secrets.get(source).is_some_and(|secret| Arc::ptr_eq(secret, used)));
        if same {
            self.all = Some(Arc::clone(secrets));
        }
        same
    }
}

/// Takes secrets, and remembers which.
pub(super) struct Taking<'s> {
    secrets: &'s Secrets,
    used: Used,
}

/// What a peer has to show.
#[derive(Debug)]
pub(super) struct Expected {
    /// `None` is that any certificate will do.
    pub(super) authorities: Option<Arc<RootCertStore>>,
    pub(super) names: Vec<SubjectAltNameMatcher>,
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl<'s> Taking<'s> {
    pub(super) fn from(secrets: &'s Secrets) -> Self {
        Self { secrets, used: Used { all: Some(Arc::clone(secrets)), named: Vec::new() } }
    }

    pub(super) fn used(self) -> Used {
        self.used
    }

    fn take(&mut self, source: &SecretSource) -> Result<Arc<Secret>, MaterialError> {
        let secret = self.secrets.get(source).ok_or_else(|| MaterialError::Missing(source.clone()))?;
        self.used.named.push((source.clone(), Arc::clone(secret)));
        Ok(Arc::clone(secret))
    }

    /// What is shown, the preferred first.
    pub(super) fn certificates(
        &mut self,
        context: &CommonTlsContext,
        provider: &CryptoProvider,
    ) -> Result<Vec<Arc<CertifiedKey>>, MaterialError> {
        let certified = |certificate: &CertificateSource| match certificate {
            CertificateSource::Inline(certificate) => certified_key(certificate, provider),
            CertificateSource::Sds(source) => match &self.take(source)?.content {
                SecretContent::TlsCertificate(certificate) => certified_key(certificate, provider),
                SecretContent::ValidationContext(_) => Err(MaterialError::OfAnotherKind(source.clone())),
            },
        };
        context.certificates.iter().map(certified).collect()
    }

    /// A secret adds to what the context says itself; where both say something, the secret counts (a merge of messages:
    /// lists are joined).
    pub(super) fn expected(&mut self, validation: &Validation) -> Result<Expected, MaterialError> {
        let Validation { context: own, secret } = validation;
        let secret = secret.as_ref().map(|source| Ok::<_, MaterialError>((source, self.take(source)?)));
        let secret = secret.transpose()?;
        let added = match &secret {
            None => None,
            Some((source, secret)) => match &secret.content {
                SecretContent::ValidationContext(context) => Some(context),
                SecretContent::TlsCertificate(_) => {
                    return Err(MaterialError::OfAnotherKind((*source).clone()));
                }
            },
        };
        let both = || added.into_iter().chain([own]);
        let names: Vec<_> = both().flat_map(|context| context.subject_alt_names.iter().cloned()).collect();
        let authorities = both().find_map(|context| context.trusted_ca.as_ref());
        let revoked = both().find_map(|context| context.crl.as_ref());
        let trusts_anybody = both().any(|context: &CertificateValidationContext| context.accepts_untrusted);
        if authorities.is_none() && !names.is_empty() && !trusts_anybody {
            return Err(MaterialError::NamesWithoutAuthority);
        }
        let authorities = match authorities {
            Some(authorities) if !trusts_anybody => {
                let mut store = RootCertStore::empty();
                for authority in inline(authorities)? {
                    store.add(authority.clone())?;
                }
                Some(Arc::new(store))
            }
            _ => None,
        };
        let revoked = revoked.map(inline).transpose()?.cloned().unwrap_or_default();
        Ok(Expected { authorities, names, revoked })
    }
}

fn certified_key(
    certificate: &TlsCertificate,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, MaterialError> {
    let chain = inline(&certificate.certificate_chain)?.clone();
    let key = inline(&certificate.private_key)?.der().clone_key();
    let key = provider.key_provider.load_private_key(key)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key that does not tell its public half is as good as its owner says.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(Arc::new(certified))
        }
        Err(error) => Err(error.into()),
    }
}

fn inline<T>(material: &Material<T>) -> Result<&T, MaterialError> {
    match material {
        Material::Inline(value) => Ok(value),
        Material::File(path) => Err(MaterialError::File(path.clone())),
    }
}
