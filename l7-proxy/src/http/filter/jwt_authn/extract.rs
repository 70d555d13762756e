//! Where requests have tokens: Envoy's `Extractor`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::header::COOKIE;
use orlop_plan::resource::jwt_authn::JwtProvider;

use crate::http::head::RequestHead;

/// A token, and where it was.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Its text.
    pub(super) token: String,
    place: Place<'a>,
    /// Whose tokens may be there; an empty issuer is anybody.
    issuers: Vec<&'a str>,
}

/// Ordered as Envoy looks at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Header { name: &'a str, prefix: &'a str },
    Parameter(&'a str),
    Cookie(&'a str),
}

/// All tokens where these providers' may be.
pub(super) fn extract<'a>(providers: &'a [Arc<JwtProvider>], head: &RequestHead) -> Vec<Found<'a>> {
    let mut places: BTreeMap<Place<'a>, Vec<&'a str>> = BTreeMap::new();
    for provider in providers {
        let headers = provider.from_headers.iter();
        let headers =
            headers.map(|header| Place::Header { name: header.name.as_str(), prefix: &header.prefix });
        let parameters = provider.from_params.iter().map(|name| Place::Parameter(name));
        let cookies = provider.from_cookies.iter().map(|name| Place::Cookie(name));
        for place in headers.chain(parameters).chain(cookies) {
            places.entry(place).or_default().push(&provider.issuer);
        }
    }
    let mut found = Vec::new();
    for (place, issuers) in places {
        let tokens = place.tokens(head).into_iter();
        found.extend(tokens.map(|token| Found { token, place, issuers: issuers.clone() }));
    }
    found
}

impl Place<'_> {
    fn tokens(self, head: &RequestHead) -> Vec<String> {
        match self {
            Self::Header { name, prefix } => {
                let values = head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
                values.filter_map(|value| behind(value, prefix)).map(str::to_owned).collect()
            }
            Self::Parameter(name) => parameter(head, name).map(str::to_owned).into_iter().collect(),
            Self::Cookie(name) => cookie(head, name).map(str::to_owned).into_iter().collect(),
        }
    }
}

impl Found<'_> {
    /// Whether an issuer's token may be there.
    pub(super) fn is_place_of(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| known.is_empty() || *known == issuer)
    }

    /// Takes it out of the request; cookies stay as they are, as with Envoy.
    pub(super) fn remove(&self, head: &mut RequestHead) {
        match self.place {
            Place::Header { name, .. } => {
                if let Ok(name) = HeaderName::try_from(name) {
                    head.headers.remove(name);
                }
            }
            Place::Parameter(name) => {
                let Some((path, query)) = head.path.split_once('?') else { return };
                let kept: Vec<_> = query.split('&').filter(|pair| name_of(pair) != name).collect();
                let separator = if kept.is_empty() { "" } else { "?" };
                head.path = format!("{path}{separator}{}", kept.join("&"));
            }
            Place::Cookie(_) => {}
        }
    }
}

/// What stands behind a prefix, from the first character that a token may have.
fn behind<'v>(value: &'v str, prefix: &str) -> Option<&'v str> {
    if prefix.is_empty() {
        return Some(value);
    }
    let rest = value.get(value.find(prefix)? + prefix.len()..)?;
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Some(rest.find(is_of_token).and_then(|start| rest.get(start..)).unwrap_or(value))
}

fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

fn parameter<'h>(head: &'h RequestHead, name: &str) -> Option<&'h str> {
    let (_, query) = head.path.split_once('?')?;
    let pair = query.split('&').find(|pair| name_of(pair) == name)?;
    Some(pair.split_once('=').map_or("", |(_, value)| value))
}

fn cookie<'h>(head: &'h RequestHead, name: &str) -> Option<&'h str> {
    let values = head.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find_map(|(known, value)| (known == name).then_some(value))?;
    Some(value.trim_matches('"'))
}
