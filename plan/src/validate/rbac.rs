//! `config.rbac.v3.RBAC`, and the filters of TCP and HTTP that have one.

use envoy_types::pb::envoy::config::rbac::v3::permission::{self, Rule};
use envoy_types::pb::envoy::config::rbac::v3::principal::{self, Authenticated, Identifier};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as ProtoAction;
use envoy_types::pb::envoy::config::rbac::v3::{
    Permission as ProtoPermission, Policy as ProtoPolicy, Principal as ProtoPrincipal, Rbac as Proto,
};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpProto;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkProto;
use envoy_types::pb::envoy::r#type::v3::Int32Range;

use super::at::{At, no_effect, refuse_set};
use super::matcher::string_matcher;
use super::scalar::{cidr, port};
use crate::resource::rbac::{Action, Permission, Policy, Principal, Rbac};

/// Which filter the rules are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Tcp,
    Http,
}

/// `None` inside where nothing is enforced.
pub(super) fn network_rbac(value: NetworkProto, at: &At<'_>) -> Option<Option<Rbac>> {
    let NetworkProto {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = value;
    no_effect!(at; "feeds statistics alone"; shadow_rules_stat_prefix, stat_prefix);
    no_effect!(at; "is decided when the connection comes, and again whenever the rules change"; enforcement_type);
    if shadow_rules.is_some() {
        at.field("shadow_rules").no_effect("is a dry run, whose outcome feeds statistics and logs alone");
    }
    refuse_set!(at; matcher, shadow_matcher, delay_deny);
    enforced(rules, Layer::Tcp, &at.field("rules"))
}

/// `None` inside where nothing is enforced.
pub(super) fn http_rbac(value: HttpProto, at: &At<'_>) -> Option<Option<Rbac>> {
    let HttpProto {
        rules,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = value;
    no_effect!(at; "feeds statistics alone"; rules_stat_prefix, shadow_rules_stat_prefix, track_per_rule_stats);
    if shadow_rules.is_some() {
        at.field("shadow_rules").no_effect("is a dry run, whose outcome feeds statistics and logs alone");
    }
    refuse_set!(at; matcher, shadow_matcher);
    enforced(rules, Layer::Http, &at.field("rules"))
}

fn enforced(rules: Option<Proto>, layer: Layer, at: &At<'_>) -> Option<Option<Rbac>> {
    let Some(Proto { action, policies, audit_logging_options }) = rules else { return Some(None) };
    refuse_set!(at; audit_logging_options);
    let action = match ProtoAction::try_from(action) {
        Ok(ProtoAction::Allow) => Action::Allow,
        Ok(ProtoAction::Deny) => Action::Deny,
        Ok(ProtoAction::Log) => {
            at.field("action").not_yet("what an audit asks for is not logged");
            return Some(None);
        }
        Err(_) => return at.field("action").refuse("is unknown"),
    };
    let mut policies: Vec<_> = policies.into_iter().collect();
    policies.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let at = at.field("policies");
    let mut parsed = Vec::with_capacity(policies.len());
    let mut complete = true;
    for (name, value) in policies {
        match policy(name.clone(), value, layer, &at.key(&name)) {
            Some(policy) => parsed.push(policy),
            None => complete = false,
        }
    }
    complete.then_some(Some(Rbac { action, policies: parsed }))
}

fn policy(name: String, value: ProtoPolicy, layer: Layer, at: &At<'_>) -> Option<Policy> {
    let ProtoPolicy { permissions, principals, condition, checked_condition, cel_config } = value;
    refuse_set!(at; condition, checked_condition, cel_config);
    let permissions = some_of(permissions, &at.field("permissions"), permission);
    let principals = some_of(principals, &at.field("principals"), |value, at| principal(value, layer, at));
    Some(Policy { name, permissions: permissions?, principals: principals? })
}

fn permission(value: ProtoPermission, at: &At<'_>) -> Option<Permission> {
    Some(match at.required(value.rule)? {
        Rule::Any(any) => any_of(any, &at.field("any")).map(|()| Permission::Any)?,
        Rule::AndRules(permission::Set { rules }) => {
            Permission::All(some_of(rules, &at.field("and_rules").field("rules"), permission)?)
        }
        Rule::OrRules(permission::Set { rules }) => {
            Permission::OneOf(some_of(rules, &at.field("or_rules").field("rules"), permission)?)
        }
        Rule::NotRule(rule) => Permission::Not(permission(*rule, &at.field("not_rule"))?.into()),
        Rule::DestinationIp(range) => Permission::DestinationIp(cidr(range, &at.field("destination_ip"))?),
        Rule::DestinationPort(value) => {
            let port = u32::from(port(value, &at.field("destination_port"))?);
            Permission::DestinationPort(port..port + 1)
        }
        Rule::DestinationPortRange(range) => {
            Permission::DestinationPort(ports(range, &at.field("destination_port_range"))?)
        }
        Rule::Header(_) => return request(&at.field("header")),
        Rule::UrlPath(_) => return request(&at.field("url_path")),
        Rule::Metadata(_) => return request(&at.field("metadata")),
        Rule::RequestedServerName(_) => return unsupported(&at.field("requested_server_name")),
        Rule::Matcher(_) => return unsupported(&at.field("matcher")),
        Rule::UriTemplate(_) => return request(&at.field("uri_template")),
        Rule::SourcedMetadata(_) => return request(&at.field("sourced_metadata")),
    })
}

fn principal(value: ProtoPrincipal, layer: Layer, at: &At<'_>) -> Option<Principal> {
    let set = |ids, at: &At<'_>| some_of(ids, &at.field("ids"), |value, at| principal(value, layer, at));
    Some(match at.required(value.identifier)? {
        Identifier::Any(any) => any_of(any, &at.field("any")).map(|()| Principal::Any)?,
        Identifier::AndIds(principal::Set { ids }) => Principal::All(set(ids, &at.field("and_ids"))?),
        Identifier::OrIds(principal::Set { ids }) => Principal::OneOf(set(ids, &at.field("or_ids"))?),
        Identifier::NotId(id) => Principal::Not(principal(*id, layer, &at.field("not_id"))?.into()),
        Identifier::Authenticated(Authenticated { principal_name }) => {
            let at = at.field("authenticated").field("principal_name");
            let name = principal_name.map(|name| string_matcher(name, &at));
            Principal::Authenticated(name.map_or(Some(None), |name| name.map(Some))?)
        }
        Identifier::SourceIp(range) => Principal::SourceIp(cidr(range, &at.field("source_ip"))?),
        Identifier::DirectRemoteIp(range) => Principal::SourceIp(cidr(range, &at.field("direct_remote_ip"))?),
        Identifier::RemoteIp(range) if layer == Layer::Tcp => {
            Principal::SourceIp(cidr(range, &at.field("remote_ip"))?)
        }
        // What proxies on the way have written into `x-forwarded-for` decides.
        Identifier::RemoteIp(_) => return request(&at.field("remote_ip")),
        Identifier::Header(_) => return request(&at.field("header")),
        Identifier::UrlPath(_) => return request(&at.field("url_path")),
        Identifier::Metadata(_) => return request(&at.field("metadata")),
        Identifier::FilterState(_) => return unsupported(&at.field("filter_state")),
        Identifier::SourcedMetadata(_) => return request(&at.field("sourced_metadata")),
        Identifier::Custom(_) => return unsupported(&at.field("custom")),
    })
}

/// One at least, as Envoy has it: none would match nothing where everything is meant, or the other way round.
fn some_of<M, T>(values: Vec<M>, at: &At<'_>, convert: impl Fn(M, &At<'_>) -> Option<T>) -> Option<Vec<T>> {
    if values.is_empty() { at.refuse("is empty") } else { at.each(values, convert) }
}

fn any_of(any: bool, at: &At<'_>) -> Option<()> {
    if any { Some(()) } else { at.refuse("can only be true") }
}

fn ports(value: Int32Range, at: &At<'_>) -> Option<std::ops::Range<u32>> {
    let Int32Range { start, end } = value;
    match (u32::try_from(start), u32::try_from(end)) {
        (Ok(start), Ok(end)) if start < end && end <= 1 << 16 => Some(start..end),
        _ => at.refuse(format!("{start} to {end} is not a range of ports")),
    }
}

fn request<T>(at: &At<'_>) -> Option<T> {
    at.refuse("is not supported: policies that look into requests are not carried out yet")
}

fn unsupported<T>(at: &At<'_>) -> Option<T> {
    at.refuse("is not supported")
}
