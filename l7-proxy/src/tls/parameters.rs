//! `TlsParameters` as `rustls` takes them.

use std::sync::Arc;

use orlop_plan::resource::tls::{TlsParameters, TlsVersion};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, NamedGroup, SupportedProtocolVersion};

/// The versions between minimum and maximum.
pub(super) fn versions(parameters: &TlsParameters) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)];
    let allowed = |version: TlsVersion| {
        parameters.minimum.is_none_or(|minimum| version >= minimum)
            && parameters.maximum.is_none_or(|maximum| version <= maximum)
    };
    all.into_iter().filter(|(version, _)| allowed(*version)).map(|(_, version)| version).collect()
}

/// The cryptography, narrowed down to the suites and curves that are named. As in Envoy, suites of TLS 1.3 are not chosen.
pub(super) fn provider(parameters: &TlsParameters) -> Arc<CryptoProvider> {
    let TlsParameters { cipher_suites, ecdh_curves, .. } = parameters;
    let mut provider = ring::default_provider();
    if !cipher_suites.is_empty() {
        // `[a|b]` are of equal preference.
        let named: Vec<_> =
            cipher_suites.iter().flat_map(|suites| suites.split(['[', '|', ']'])).filter_map(suite).collect();
        provider.cipher_suites.retain(|suite| suite.tls13().is_some() || named.contains(&suite.suite()));
    }
    if !ecdh_curves.is_empty() {
        let named: Vec<_> = ecdh_curves.iter().filter_map(|curve| group(curve)).collect();
        provider.kx_groups.retain(|group| named.contains(&group.name()));
    }
    Arc::new(provider)
}

/// By OpenSSL's name. Those without forward secrecy or authenticated encryption are not spoken.
fn suite(name: &str) -> Option<CipherSuite> {
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-CHACHA20-POLY1305" => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        _ => return None,
    })
}

fn group(name: &str) -> Option<NamedGroup> {
    Some(match name {
        "X25519" => NamedGroup::X25519,
        "P-256" => NamedGroup::secp256r1,
        "P-384" => NamedGroup::secp384r1,
        _ => return None,
    })
}
