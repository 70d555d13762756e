//! `envoy.filters.http.jwt_authn`: requests have to show good tokens, or none. What a good token says is left for policies and put
//! into headers.

mod extract;
mod signature;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use orlop_plan::jwt::{JwtError, Token};
use orlop_plan::resource::jwt_authn::{JwtAuthn, JwtProvider, JwtRequirement};
use serde_json::{Map, Value};

use self::extract::{Found, extract};
use super::{FilterContext, Stopped};
use crate::http::head::RequestHead;
use crate::http::local_reply::LocalReply;
use crate::http::request_headers::X_FORWARDED_PROTO;
use crate::stats::{FilterStat, Refusal};

/// How much of a path a client that is refused is told.
const LONGEST_REALM: usize = 256;

/// What good tokens say goes into `metadata`.
pub(super) fn decode(
    filter: &JwtAuthn,
    head: &mut RequestHead,
    context: FilterContext<'_>,
    metadata: &mut Option<Box<Value>>,
) -> Result<(), Box<Stopped>> {
    // A client must not say what only a token may.
    for provider in &filter.providers {
        for (header, _) in &provider.claim_to_headers {
            head.headers.remove(header);
        }
        if let Some(header) = &provider.forward_payload_header {
            head.headers.remove(header);
        }
    }
    if filter.bypass_cors_preflight && is_preflight(head) {
        context.counters.filter(FilterStat::JwtCorsPreflightBypassed);
        context.counters.filter(FilterStat::JwtAllowed);
        return Ok(());
    }
    let request = head.for_routes();
    let random = fastrand::u64(..);
    let rule = filter.rules.iter().find(|rule| rule.route_match.matches(&request, random));
    let realm = realm(head);
    let mut said = Map::new();
    let outcome = match rule.and_then(|rule| rule.requires.as_ref()) {
        None => Ok(()),
        Some(requirement) => Verifier { filter, head, said: &mut said }.meet(requirement),
    };
    if !said.is_empty() {
        *metadata = Some(Value::Object(said).into());
    }
    let Err(error) = outcome else {
        context.counters.filter(FilterStat::JwtAllowed);
        return Ok(());
    };
    context.counters.filter(FilterStat::JwtDenied);
    context.connection.pod.counters.refuse(Refusal::Token);
    Err(Box::new(refusal(error, &realm).into()))
}

fn is_preflight(head: &RequestHead) -> bool {
    let has = |name| head.headers.get(name).is_some_and(|value: &HeaderValue| !value.is_empty());
    head.method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What the client asked for, as it asked.
fn realm(head: &RequestHead) -> String {
    let scheme = head.headers.get(X_FORWARDED_PROTO).and_then(|scheme| scheme.to_str().ok());
    let path = head.path.get(..LONGEST_REALM).unwrap_or(&head.path);
    format!("{}://{}{path}", scheme.unwrap_or(head.scheme), head.authority)
}

fn refusal(error: JwtError, realm: &str) -> LocalReply {
    let status = match error {
        JwtError::Audience => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let text = error.to_string();
    let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
    let mut reply = LocalReply::text(status, details, text);
    let why = if error == JwtError::Missing { "" } else { ", error=\"invalid_token\"" };
    if let Ok(value) = HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{why}")) {
        reply.headers.insert(WWW_AUTHENTICATE, value);
    }
    reply
}

/// Holds one request against requirements.
struct Verifier<'a> {
    filter: &'a JwtAuthn,
    head: &'a mut RequestHead,
    said: &'a mut Map<String, Value>,
}

