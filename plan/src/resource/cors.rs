//! `envoy.filters.http.cors`.

use http::HeaderValue;

use super::matcher::StringMatcher;

/// `CorsPolicy`: what a route or a virtual host lets pages of other origins do. What one does not say the next less specific one
/// says.
#[derive(Debug)]
pub struct CorsPolicy {
    /// `allow_origin_string_match`; empty says nothing.
    pub allow_origins: Vec<StringMatcher>,
    /// `allow_methods`
    pub allow_methods: Option<HeaderValue>,
    /// `allow_headers`
    pub allow_headers: Option<HeaderValue>,
    /// `expose_headers`
    pub expose_headers: Option<HeaderValue>,
    /// `max_age`, in seconds.
    pub max_age: Option<HeaderValue>,
    /// `allow_credentials`
    pub allow_credentials: Option<bool>,
    /// `forward_not_matching_preflights`
    pub forward_not_matching_preflights: Option<bool>,
    /// `filter_enabled`: for how many of a million requests.
    pub enabled_per_million: u32,
}
