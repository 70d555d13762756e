//! `istio.mesh.v1alpha1.ProxyConfig`, as far as a running proxy is told.

use rustls_pki_types::CertificateDer;

/// `ProxyConfig`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `ca_certificates_pem`: authorities of the mesh beside the one that signs for the workload.
    pub ca_certificates: Vec<CertificateDer<'static>>,
}
