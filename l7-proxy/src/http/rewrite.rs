//! How a route changes path and authority before a request goes upstream.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use orlop_plan::resource::route::{HostRewrite, PathMatch, PathRewrite, RouteMatch};

use super::head::RequestHead;

const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
const X_ENVOY_ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Rewrites the path, and says in `x-envoy-original-path` what it was.
pub(crate) fn path(head: &mut RequestHead, rewrite: &PathRewrite, route_match: &RouteMatch) {
    let rewritten = match rewrite {
        PathRewrite::Prefix(replacement) => prefix(&head.path, route_match, replacement),
        PathRewrite::Regex { pattern, substitution } => {
            let (path, query) = split(&head.path);
            format!("{}{query}", pattern.replace_all(path, substitution.as_str()))
        }
    };
    let original = std::mem::replace(&mut head.path, rewritten);
    insert(&mut head.headers, X_ENVOY_ORIGINAL_PATH, original);
}

/// Replaces what a route matched of the path; the query stays.
pub(crate) fn prefix(target: &str, route_match: &RouteMatch, replacement: &str) -> String {
    let (path, query) = split(target);
    let matched = match &route_match.path {
        PathMatch::Prefix(prefix) | PathMatch::PathSeparatedPrefix(prefix) => prefix.len(),
        PathMatch::Exact(_) | PathMatch::Regex(_) => path.len(),
    };
    let rest = path.get(matched..).unwrap_or_default();
    format!("{replacement}{rest}{query}")
}

/// A target's path, and its query with the `?`.
pub(crate) fn split(target: &str) -> (&str, &str) {
    target.split_at(target.find('?').unwrap_or(target.len()))
}

/// Rewrites the authority where the request itself says how; [`HostRewrite::Auto`] waits for the host.
pub(crate) fn host(head: &mut RequestHead, rewrite: &HostRewrite, append_forwarded: bool) {
    match rewrite {
        HostRewrite::Literal(host) => set_host(head, host, append_forwarded),
        HostRewrite::Header(name) => {
            let host = head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            if let Some(host) = host.filter(|host| !host.is_empty()) {
                set_host(head, &host, append_forwarded);
            }
        }
        HostRewrite::Auto => {}
    }
}

/// Sets the authority, and says in `x-envoy-original-host` what it was.
pub(crate) fn set_host(head: &mut RequestHead, host: &str, append_forwarded: bool) {
    if head.authority == host {
        return;
    }
    let original = std::mem::replace(&mut head.authority, host.to_owned());
    if append_forwarded {
        let forwarded = HeaderValue::try_from(original.as_str());
        head.headers.extend(forwarded.ok().map(|original| (X_FORWARDED_HOST, original)));
    }
    insert(&mut head.headers, X_ENVOY_ORIGINAL_HOST, original);
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
