//! Where a redirect points to: Envoy's `RouteEntryImplBase::newUri`.

use http::HeaderValue;
use http::header::LOCATION;
use orlop_plan::resource::route::{RedirectAction, RedirectPath, RouteMatch};

use super::head::RequestHead;
use super::local_reply::{DIRECT_RESPONSE, LocalReply};
use super::rewrite;

/// The answer of a redirect route.
pub(crate) fn reply(head: &RequestHead, action: &RedirectAction, route_match: &RouteMatch) -> LocalReply {
    let mut reply = LocalReply::new(action.status, DIRECT_RESPONSE);
    let location = HeaderValue::try_from(location(head, action, route_match));
    reply.headers.extend(location.ok().map(|location| (LOCATION, location)));
    reply
}

/// A redirect of the whole virtual host to https (`require_tls`).
pub(crate) fn require_tls(head: &RequestHead) -> LocalReply {
    let mut reply = LocalReply::new(http::StatusCode::MOVED_PERMANENTLY, DIRECT_RESPONSE);
    let location = HeaderValue::try_from(format!("https://{}{}", head.authority, head.path));
    reply.headers.extend(location.ok().map(|location| (LOCATION, location)));
    reply
}

fn location(head: &RequestHead, action: &RedirectAction, route_match: &RouteMatch) -> String {
    let scheme = action.scheme.as_deref().unwrap_or(head.scheme);
    let (host, port) = split_port(&head.authority);
    // The port of the request is kept, unless the host changes, or the scheme away from the one it is the default of.
    let kept_port = match &action.host {
        Some(_) => None,
        None => port.filter(|port| {
            action.scheme.is_none() || !matches!((head.scheme, *port), ("http", "80") | ("https", "443"))
        }),
    };
    let host = action.host.as_deref().unwrap_or(host);
    let (path, query) = rewrite::split(&head.path);
    let query = if action.strip_query { "" } else { query };
    let path = match &action.path {
        None => format!("{path}{query}"),
        Some(RedirectPath::Full(full)) if full.contains('?') => full.clone(),
        Some(RedirectPath::Full(full)) => format!("{full}{query}"),
        Some(RedirectPath::Prefix(replacement)) => {
            format!("{}{query}", rewrite::prefix(path, route_match, replacement))
        }
        Some(RedirectPath::Regex { pattern, substitution }) => {
            format!("{}{query}", pattern.replace_all(path, substitution.as_str()))
        }
    };
    match (action.port, kept_port) {
        (Some(port), _) => format!("{scheme}://{host}:{port}{path}"),
        (None, Some(port)) => format!("{scheme}://{host}:{port}{path}"),
        (None, None) => format!("{scheme}://{host}{path}"),
    }
}

/// Host and port of an authority; the brackets of an IPv6 address belong to the host.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}
