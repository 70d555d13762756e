//! TLS contexts.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{ApiConfigSource, grpc_service};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext as ProtoCommon, DownstreamTlsContext as ProtoDownstream, SdsSecretConfig,
    TlsParameters as ProtoParameters, UpstreamTlsContext as ProtoUpstream, common_tls_context,
};

use super::at::{At, no_effect, refuse_set};
use super::scalar::expect_own_source;
use super::secret::{tls_certificate, validation_context};
use crate::resource::tls::{
    CertificateSource, CommonTlsContext, DownstreamTlsContext, SecretSource, TlsParameters, TlsVersion,
    UpstreamTlsContext, Validation,
};

/// The cluster of a sidecar's bootstrap that is its own agent.
const OWN_AGENT: &str = "sds-grpc";

pub(super) fn upstream_tls_context(value: ProtoUpstream, at: &At<'_>) -> Option<UpstreamTlsContext> {
    let ProtoUpstream {
        common_tls_context,
        sni,
        auto_host_sni,
        auto_sni_san_validation,
        allow_renegotiation,
        max_session_keys,
        enforce_rsa_key_usage,
    } = value;
    no_effect!(at; "bounds Envoy's own store of sessions"; max_session_keys);
    refuse_set!(at; allow_renegotiation, enforce_rsa_key_usage);
    let common = common(common_tls_context.unwrap_or_default(), &at.field("common_tls_context"))?;
    Some(UpstreamTlsContext { common, sni, auto_host_sni, auto_sni_san_validation })
}

pub(super) fn downstream_tls_context(value: ProtoDownstream, at: &At<'_>) -> Option<DownstreamTlsContext> {
    let ProtoDownstream {
        common_tls_context,
        require_client_certificate,
        require_sni,
        disable_stateful_session_resumption,
        session_timeout,
        ocsp_staple_policy,
        full_scan_certs_on_sni_mismatch,
        prefer_client_ciphers,
        session_ticket_keys_type,
    } = value;
    no_effect!(
        at; "says how sessions are resumed, and every handshake may be a full one";
        disable_stateful_session_resumption, session_timeout
    );
    if session_ticket_keys_type.is_some() {
        at.field("session_ticket_keys_type")
            .no_effect("says how sessions are resumed, and every handshake may be a full one");
    }
    refuse_set!(at; ocsp_staple_policy, full_scan_certs_on_sni_mismatch, prefer_client_ciphers);
    let common = common(common_tls_context.unwrap_or_default(), &at.field("common_tls_context"))?;
    Some(DownstreamTlsContext {
        common,
        require_client_certificate: require_client_certificate.is_some_and(|flag| flag.value),
        require_sni: require_sni.is_some_and(|flag| flag.value),
    })
}

fn common(value: ProtoCommon, at: &At<'_>) -> Option<CommonTlsContext> {
    let ProtoCommon {
        tls_params,
        tls_certificates,
        tls_certificate_sds_secret_configs,
        tls_certificate_provider_instance,
        custom_tls_certificate_selector,
        tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance,
        alpn_protocols,
        custom_handshaker,
        key_log,
        validation_context_type,
    } = value;
    refuse_set!(
        at; tls_certificate_provider_instance, custom_tls_certificate_selector, tls_certificate_certificate_provider,
        tls_certificate_certificate_provider_instance, custom_handshaker, key_log
    );
    let parameters = parameters(tls_params.unwrap_or_default(), &at.field("tls_params"));
    let inline = at.field("tls_certificates").each(tls_certificates, tls_certificate);
    let by_sds = at
        .field("tls_certificate_sds_secret_configs")
        .each(tls_certificate_sds_secret_configs, secret_source);
    let validation = match validation_context_type {
        None => Some(Validation::default()),
        Some(value) => validation(value, at),
    };
    let inline = inline?.into_iter().map(|certificate| CertificateSource::Inline(Arc::new(certificate)));
    Some(CommonTlsContext {
        certificates: inline.chain(by_sds?.into_iter().map(CertificateSource::Sds)).collect(),
        validation: validation?,
        alpn_protocols,
        parameters: parameters?,
    })
}

