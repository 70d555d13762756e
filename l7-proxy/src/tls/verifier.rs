//! Whether a peer is who it has to be: a chain to the context's authorities, then one of the names that are asked for. The name
//! that was dialled does not matter unless the context says so, as in Envoy.

use std::sync::Arc;

use orlop_plan::resource::tls::SubjectAltNameMatcher;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::Certificate;
use super::material::{Expected, MaterialError};

/// The chain is good, and none of its names is looked for.
#[derive(Debug, thiserror::Error)]
#[error("none of the names {found:?} is expected")]
pub(super) struct UnexpectedName {
    found: Vec<String>,
}

/// Of endpoints.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    authorities: Option<Arc<RootCertStore>>,
    names: Vec<SubjectAltNameMatcher>,
    /// The certificate has to be for the server name that was sent.
    by_server_name: bool,
    provider: Arc<CryptoProvider>,
}

/// Of clients.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    /// `None` is that any certificate will do.
    chain: Option<Arc<dyn ClientCertVerifier>>,
    names: Vec<SubjectAltNameMatcher>,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(super) fn new(
        expected: Expected,
        by_server_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, MaterialError> {
        let Expected { authorities, names, revoked } = expected;
        if !revoked.is_empty() {
            return Err(MaterialError::RevocationOfEndpoints);
        }
        Ok(Self { authorities, names, by_server_name, provider })
    }
}

impl ClientVerifier {
    /// `mandatory` is whether a client without a certificate is refused.
    pub(super) fn new(
        expected: Expected,
        mandatory: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, MaterialError> {
        let Expected { authorities, names, revoked } = expected;
        let chain = authorities.map(|authorities| {
            WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider))
                .with_crls(revoked)
                .build()
        });
        Ok(Self { chain: chain.transpose()?, names, mandatory, provider })
    }

    /// Whether what a client shows is verified at all.
    pub(super) fn verifies(&self) -> bool {
        self.chain.is_some()
    }
}

fn expect_name(names: &[SubjectAltNameMatcher], certificate: &CertificateDer<'_>) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let certificate = Certificate::read(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    if certificate.matches(names) {
        return Ok(());
    }
    let found = certificate.uris.into_iter().chain(certificate.dns).collect();
    let error = OtherError(Arc::new(UnexpectedName { found }));
    Err(Error::InvalidCertificate(CertificateError::Other(error)))
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                authorities,
                intermediates,
                now,
                algorithms,
            )?;
            if self.by_server_name {
                verify_server_name(&certificate, server_name)?;
            }
            expect_name(&self.names, end_entity)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(chain) = &self.chain {
            chain.verify_client_cert(end_entity, intermediates, now)?;
            expect_name(&self.names, end_entity)?;
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
