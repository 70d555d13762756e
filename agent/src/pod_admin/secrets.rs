//! Secrets that the node provides, as the pages show them: never with a key.

use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret as Proto, TlsCertificate, secret,
};
use orlop_plan::resource::secret::{Material, Secret, SecretContent};
use pem::{EncodeConfig, LineEnding, Pem};
use prost::Message;
use rustls_pki_types::CertificateDer;

/// What Envoy prints in the place of a key.
const REDACTED: &str = "[redacted]";

/// A secret that the node itself provides.
#[derive(Debug, Clone)]
pub(crate) struct NodeSecret {
    pub(crate) secret: Arc<Secret>,
    pub(crate) last_updated: SystemTime,
}

impl NodeSecret {
    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        certificates(&self.secret)
    }
}

/// The chain or the roots of a secret; nothing where they are in a file of the pod.
pub(super) fn certificates(secret: &Secret) -> &[CertificateDer<'static>] {
    let material = match &secret.content {
        SecretContent::TlsCertificate(certificate) => Some(&certificate.certificate_chain),
        SecretContent::ValidationContext(context) => context.trusted_ca.as_ref(),
    };
    match material {
        Some(Material::Inline(certificates)) => certificates,
        Some(Material::File(_)) | None => &[],
    }
}

/// The message that SDS would have sent for it, apart from the key.
pub(super) fn without_key(secret: &Secret) -> Vec<u8> {
    let pems = certificates(secret).iter().map(|der| {
        let pem = Pem::new("CERTIFICATE", der.to_vec());
        pem::encode_config(&pem, EncodeConfig::new().set_line_ending(LineEnding::LF))
    });
    let certificates = Some(inline(pems.collect::<String>()));
    let r#type = match &secret.content {
        SecretContent::TlsCertificate(_) => secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: certificates,
            private_key: Some(inline(REDACTED.to_owned())),
            ..TlsCertificate::default()
        }),
        SecretContent::ValidationContext(_) => {
            secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: certificates,
                ..CertificateValidationContext::default()
            })
        }
    };
    Proto { name: secret.name.to_string(), r#type: Some(r#type) }.encode_to_vec()
}

fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(text.into_bytes())), watched_directory: None }
}
