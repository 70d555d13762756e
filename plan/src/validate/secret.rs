//! `tls.v3.Secret`, and what TLS contexts hold of the same kind.

use envoy_types::pb::envoy::config::core::v3::{DataSource, WatchedDirectory, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType as ProtoSanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext as ProtoContext, Secret as Proto, SubjectAltNameMatcher as ProtoSan,
    TlsCertificate as ProtoCertificate, secret,
};
use orlop_proto::mesh::ProxyConfig as ProtoMesh;
use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::at::{At, refuse_set};
use super::matcher::string_matcher;
use crate::resource::mesh::ProxyConfig;
use crate::resource::secret::{
    CertificateValidationContext, Material, PrivateKey, Secret, SecretContent, TlsCertificate,
};
use crate::resource::tls::{SanType, SubjectAltNameMatcher};

/// In the place of a key that is not kept.
const REDACTED: &str = "[redacted]";

pub(super) fn secret(value: Proto, at: &At<'_>) -> Option<Secret> {
    let Proto { name, r#type } = value;
    if name.is_empty() {
        return at.field("name").refuse("is empty");
    }
    let content = match at.field("type").required(r#type)? {
        secret::Type::TlsCertificate(value) => {
            SecretContent::TlsCertificate(tls_certificate(value, &at.field("tls_certificate"))?)
        }
        secret::Type::ValidationContext(value) => {
            SecretContent::ValidationContext(validation_context(value, &at.field("validation_context"))?)
        }
        secret::Type::SessionTicketKeys(_) => {
            return at.field("session_ticket_keys").refuse("is not supported");
        }
        secret::Type::GenericSecret(_) => return at.field("generic_secret").refuse("is not supported"),
    };
    Some(Secret { name: name.into(), content })
}

/// See [`super::without_secrets`].
pub(super) fn without_keys(bytes: &[u8]) -> Vec<u8> {
    let mut secret = Proto::decode(bytes).unwrap_or_default();
    if let Some(secret::Type::TlsCertificate(certificate)) = &mut secret.r#type
        && let Some(key) = &mut certificate.private_key
    {
        key.specifier = match key.specifier.take() {
            Some(Specifier::InlineBytes(bytes)) => {
                drop(Zeroizing::new(bytes));
                Some(Specifier::InlineBytes(REDACTED.into()))
            }
            Some(Specifier::InlineString(text)) => {
                drop(Zeroizing::new(text));
                Some(Specifier::InlineString(REDACTED.to_owned()))
            }
            elsewhere => elsewhere,
        };
    }
    secret.encode_to_vec()
}

pub(super) fn tls_certificate(value: ProtoCertificate, at: &At<'_>) -> Option<TlsCertificate> {
    let ProtoCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = value;
    watched(watched_directory.as_ref(), at);
    refuse_set!(at; pkcs12, private_key_provider, password, ocsp_staple, signed_certificate_timestamp, tls_params);
    let at_chain = at.field("certificate_chain");
    let certificate_chain =
        at_chain.required(certificate_chain).and_then(|source| material(source, &at_chain, certificates));
    let at_key = at.field("private_key");
    let private_key = at_key.required(private_key).and_then(|source| material(source, &at_key, key));
    Some(TlsCertificate { certificate_chain: certificate_chain?, private_key: private_key? })
}

pub(super) fn validation_context(value: ProtoContext, at: &At<'_>) -> Option<CertificateValidationContext> {
    let ProtoContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list,
    } = value;
    watched(watched_directory.as_ref(), at);
    refuse_set!(
        at; ca_certificate_provider_instance, system_root_certs, verify_certificate_spki, verify_certificate_hash,
        require_signed_certificate_timestamp, allow_expired_certificate, custom_validator_config,
        only_verify_leaf_cert_crl, max_verify_depth, suppress_client_ca_list
    );
    let optional = |source: Option<DataSource>, field: &str| match source {
        None => Some(None),
        Some(source) => material(source, &at.field(field), certificates).map(Some),
    };
    let trusted_ca = optional(trusted_ca, "trusted_ca");
    let crl = match crl {
        None => Some(None),
        Some(source) => {
            material(source, &at.field("crl"), |pem, at| all(pem, "revocation list", at)).map(Some)
        }
    };
    let typed =
        at.field("match_typed_subject_alt_names").each(match_typed_subject_alt_names, subject_alt_name);
    let untyped = at.field("match_subject_alt_names").each(match_subject_alt_names, |matcher, at| {
        Some(SubjectAltNameMatcher { san_type: None, matcher: string_matcher(matcher, at)? })
    });
    let accepts_untrusted = match TrustChainVerification::try_from(trust_chain_verification) {
        Ok(TrustChainVerification::VerifyTrustChain) => Some(false),
        Ok(TrustChainVerification::AcceptUntrusted) => Some(true),
        Err(_) => at.field("trust_chain_verification").refuse("is unknown"),
    };
    let mut subject_alt_names = typed?;
    subject_alt_names.extend(untyped?);
    Some(CertificateValidationContext {
        trusted_ca: trusted_ca?,
        subject_alt_names,
        crl: crl?,
        accepts_untrusted: accepts_untrusted?,
    })
}

