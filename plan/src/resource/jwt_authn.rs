//! `envoy.filters.http.jwt_authn`: whose tokens are good, where they are, and what is asked of them.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use super::route::RouteMatch;

/// `JwtAuthentication`
#[derive(Debug)]
pub struct JwtAuthn {
    /// In the order of their names.
    pub providers: Vec<Arc<JwtProvider>>,
    /// The first that takes a request says what it needs; a request that none takes needs nothing.
    pub rules: Vec<RequirementRule>,
    /// `bypass_cors_preflight`
    pub bypass_cors_preflight: bool,
}

/// `RequirementRule`
#[derive(Debug)]
pub struct RequirementRule {
    /// `match`
    pub route_match: RouteMatch,
    /// `requires`; `None` is nothing.
    pub requires: Option<JwtRequirement>,
}

/// `JwtRequirement`
#[derive(Debug)]
pub enum JwtRequirement {
    /// `provider_name`: a good token of this provider.
    Provider(Arc<JwtProvider>),
    /// `requires_any`
    Any(Vec<Self>),
    /// `requires_all`
    All(Vec<Self>),
    /// `allow_missing`: no token where these providers' are, or a good one; they are those that stand beside it in a
    /// `requires_any`.
    AllowMissing(Vec<Arc<JwtProvider>>),
}

/// `JwtProvider`
#[derive(Debug)]
pub struct JwtProvider {
    /// The key in the map of providers.
    pub name: String,
    /// `issuer`; empty is any.
    pub issuer: String,
    /// `audiences`; empty is any.
    pub audiences: Vec<String>,
    /// `require_expiration`
    pub require_expiration: bool,
    /// `forward`: the token stays in the request.
    pub forward: bool,
    /// `from_headers`, and Envoy's default where nothing is said of any place.
    pub from_headers: Vec<JwtHeader>,
    /// `from_params`, and Envoy's default.
    pub from_params: Vec<String>,
    /// `from_cookies`
    pub from_cookies: Vec<String>,
    /// `forward_payload_header`
    pub forward_payload_header: Option<HeaderName>,
    /// `claim_to_headers`: a header, and the claim for it, from the outermost.
    pub claim_to_headers: Vec<(HeaderName, Vec<String>)>,
    /// `payload_in_metadata`: the key there.
    pub payload_in_metadata: Option<String>,
    /// `normalize_payload_in_metadata.space_delimited_claims`
    pub space_delimited_claims: Vec<String>,
    /// `clock_skew_seconds`; Envoy's default is 60.
    pub clock_skew_seconds: u64,
    /// `local_jwks`: its keys that can be used.
    pub keys: Vec<Jwk>,
}

/// `JwtHeader`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtHeader {
    /// The header.
    pub name: HeaderName,
    /// What stands before the token.
    pub prefix: String,
}

/// A key (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwk {
    /// `kid`; empty is for any token.
    pub kid: String,
    /// `alg`; empty is any that the key is for.
    pub alg: String,
    /// The key itself.
    pub key: JwkKey,
}

/// The key of a [`Jwk`].
#[derive(Clone, PartialEq, Eq)]
pub enum JwkKey {
    /// `RSA`: modulus and exponent, big-endian.
    Rsa {
        /// `n`
        n: Vec<u8>,
        /// `e`
        e: Vec<u8>,
    },
    /// `EC` on P-256: an uncompressed point.
    P256(Vec<u8>),
    /// `EC` on P-384: an uncompressed point.
    P384(Vec<u8>),
    /// `OKP` with Ed25519.
    Ed25519(Vec<u8>),
    /// `oct`: a secret that both sides share.
    Secret(Vec<u8>),
}

/// A secret is never printed.
impl fmt::Debug for JwkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::Ed25519(_) => "Ed25519",
            Self::Secret(_) => "oct",
        })
    }
}
