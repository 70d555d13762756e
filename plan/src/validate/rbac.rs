//! `config.rbac.v3.RBAC`, and the filters of TCP and HTTP that have one.

use envoy_types::pb::envoy::config::rbac::v3::permission::{self, Rule};
use envoy_types::pb::envoy::config::rbac::v3::principal::{self, Authenticated, Identifier};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as ProtoAction;
use envoy_types::pb::envoy::config::rbac::v3::{
    Permission as ProtoPermission, Policy as ProtoPolicy, Principal as ProtoPrincipal, Rbac as Proto,
};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpProto;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkProto;
use envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use envoy_types::pb::envoy::r#type::v3::Int32Range;

use super::at::{At, no_effect, refuse_set};
use super::header::header_matcher;
use super::matcher::string_matcher;
use super::metadata_matcher::metadata_matcher;
use super::scalar::{cidr, port};
use super::uri_template::uri_template;
use crate::resource::rbac::{
    Action, PathRule, Permission, Policy, Principal, Rbac, RbacFilter, ShadowPrefix,
};

/// By this Istio has the rules tried whose matches are an authorizer's to decide (`CUSTOM`).
const EXT_AUTHZ: &str = "istio_ext_authz_";

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
    no_effect!(at; "feeds statistics alone"; stat_prefix);
    no_effect!(at; "is decided when the connection comes, and again whenever the rules change"; enforcement_type);
    refuse_set!(at; matcher, shadow_matcher, delay_deny);
    let at_shadow = at.field("shadow_rules");
    let for_authorizers = shadow_rules_stat_prefix == EXT_AUTHZ;
    if !for_authorizers {
        no_effect!(at; "is of dry runs"; shadow_rules_stat_prefix);
    }
    if shadow_rules.is_some() && for_authorizers {
        at_shadow
            .not_yet("no authorizer is asked about connections: those that its policies match are refused");
    } else if shadow_rules.is_some() {
        at_shadow.not_yet("a dry run at a TCP port is not counted");
    }
    let tried = rbac(shadow_rules, Layer::Tcp, &at_shadow);
    let enforced = rbac(rules, Layer::Tcp, &at.field("rules"));
    match (tried?, enforced?) {
        (Some(_), Some(_)) if for_authorizers => at_shadow.unsupported("is not supported beside rules"),
        (tried @ Some(_), None) if for_authorizers => Some(tried),
        (_, enforced) => Some(enforced),
    }
}

/// `None` inside where nothing is enforced or tried.
pub(super) fn http_rbac(value: HttpProto, at: &At<'_>) -> Option<Option<RbacFilter>> {
    let HttpProto {
        rules,
        rules_stat_prefix,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        track_per_rule_stats,
    } = value;
    no_effect!(at; "feeds statistics alone"; rules_stat_prefix, track_per_rule_stats);
    refuse_set!(at; matcher, shadow_matcher);
    let shadow_rules_stat_prefix = match shadow_rules_stat_prefix.as_str() {
        "" => ShadowPrefix::None,
        "istio_dry_run_allow_" => ShadowPrefix::DryRunAllow,
        "istio_dry_run_deny_" => ShadowPrefix::DryRunDeny,
        EXT_AUTHZ => ShadowPrefix::ExtAuthz,
        other => {
            return at.field("shadow_rules_stat_prefix").unsupported(format!("{other:?} is not supported"));
        }
    };
    let enforced = rbac(rules, Layer::Http, &at.field("rules"));
    let tried = rbac(shadow_rules, Layer::Http, &at.field("shadow_rules"));
    let (rules, shadow_rules) = (enforced?, tried?);
    let is_of_use = rules.is_some() || shadow_rules.is_some();
    Some(is_of_use.then_some(RbacFilter { rules, shadow_rules, shadow_rules_stat_prefix }))
}