impl Verifier<'_> {
    fn meet(&mut self, requirement: &JwtRequirement) -> Result<(), JwtError> {
        match requirement {
            JwtRequirement::Provider(provider) => self.one_of(std::slice::from_ref(provider), Some(provider)),
            JwtRequirement::AllowMissing(providers) => match self.one_of(providers, None) {
                Err(JwtError::Missing) => Ok(()),
                outcome => outcome,
            },
            JwtRequirement::All(all) => all.iter().try_for_each(|one| self.meet(one)),
            JwtRequirement::Any(any) => {
                let mut told = JwtError::Missing;
                for one in any {
                    match self.meet(one) {
                        Ok(()) => return Ok(()),
                        // Another issuer's token says less than what is wrong with one's own, and none says nothing.
                        Err(error @ (JwtError::Missing | JwtError::UnknownIssuer)) => {
                            if told == JwtError::Missing {
                                told = error;
                            }
                        }
                        Err(error) => told = error,
                    }
                }
                Err(told)
            }
        }
    }

    /// All tokens where the providers' may be have to be good: one that is not may not reach the application behind one that
    /// is. Without `provider` each is its issuer's.
    fn one_of(
        &mut self,
        providers: &[Arc<JwtProvider>],
        provider: Option<&Arc<JwtProvider>>,
    ) -> Result<(), JwtError> {
        let found = extract(providers, self.head);
        if found.is_empty() {
            return Err(JwtError::Missing);
        }
        found.iter().rev().try_for_each(|found| self.verify(found, provider))
    }

    fn verify(&mut self, found: &Found<'_>, provider: Option<&Arc<JwtProvider>>) -> Result<(), JwtError> {
        let token = Token::parse(&found.token)?;
        if !found.is_place_of(&token.issuer) {
            return Err(JwtError::UnknownIssuer);
        }
        let provider = match provider {
            Some(provider) => provider,
            None => self.provider_of(&token.issuer).ok_or(JwtError::UnknownIssuer)?,
        };
        check_time(&token, provider)?;
        let audiences = &provider.audiences;
        if !audiences.is_empty() && !token.audiences.iter().any(|one| is_among(one, audiences)) {
            return Err(JwtError::Audience);
        }
        signature::verify(&token, &provider.keys)?;
        let provider = Arc::clone(provider);
        self.accept(found, &token, &provider);
        Ok(())
    }

    /// The first of an issuer, or the first of anybody.
    fn provider_of(&self, issuer: &str) -> Option<&'_ Arc<JwtProvider>> {
        let of = |issuer: &str| self.filter.providers.iter().find(|provider| provider.issuer == issuer);
        of(issuer).or_else(|| of(""))
    }

    fn accept(&mut self, found: &Found<'_>, token: &Token<'_>, provider: &JwtProvider) {
        let headers = &mut self.head.headers;
        if let Some(header) = &provider.forward_payload_header
            && let Ok(value) = HeaderValue::from_str(token.encoded_payload)
        {
            headers.append(header, value);
        }
        for (header, path) in &provider.claim_to_headers {
            let claim = path.split_first().and_then(|(first, rest)| {
                let first = token.payload.get(first)?;
                rest.iter().try_fold(first, |value, key| value.as_object()?.get(key))
            });
            if let Some(value) = claim.and_then(header_value) {
                headers.append(header, value);
            }
        }
        if !provider.forward {
            found.remove(self.head);
        }
        if let Some(key) = &provider.payload_in_metadata {
            let mut payload = token.payload.clone();
            for claim in &provider.space_delimited_claims {
                if let Some(value) = payload.get_mut(claim)
                    && let Some(text) = value.as_str()
                {
                    *value = text.split(' ').filter(|word| !word.is_empty()).collect();
                }
            }
            self.said.insert(key.clone(), Value::Object(payload));
        }
    }
}

/// Envoy takes a trailing slash, and the scheme, of an audience for nothing.
fn is_among(audience: &str, allowed: &[String]) -> bool {
    allowed.iter().any(|one| bare(one) == bare(audience))
}

fn bare(audience: &str) -> &str {
    let audience = audience.strip_suffix('/').unwrap_or(audience);
    audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://")).unwrap_or(audience)
}

fn check_time(token: &Token<'_>, provider: &JwtProvider) -> Result<(), JwtError> {
    // A clock before 1970 finds every token not yet valid, or good.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let leeway = provider.clock_skew_seconds;
    if now.saturating_add(leeway) < token.not_before {
        return Err(JwtError::NotYetValid);
    }
    match token.expires {
        None if provider.require_expiration => Err(JwtError::Expired),
        // As in the library that Envoy uses, 0 is no end.
        None | Some(0) => Ok(()),
        Some(end) if now > end.saturating_add(leeway) => Err(JwtError::Expired),
        Some(_) => Ok(()),
    }
}

/// A claim as a header's value.
fn header_value(claim: &Value) -> Option<HeaderValue> {
    let text = match claim {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => match number.as_u64() {
            Some(number) => number.to_string(),
            None => format!("{:.6}", number.as_f64()?),
        },
        Value::Array(_) | Value::Object(_) => STANDARD.encode(claim.to_string()),
        Value::Null => return None,
    };
    (!text.is_empty()).then(|| HeaderValue::try_from(text).ok())?
}
