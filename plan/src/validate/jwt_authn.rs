//! `filters.http.jwt_authn.v3.JwtAuthentication`.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication as Proto, JwtClaimToHeader, JwtHeader as ProtoHeader, JwtProvider as ProtoProvider,
    JwtRequirement as ProtoRequirement, JwtRequirementAndList, JwtRequirementOrList,
    RequirementRule as ProtoRule,
};
use http::header::AUTHORIZATION;

use super::at::{At, no_effect, refuse_set};
use super::header::header_name;
use super::jwks::jwks;
use super::route::route_match;
use super::scalar::optional_text;
use crate::resource::jwt_authn::{JwtAuthn, JwtHeader, JwtProvider, JwtRequirement, RequirementRule};

/// Envoy's leeway for other clocks, in seconds.
const DEFAULT_CLOCK_SKEW: u32 = 60;
/// How deep requirements may be in each other.
const DEEPEST: u8 = 8;

type Providers = BTreeMap<String, Arc<JwtProvider>>;

pub(super) fn jwt_authn(value: Proto, at: &At<'_>) -> Option<JwtAuthn> {
    let Proto {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = value;
    no_effect!(at; "feeds statistics alone"; stat_prefix);
    no_effect!(at; "is for rules and routes that name a requirement, which are refused"; requirement_map);
    refuse_set!(at; filter_state_rules, strip_failure_response);
    let at_providers = at.field("providers");
    let providers: Option<Providers> = BTreeMap::from_iter(providers)
        .into_iter()
        .map(|(name, value)| {
            let provider = provider(name.clone(), value, &at_providers.key(&name))?;
            Some((name, Arc::new(provider)))
        })
        .collect();
    let providers = providers?;
    let rules = at.field("rules").each(rules, |value, at| rule(value, &providers, at))?;
    Some(JwtAuthn { providers: providers.into_values().collect(), rules, bypass_cors_preflight })
}

fn rule(value: ProtoRule, providers: &Providers, at: &At<'_>) -> Option<RequirementRule> {
    let ProtoRule { r#match, requirement_type } = value;
    let at_match = at.field("match");
    let route_match = at_match.required(r#match).and_then(|value| route_match(value, &at_match));
    let requires = match requirement_type {
        None => Some(None),
        Some(RequirementType::Requires(value)) => {
            requirement(value, &[], providers, DEEPEST, &at.field("requires"))
        }
        Some(RequirementType::RequirementName(_)) => {
            at.field("requirement_name").unsupported("is not supported")
        }
    };
    Some(RequirementRule { route_match: route_match?, requires: requires? })
}

/// `None` inside where nothing is required. `beside` are the providers that stand beside it.
fn requirement(
    value: ProtoRequirement,
    beside: &[Arc<JwtProvider>],
    providers: &Providers,
    depth: u8,
    at: &At<'_>,
) -> Option<Option<JwtRequirement>> {
    let Some(depth) = depth.checked_sub(1) else { return at.refuse("is nested too deeply") };
    let ProtoRequirement { requires_type } = value;
    Some(match requires_type {
        None => None,
        Some(RequiresType::ProviderName(name)) => {
            Some(JwtRequirement::Provider(named(&name, providers, &at.field("provider_name"))?))
        }
        Some(RequiresType::RequiresAny(JwtRequirementOrList { requirements })) => {
            let at = at.field("requires_any").field("requirements");
            Some(JwtRequirement::Any(any(requirements, providers, depth, &at)?))
        }
        Some(RequiresType::RequiresAll(JwtRequirementAndList { requirements })) => {
            let at = at.field("requires_all").field("requirements");
            let all = at.each(requirements, |value, at| requirement(value, &[], providers, depth, at))?;
            Some(JwtRequirement::All(all.into_iter().flatten().collect()))
        }
        Some(RequiresType::AllowMissing(_)) => Some(JwtRequirement::AllowMissing(beside.to_vec())),
        Some(RequiresType::ProviderAndAudiences(_)) => {
            return at.field("provider_and_audiences").unsupported("is not supported");
        }
        Some(RequiresType::AllowMissingOrFailed(_)) => {
            return at.field("allow_missing_or_failed").unsupported("is not supported");
        }
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            return at.field("extract_only_without_validation").unsupported("is not supported");
        }
    })
}

/// What allows a missing token comes last, and once.
fn any(
    requirements: Vec<ProtoRequirement>,
    providers: &Providers,
    depth: u8,
    at: &At<'_>,
) -> Option<Vec<JwtRequirement>> {
    let beside: Vec<_> = requirements
        .iter()
        .filter_map(|value| match &value.requires_type {
            Some(RequiresType::ProviderName(name)) => providers.get(name).cloned(),
            _ => None,
        })
        .collect();
    let parsed = at.each(requirements, |value, at| requirement(value, &beside, providers, depth, at))?;
    if parsed.iter().any(Option::is_none) {
        return at.refuse("has a requirement that requires nothing");
    }
    let (mut missing, mut any): (Vec<_>, Vec<_>) =
        parsed.into_iter().flatten().partition(|one| matches!(one, JwtRequirement::AllowMissing(_)));
    missing.truncate(1);
    any.append(&mut missing);
    Some(any)
}

fn named(name: &str, providers: &Providers, at: &At<'_>) -> Option<Arc<JwtProvider>> {
    providers.get(name).cloned().or_else(|| at.refuse(format!("there is no provider {name:?}")))
}

fn provider(name: String, value: ProtoProvider, at: &At<'_>) -> Option<JwtProvider> {
    let ProtoProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = value;
    no_effect!(at; "is of a cache of tokens, and each is verified"; jwt_cache_config);
    refuse_set!(
        at; subjects, max_lifetime, pad_forward_payload_header, header_in_metadata,
        failed_status_in_metadata, clear_route_cache
    );
    let nowhere = from_headers.is_empty() && from_params.is_empty() && from_cookies.is_empty();
    let from_headers = at.field("from_headers").each(from_headers, |value: ProtoHeader, at| {
        let ProtoHeader { name, value_prefix } = value;
        header_name(&name, &at.field("name")).map(|name| JwtHeader { name, prefix: value_prefix })
    });
    let forward_payload_header = match optional_text(forward_payload_header) {
        None => Some(None),
        Some(name) => header_name(&name, &at.field("forward_payload_header")).map(Some),
    };
    let claims = at.field("claim_to_headers").each(claim_to_headers, |value: JwtClaimToHeader, at| {
        let JwtClaimToHeader { header_name: header, claim_name, claim_path } = value;
        refuse_set!(at; claim_path);
        let claim = claim_name.split('.').map(str::to_owned).collect();
        header_name(&header, &at.field("header_name")).map(|header| (header, claim))
    });
    let keys = match at.field("jwks_source_specifier").required(jwks_source_specifier)? {
        JwksSourceSpecifier::LocalJwks(source) => {
            local_jwks(source, &at.field("local_jwks")).map(|text| jwks(&text))
        }
        JwksSourceSpecifier::RemoteJwks(_) => {
            at.field("remote_jwks").unsupported("is not supported: keys are not fetched")
        }
    };
    let NormalizePayload { space_delimited_claims } = normalize_payload_in_metadata.unwrap_or_default();
    let mut provider = JwtProvider {
        name,
        issuer,
        audiences,
        require_expiration,
        forward,
        from_headers: from_headers?,
        from_params,
        from_cookies,
        forward_payload_header: forward_payload_header?,
        claim_to_headers: claims?,
        payload_in_metadata: optional_text(payload_in_metadata),
        space_delimited_claims,
        clock_skew_seconds: match clock_skew_seconds {
            0 => DEFAULT_CLOCK_SKEW,
            seconds => seconds,
        }
        .into(),
        keys: keys?,
    };
    if nowhere {
        provider.from_headers.push(JwtHeader { name: AUTHORIZATION, prefix: "Bearer ".to_owned() });
        provider.from_params.push("access_token".to_owned());
    }
    Some(provider)
}

fn local_jwks(value: DataSource, at: &At<'_>) -> Option<Vec<u8>> {
    let DataSource { watched_directory, specifier } = value;
    refuse_set!(at; watched_directory);
    match at.required(specifier)? {
        data_source::Specifier::InlineBytes(bytes) => Some(bytes),
        data_source::Specifier::InlineString(text) => Some(text.into_bytes()),
        data_source::Specifier::Filename(_) => at.field("filename").unsupported("is not supported"),
        data_source::Specifier::EnvironmentVariable(_) => {
            at.field("environment_variable").unsupported("is not supported")
        }
    }
}
