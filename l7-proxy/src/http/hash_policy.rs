//! The hash of a request, which chooses its host where the cluster balances by one: Envoy's `HashPolicyImpl`. The keys are
//! Envoy's, so that both send a client to the same host.

use std::io::{Cursor, Write};
use std::net::IpAddr;

use http::HeaderValue;
use http::header::COOKIE;
use orlop_plan::balance::xx_hash;
use orlop_plan::resource::hash_policy::{GeneratedCookie, HashPolicy, HashSpecifier};
use orlop_plan::resource::header::HeaderSource;
use orlop_plan::resource::http_connection_manager::HttpConnectionManager;
use orlop_plan::route_match;

use super::head::RequestHead;
use super::request_headers::X_FORWARDED_FOR;
use crate::pod::ConnectionContext;

/// The longest text of an IP address.
const LONGEST_ADDRESS: usize = 45;

/// What a request is balanced by.
#[derive(Debug, Default)]
pub(crate) struct RequestHash {
    /// `None` where the policies find nothing: any host will do.
    pub(crate) hash: Option<u64>,
    /// Cookies that the client is given with the answer, so that its next requests have the same hash.
    pub(crate) set_cookies: Vec<HeaderValue>,
}

impl RequestHash {
    /// By these policies.
    pub(crate) fn new(
        policies: &[HashPolicy],
        head: &RequestHead,
        config: &HttpConnectionManager,
        connection: &ConnectionContext,
    ) -> Self {
        let mut made = Self::default();
        for HashPolicy { specifier, terminal } in policies {
            let found = match specifier {
                HashSpecifier::Header(source) => header(source, head),
                HashSpecifier::SourceIp => Some(hash_of_address(client(head, config, connection))),
                HashSpecifier::QueryParameter(name) => {
                    route_match::query_parameter(&head.path, name).map(|value| xx_hash(0, value.as_bytes()))
                }
                HashSpecifier::Cookie(wanted) => match (cookie(head, &wanted.name), &wanted.generated) {
                    (Some(value), _) => Some(xx_hash(0, value)),
                    (None, Some(generated)) => Some(made.give_cookie(&wanted.name, generated, connection)),
                    (None, None) => None,
                },
            };
            if let Some(found) = found {
                // Rotated, so that equal policies do not cancel each other out.
                made.hash = Some(made.hash.map_or(0, |hash| hash.rotate_left(1)) ^ found);
            }
            if *terminal && made.hash.is_some() {
                break;
            }
        }
        made
    }

    /// A cookie whose value depends on the connection alone, so that requests which race get the same one.
    fn give_cookie(
        &mut self,
        name: &str,
        generated: &GeneratedCookie,
        connection: &ConnectionContext,
    ) -> u64 {
        let GeneratedCookie { max_age, path, attributes } = generated;
        let value = xx_hash(0, format!("{}{}", connection.peer, connection.local).as_bytes());
        let value = format!("{value:016x}");
        let mut parts = vec![format!("{name}=\"{value}\"")];
        if *max_age > 0 {
            parts.push(format!("Max-Age={max_age}"));
        }
        if !path.is_empty() {
            parts.push(format!("Path={path}"));
        }
        parts.extend(attributes.iter().map(|(name, value)| match value.as_str() {
            "" => name.clone(),
            value => format!("{name}={value}"),
        }));
        parts.push("HttpOnly".to_owned());
        self.set_cookies.extend(HeaderValue::try_from(parts.join("; ")));
        xx_hash(0, value.as_bytes())
    }
}

/// Of the text of an address.
pub(crate) fn hash_of_address(address: IpAddr) -> u64 {
    let mut text = Cursor::new([0_u8; LONGEST_ADDRESS]);
    // It is long enough for every address.
    let _written = write!(text, "{address}");
    let length = usize::try_from(text.position()).unwrap_or_default();
    xx_hash(0, text.get_ref().get(..length).unwrap_or_default())
}

/// Of all values of a header, each hashed with the hash of those before it, in an order of their own.
fn header(source: &HeaderSource, head: &RequestHead) -> Option<u64> {
    let HeaderSource::Name(name) = source else {
        return source.value(&head.for_routes()).map(|value| xx_hash(0, &value));
    };
    let mut values = head.headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(xx_hash(0, first)) };
    let mut all = vec![first, second];
    all.extend(values);
    all.sort_unstable();
    Some(all.into_iter().fold(0, xx_hash))
}

/// The value of a cookie, without its quotes; an empty one counts as none.
fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    let pairs =
        head.headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let mut named = pairs.filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at_checked(equals)?;
        (key.trim_ascii_start() == name.as_bytes()).then(|| value.strip_prefix(b"=")).flatten()
    });
    let value = named.next()?.trim_ascii_end();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value)).filter(|value| !value.is_empty())
}

/// Who the client is: the peer, or whom a proxy in front of it named last, where that counts (`use_remote_address`).
fn client(head: &RequestHead, config: &HttpConnectionManager, connection: &ConnectionContext) -> IpAddr {
    let named = || {
        let forwarded = head.headers.get_all(X_FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
        forwarded.rsplit(',').next()?.trim().parse().ok()
    };
    let named = if config.use_remote_address { None } else { named() };
    named.unwrap_or(connection.peer.ip())
}
