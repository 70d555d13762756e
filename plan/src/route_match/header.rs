//! Matching of headers: Envoy's `HeaderUtility::matchHeaders`.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

use super::RequestHead;
use crate::resource::header::{HeaderMatch, HeaderMatcher, HeaderSource};

impl HeaderMatcher {
    /// Whether the request satisfies this matcher.
    pub fn matches(&self, request: &RequestHead<'_>) -> bool {
        self.matches_value(self.name.value(request))
    }

    /// Whether any value of the header does: Envoy's RBAC looks at repeated headers one by one, so that a value cannot hide
    /// behind another one.
    pub fn matches_any_value(&self, request: &RequestHead<'_>) -> bool {
        match &self.name {
            HeaderSource::Name(name) if request.headers.contains_key(name) => {
                let mut values = request.headers.get_all(name).iter();
                values.any(|value| self.matches_value(Some(Cow::Borrowed(value.as_bytes()))))
            }
            _ => self.matches(request),
        }
    }

    /// Whether a message with these headers (a response, where pseudo-headers do not exist) satisfies this matcher.
    pub fn matches_headers(&self, headers: &HeaderMap) -> bool {
        self.matches_value(match &self.name {
            HeaderSource::Name(name) => header_value(headers, name),
            HeaderSource::Method | HeaderSource::Path | HeaderSource::Authority | HeaderSource::Scheme => {
                None
            }
        })
    }

    /// A missing header matches nothing but a `present_match`, whatever `invert_match` says, unless it is to be taken
    /// as empty.
    fn matches_value(&self, value: Option<Cow<'_, [u8]>>) -> bool {
        let value = value.or_else(|| self.treat_missing_as_empty.then(|| Cow::Borrowed(&b""[..])));
        let matched = match (&self.matches, value) {
            (HeaderMatch::Present(present), value) => value.is_some() == *present,
            (_, None) => return false,
            (HeaderMatch::String(matcher), Some(value)) => matcher.matches(&value),
            (HeaderMatch::Range { start, end }, Some(value)) => std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.trim_ascii().parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        };
        matched != self.invert
    }
}

impl HeaderSource {
    /// The value in a request; repeated headers are joined by `,`.
    pub fn value<'a>(&self, request: &RequestHead<'a>) -> Option<Cow<'a, [u8]>> {
        let pseudo = match self {
            Self::Name(name) => return header_value(request.headers, name),
            Self::Method => request.method,
            Self::Path => request.path_and_query,
            Self::Authority => request.authority,
            Self::Scheme => request.scheme,
        };
        (!pseudo.is_empty()).then_some(Cow::Borrowed(pseudo.as_bytes()))
    }
}

/// A header's value; repeated ones are joined by `,`.
pub fn header_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(Cow::Borrowed(first.as_bytes()));
    };
    let mut all = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// `application/grpc`, alone or with a `+` suffix; `application/grpc-web` is something else.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}