fn validation(value: ValidationContextType, at: &At<'_>) -> Option<Validation> {
    match value {
        ValidationContextType::ValidationContext(context) => {
            let context = validation_context(context, &at.field("validation_context"))?;
            Some(Validation { context, secret: None })
        }
        ValidationContextType::ValidationContextSdsSecretConfig(secret) => {
            let secret = secret_source(secret, &at.field("validation_context_sds_secret_config"))?;
            Some(Validation { secret: Some(secret), ..Validation::default() })
        }
        ValidationContextType::CombinedValidationContext(combined) => {
            let at = at.field("combined_validation_context");
            let common_tls_context::CombinedCertificateValidationContext {
                default_validation_context,
                validation_context_sds_secret_config,
                validation_context_certificate_provider,
                validation_context_certificate_provider_instance,
            } = combined;
            refuse_set!(
                at; validation_context_certificate_provider, validation_context_certificate_provider_instance
            );
            let context = validation_context(
                default_validation_context.unwrap_or_default(),
                &at.field("default_validation_context"),
            );
            let at_secret = at.field("validation_context_sds_secret_config");
            let secret = match validation_context_sds_secret_config {
                None => Some(None),
                Some(secret) => secret_source(secret, &at_secret).map(Some),
            };
            Some(Validation { context: context?, secret: secret? })
        }
        ValidationContextType::ValidationContextCertificateProvider(_) => {
            at.field("validation_context_certificate_provider").refuse("is not supported")
        }
        ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
            at.field("validation_context_certificate_provider_instance").refuse("is not supported")
        }
    }
}

fn parameters(value: ProtoParameters, at: &At<'_>) -> Option<TlsParameters> {
    let ProtoParameters {
        tls_minimum_protocol_version,
        tls_maximum_protocol_version,
        cipher_suites,
        ecdh_curves,
        signature_algorithms,
        compliance_policies,
    } = value;
    refuse_set!(at; signature_algorithms, compliance_policies);
    let version = |number: i32, field: &str| match TlsProtocol::try_from(number) {
        Ok(TlsProtocol::TlsAuto) => Some(None),
        Ok(TlsProtocol::TlSv12) => Some(Some(TlsVersion::Tls12)),
        Ok(TlsProtocol::TlSv13) => Some(Some(TlsVersion::Tls13)),
        Ok(TlsProtocol::TlSv10 | TlsProtocol::TlSv11) | Err(_) => {
            at.field(field).refuse("is not supported: TLS 1.2 and 1.3 are")
        }
    };
    let minimum = version(tls_minimum_protocol_version, "tls_minimum_protocol_version");
    let maximum = version(tls_maximum_protocol_version, "tls_maximum_protocol_version");
    let (minimum, maximum) = (minimum?, maximum?);
    if let (Some(minimum), Some(maximum)) = (minimum, maximum)
        && minimum > maximum
    {
        return at.field("tls_minimum_protocol_version").refuse("is above the maximum");
    }
    Some(TlsParameters { minimum, maximum, cipher_suites, ecdh_curves })
}

fn secret_source(value: SdsSecretConfig, at: &At<'_>) -> Option<SecretSource> {
    let SdsSecretConfig { name, sds_config } = value;
    if name.is_empty() {
        return at.field("name").refuse("is empty");
    }
    let at_source = at.field("sds_config");
    match sds_config.as_ref().and_then(|source| source.config_source_specifier.as_ref()) {
        Some(ConfigSourceSpecifier::ApiConfigSource(source)) if is_own_agent(source) => {
            at_source
                .field("api_config_source")
                .no_effect("is the sidecar's own agent, in whose place the node stands");
            Some(SecretSource::Node(name.into()))
        }
        _ => {
            expect_own_source(sds_config, &at_source);
            Some(SecretSource::ControlPlane(name.into()))
        }
    }
}

fn is_own_agent(source: &ApiConfigSource) -> bool {
    source.grpc_services.iter().all(|service| {
        matches!(&service.target_specifier, Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)) if grpc.cluster_name == OWN_AGENT)
    }) && !source.grpc_services.is_empty()
}