fn rbac(rules: Option<Proto>, layer: Layer, at: &At<'_>) -> Option<Option<Rbac>> {
    let Some(Proto { action, policies, audit_logging_options }) = rules else { return Some(None) };
    refuse_set!(at; audit_logging_options);
    let action = match ProtoAction::try_from(action) {
        Ok(ProtoAction::Allow) => Action::Allow,
        Ok(ProtoAction::Deny) => Action::Deny,
        Ok(ProtoAction::Log) => {
            at.field("action").not_yet("what an audit asks for is not logged");
            return Some(Some(Rbac::new(Action::Log, Vec::new())));
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
    complete.then(|| Some(Rbac::new(action, parsed)))
}

fn policy(name: String, value: ProtoPolicy, layer: Layer, at: &At<'_>) -> Option<Policy> {
    let ProtoPolicy { permissions, principals, condition, checked_condition, cel_config } = value;
    refuse_set!(at; condition, checked_condition, cel_config);
    let permissions =
        some_of(permissions, &at.field("permissions"), |value, at| permission(value, layer, at));
    let principals = some_of(principals, &at.field("principals"), |value, at| principal(value, layer, at));
    Some(Policy { name, permissions: permissions?, principals: principals? })
}

fn permission(value: ProtoPermission, layer: Layer, at: &At<'_>) -> Option<Permission> {
    let set =
        |rules, at: &At<'_>| some_of(rules, &at.field("rules"), |value, at| permission(value, layer, at));
    Some(match at.required(value.rule)? {
        Rule::Any(any) => any_of(any, &at.field("any")).map(|()| Permission::Any)?,
        Rule::AndRules(permission::Set { rules }) => Permission::All(set(rules, &at.field("and_rules"))?),
        Rule::OrRules(permission::Set { rules }) => Permission::OneOf(set(rules, &at.field("or_rules"))?),
        Rule::NotRule(rule) => Permission::Not(permission(*rule, layer, &at.field("not_rule"))?.into()),
        Rule::DestinationIp(range) => Permission::DestinationIp(cidr(range, &at.field("destination_ip"))?),
        Rule::DestinationPort(value) => {
            let port = u32::from(port(value, &at.field("destination_port"))?);
            Permission::DestinationPort(port..port + 1)
        }
        Rule::DestinationPortRange(range) => {
            Permission::DestinationPort(ports(range, &at.field("destination_port_range"))?)
        }
        Rule::RequestedServerName(name) => {
            Permission::RequestedServerName(string_matcher(name, &at.field("requested_server_name"))?)
        }
        Rule::Header(header) => {
            Permission::Header(in_request(layer, &at.field("header"), |at| header_matcher(header, at))?)
        }
        Rule::UrlPath(path) => {
            Permission::Path(in_request(layer, &at.field("url_path"), |at| path_rule(path, at))?)
        }
        Rule::UriTemplate(template) => {
            let template = in_request(layer, &at.field("uri_template"), |at| uri_template(template, at))?;
            Permission::Path(PathRule::Template(template))
        }
        Rule::Metadata(matcher) => Permission::Metadata(in_request(layer, &at.field("metadata"), |at| {
            metadata_matcher(matcher, at)
        })?),
        Rule::Matcher(_) => return unsupported(&at.field("matcher")),
        Rule::SourcedMetadata(_) => return unsupported(&at.field("sourced_metadata")),
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
        Identifier::RemoteIp(range) => {
            let range = cidr(range, &at.field("remote_ip"))?;
            match layer {
                Layer::Tcp => Principal::SourceIp(range),
                Layer::Http => Principal::RemoteIp(range),
            }
        }
        Identifier::Header(header) => {
            Principal::Header(in_request(layer, &at.field("header"), |at| header_matcher(header, at))?)
        }
        Identifier::UrlPath(path) => {
            Principal::Path(in_request(layer, &at.field("url_path"), |at| path_rule(path, at))?)
        }
        Identifier::Metadata(matcher) => {
            Principal::Metadata(in_request(layer, &at.field("metadata"), |at| metadata_matcher(matcher, at))?)
        }
        Identifier::FilterState(_) => return unsupported(&at.field("filter_state")),
        Identifier::SourcedMetadata(_) => return unsupported(&at.field("sourced_metadata")),
        Identifier::Custom(_) => return unsupported(&at.field("custom")),
    })
}

/// What asks for something inside a request makes sense in a filter of HTTP alone.
fn in_request<T>(layer: Layer, at: &At<'_>, convert: impl FnOnce(&At<'_>) -> Option<T>) -> Option<T> {
    match layer {
        Layer::Http => convert(at),
        Layer::Tcp => at.refuse("looks into requests, of which a filter of TCP knows none"),
    }
}

fn path_rule(value: PathMatcher, at: &At<'_>) -> Option<PathRule> {
    let PathMatcher { rule } = value;
    let path_matcher::Rule::Path(path) = at.required(rule)?;
    string_matcher(path, &at.field("path")).map(PathRule::String)
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

fn unsupported<T>(at: &At<'_>) -> Option<T> {
    at.refuse("is not supported")
}
