//! The heads of requests and responses between decoding and encoding, the same for HTTP/1.1 and HTTP/2.

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use orlop_plan::route_match;

use crate::telemetry::Said;

/// What a message came in as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As Envoy's `%PROTOCOL%` writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The head of a request. A connection that serves one request after the other reuses it, so that its strings and its
/// map are allocated once.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    /// `:method`
    pub(crate) method: Method,
    /// `:scheme`
    pub(crate) scheme: &'static str,
    /// `:authority` or `host`
    pub(crate) authority: String,
    /// `:path`, with the query; empty for `CONNECT`
    pub(crate) path: String,
    /// Without `host`, hop-by-hop headers and framing that is not `content-length`.
    pub(crate) headers: HeaderMap,
    /// What the client speaks.
    pub(crate) version: Version,
    /// What the client asks to switch to (`Connection: upgrade`).
    pub(crate) upgrade: Option<HeaderValue>,
    /// Whether `host` or `:authority` was there at all.
    pub(crate) has_authority: bool,
    /// Whether any header begins with `x-envoy-`: the rare case in which there are internal headers to be removed.
    pub(crate) has_envoy_headers: bool,
    /// Which of Istio's headers the client described itself by; they are taken out.
    pub(crate) said: Said,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            scheme: "http",
            authority: String::new(),
            path: String::new(),
            headers: HeaderMap::new(),
            version: Version::Http11,
            upgrade: None,
            has_authority: false,
            has_envoy_headers: false,
            said: Said::default(),
        }
    }
}

impl RequestHead {
    /// Empties it for the next request.
    pub(crate) fn clear(&mut self) {
        self.authority.clear();
        self.path.clear();
        self.headers.clear();
        self.upgrade = None;
        self.has_authority = false;
        self.has_envoy_headers = false;
        self.said = Said::default();
    }

    /// As routes see it.
    pub(crate) fn for_routes(&self) -> route_match::RequestHead<'_> {
        route_match::RequestHead {
            method: self.method.as_str(),
            path_and_query: &self.path,
            authority: &self.authority,
            scheme: self.scheme,
            headers: &self.headers,
        }
    }

    /// `application/grpc`, alone or with a suffix; gRPC-Web is something else.
    pub(crate) fn is_grpc(&self) -> bool {
        is_grpc(&self.headers)
    }
}

/// Whether a message's content is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// `:status`
    pub(crate) status: StatusCode,
    /// Without hop-by-hop headers and framing that is not `content-length`.
    pub(crate) headers: HeaderMap,
}
