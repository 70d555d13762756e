//! `route.v3.RouteAction.HashPolicy` and `type.v3.HashPolicy`.

use envoy_types::pb::envoy::config::route::v3::route_action::HashPolicy as Proto;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use envoy_types::pb::envoy::r#type::v3::{HashPolicy as TcpProto, hash_policy as tcp};

use super::at::{At, refuse_set};
use super::header::header_source;
use super::scalar::optional_duration;
use crate::resource::hash_policy::{GeneratedCookie, HashCookie, HashPolicy, HashSpecifier};

/// The policies of a route. One that hashes nothing is left out.
pub(super) fn hash_policies(values: Vec<Proto>, at: &At<'_>) -> Option<Vec<HashPolicy>> {
    Some(at.each(values, hash_policy)?.into_iter().flatten().collect())
}

fn hash_policy(value: Proto, at: &At<'_>) -> Option<Option<HashPolicy>> {
    let Proto { terminal, policy_specifier } = value;
    let specifier = match at.required(policy_specifier)? {
        PolicySpecifier::Header(Header { header_name, regex_rewrite }) => {
            let at = at.field("header");
            refuse_set!(at; regex_rewrite);
            HashSpecifier::Header(header_source(&header_name, &at.field("header_name"))?)
        }
        PolicySpecifier::Cookie(value) => HashSpecifier::Cookie(cookie(value, &at.field("cookie"))?),
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }) => {
            HashSpecifier::SourceIp
        }
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: false }) => {
            return Some(None);
        }
        PolicySpecifier::QueryParameter(QueryParameter { name }) => HashSpecifier::QueryParameter(name),
        PolicySpecifier::FilterState(_) => return at.field("filter_state").unsupported("is not supported"),
    };
    Some(Some(HashPolicy { specifier, terminal }))
}

fn cookie(value: Cookie, at: &At<'_>) -> Option<HashCookie> {
    let Cookie { name, ttl, path, attributes } = value;
    if name.is_empty() {
        return at.field("name").refuse("is empty");
    }
    let attributes = attributes.into_iter().map(|CookieAttribute { name, value }| (name, value)).collect();
    let generated = optional_duration(ttl, &at.field("ttl"))?.map(|ttl| GeneratedCookie {
        max_age: ttl.as_secs(),
        path,
        attributes,
    });
    Some(HashCookie { name, generated })
}

/// Whether the hash of a TCP proxy's connections is their source address.
pub(super) fn hashes_source_ip(values: Vec<TcpProto>, at: &At<'_>) -> Option<bool> {
    if values.len() > 1 {
        return at.refuse("has more than one element");
    }
    let by_source =
        at.each(values, |TcpProto { policy_specifier }, at| match at.required(policy_specifier)? {
            tcp::PolicySpecifier::SourceIp(tcp::SourceIp {}) => Some(()),
            tcp::PolicySpecifier::FilterState(_) => at.field("filter_state").unsupported("is not supported"),
        })?;
    Some(!by_source.is_empty())
}
