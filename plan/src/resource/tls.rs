//! `extensions.transport_sockets.tls.v3`: TLS towards endpoints and of filter chains.
//!
//! What it takes to speak it are [secrets](super::secret), which come from elsewhere.

use std::sync::Arc;

use super::matcher::StringMatcher;
use super::secret::{CertificateValidationContext, TlsCertificate};

/// `UpstreamTlsContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpstreamTlsContext {
    /// `common_tls_context`.
    pub common: CommonTlsContext,
    /// `sni`; empty for none.
    pub sni: String,
    /// `auto_host_sni`: the endpoint's host name is the SNI.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: the endpoint's certificate has to be for the SNI.
    pub auto_sni_san_validation: bool,
}

/// `DownstreamTlsContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DownstreamTlsContext {
    /// `common_tls_context`.
    pub common: CommonTlsContext,
    /// `require_client_certificate`.
    pub require_client_certificate: bool,
    /// `require_sni`.
    pub require_sni: bool,
}

/// `CommonTlsContext`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommonTlsContext {
    /// What is shown, in order; none is shown where there is none.
    pub certificates: Vec<CertificateSource>,
    /// What the peer has to show.
    pub validation: Validation,
    /// `alpn_protocols`, the preferred first.
    pub alpn_protocols: Vec<String>,
    /// `tls_params`.
    pub parameters: TlsParameters,
}

/// One of `tls_certificates` or `tls_certificate_sds_secret_configs`.
#[derive(Debug, Clone, PartialEq)]
pub enum CertificateSource {
    /// As it stands.
    Inline(Arc<TlsCertificate>),
    /// A secret.
    Sds(SecretSource),
}

/// `validation_context_type`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Validation {
    /// `validation_context`, or the default of a combined one.
    pub context: CertificateValidationContext,
    /// The secret that it comes from, or that adds to the default.
    pub secret: Option<SecretSource>,
}

/// `SdsSecretConfig`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretSource {
    /// The control plane sends it under this name.
    ControlPlane(Arc<str>),
    /// A sidecar gets it from its own agent (`sds-grpc`): the workload's identity `default`, the mesh's roots `ROOTCA`, and
    /// files of the pod.
    Node(Arc<str>),
}

/// `TlsParameters`; what is left out is the library's choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsParameters {
    /// `tls_minimum_protocol_version`.
    pub minimum: Option<TlsVersion>,
    /// `tls_maximum_protocol_version`.
    pub maximum: Option<TlsVersion>,
    /// `cipher_suites`, in OpenSSL's names.
    pub cipher_suites: Vec<String>,
    /// `ecdh_curves`.
    pub ecdh_curves: Vec<String>,
}

/// `TlsProtocol`. Older ones are refused when validated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// `SubjectAltNameMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct SubjectAltNameMatcher {
    /// Which names are looked at; `None` for all.
    pub san_type: Option<SanType>,
    /// What one of them has to be.
    pub matcher: StringMatcher,
}

/// `SanType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanType {
    /// `EMAIL`
    Email,
    /// `DNS`
    Dns,
    /// `URI`
    Uri,
    /// `IP_ADDRESS`
    IpAddress,
}

impl CommonTlsContext {
    /// The secrets that the control plane is asked for.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Arc<str>> {
        let certificates = self.certificates.iter().filter_map(|certificate| match certificate {
            CertificateSource::Sds(source) => Some(source),
            CertificateSource::Inline(_) => None,
        });
        certificates.chain(&self.validation.secret).filter_map(|source| match source {
            SecretSource::ControlPlane(name) => Some(name),
            SecretSource::Node(_) => None,
        })
    }
}