fn subject_alt_name(value: ProtoSan, at: &At<'_>) -> Option<SubjectAltNameMatcher> {
    let ProtoSan { san_type, matcher, oid } = value;
    refuse_set!(at; oid);
    let san_type = match ProtoSanType::try_from(san_type) {
        Ok(ProtoSanType::Unspecified) => Some(None),
        Ok(ProtoSanType::Email) => Some(Some(SanType::Email)),
        Ok(ProtoSanType::Dns) => Some(Some(SanType::Dns)),
        Ok(ProtoSanType::Uri) => Some(Some(SanType::Uri)),
        Ok(ProtoSanType::IpAddress) => Some(Some(SanType::IpAddress)),
        Ok(ProtoSanType::OtherName) | Err(_) => at.field("san_type").refuse("is not supported"),
    };
    let at_matcher = at.field("matcher");
    let matcher = at_matcher.required(matcher).and_then(|matcher| string_matcher(matcher, &at_matcher));
    Some(SubjectAltNameMatcher { san_type: san_type?, matcher: matcher? })
}

/// The mesh's further authorities.
pub(super) fn proxy_config(value: ProtoMesh, at: &At<'_>) -> Option<ProxyConfig> {
    let ProtoMesh { ca_certificates_pem } = value;
    let authorities = at
        .field("ca_certificates_pem")
        .each(ca_certificates_pem, |pem, at| certificates(pem.as_bytes(), at))?;
    Some(ProxyConfig { ca_certificates: authorities.into_iter().flatten().collect() })
}

fn watched(directory: Option<&WatchedDirectory>, at: &At<'_>) {
    if directory.is_some() {
        at.field("watched_directory").no_effect("says when files are read again, which is on every use");
    }
}

/// What a source holds. It may be a key, so what was read is wiped.
fn material<T>(
    value: DataSource,
    at: &At<'_>,
    parse: impl FnOnce(&[u8], &At<'_>) -> Option<T>,
) -> Option<Material<T>> {
    let DataSource { watched_directory, specifier } = value;
    watched(watched_directory.as_ref(), at);
    let pem = match at.required(specifier)? {
        Specifier::InlineBytes(bytes) => bytes,
        Specifier::InlineString(text) => text.into_bytes(),
        Specifier::Filename(path) if path.is_empty() => return at.field("filename").refuse("is empty"),
        Specifier::Filename(path) => return Some(Material::File(path)),
        Specifier::EnvironmentVariable(_) => {
            return at.field("environment_variable").refuse("is not supported");
        }
    };
    parse(&Zeroizing::new(pem), at).map(Material::Inline)
}

fn certificates(pem: &[u8], at: &At<'_>) -> Option<Vec<CertificateDer<'static>>> {
    all(pem, "certificate", at)
}

/// Every section of one kind; others may stand between them.
fn all<T: PemObject>(pem: &[u8], what: &str, at: &At<'_>) -> Option<Vec<T>> {
    match T::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Some(found),
        Ok(_) => at.refuse(format!("holds no {what} in PEM")),
        Err(error) => at.refuse(format!("is not PEM: {error:?}")),
    }
}

fn key(pem: &[u8], at: &At<'_>) -> Option<PrivateKey> {
    // The error would tell of what was read.
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Some(PrivateKey::new(key)),
        Err(_) => at.refuse("holds no private key in PEM"),
    }
}
