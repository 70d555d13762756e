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

impl UpstreamTlsContext {
    /// Whether it is the mesh's mutual TLS, shown the workload's own certificate, by which an endpoint of this identity is
    /// who it should be.
    pub(crate) fn is_mesh_to(&self, principal: &str) -> bool {
        self.common.is_by_identity()
            && self.common.alpn_protocols.iter().any(|protocol| protocol == "istio")
            && self.common.validation.context.expects(principal)
    }
}

impl DownstreamTlsContext {
    /// Whether it is the mesh's mutual TLS, and lets in every identity of the trust domain of this one.
    pub(crate) fn is_mesh_of(&self, principal: &str) -> bool {
        let of_trust_domain =
            principal.splitn(4, '/').take(3).collect::<Vec<_>>().join("/") + "/ns/any/sa/any";
        self.require_client_certificate
            && self.common.is_by_identity()
            && self.common.validation.context.expects(&of_trust_domain)
    }
}

impl CommonTlsContext {
    /// Whether what is shown is the workload's identity, and what is asked for one of the mesh.
    fn is_by_identity(&self) -> bool {
        let is =
            |source: &SecretSource, name: &str| matches!(source, SecretSource::Node(its) if **its == *name);
        let shown = matches!(&*self.certificates, [CertificateSource::Sds(source)] if is(source, "default"));
        shown && self.validation.secret.as_ref().is_some_and(|source| is(source, "ROOTCA"))
    }

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
