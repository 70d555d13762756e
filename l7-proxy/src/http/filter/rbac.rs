//! `envoy.filters.http.rbac`.

use http::StatusCode;
use orlop_plan::rbac::{Answer, Request};
use orlop_plan::resource::rbac::{Policy, RbacFilter, ShadowPrefix};
use serde_json::Value;

use super::{FilterContext, Stopped};
use crate::http::head::RequestHead;
use crate::http::local_reply::LocalReply;
use crate::http::request_headers::client_address;
use crate::stats::{FilterStat, Refusal};

/// What a client is told whom a policy does not let in.
pub(super) const ACCESS_DENIED: &str = "RBAC: access denied";

/// What becomes of a request by policies that are tried.
#[derive(Debug)]
pub(crate) struct Tried {
    /// The policy that matches.
    pub(crate) policy: Option<String>,
    /// Whether the request would pass.
    pub(crate) passes: bool,
}

/// The policy that leaves a request to an authorizer goes into `for_authorizers`, what others come to into `tried`.
pub(super) fn decode(
    filter: &RbacFilter,
    head: &RequestHead,
    context: FilterContext<'_>,
    metadata: &Value,
    (for_authorizers, tried): (&mut Option<String>, &mut [Option<Tried>; 2]),
) -> Result<(), Box<Stopped>> {
    let FilterContext { config, connection, counters, route: _ } = context;
    let request = Request {
        connection: connection.facts(),
        client: client_address(head, config, connection),
        head: head.for_routes(),
        metadata,
    };
    if let Some(rules) = &filter.shadow_rules {
        let decision = rules.decide(&request);
        let allowed = decision.allowed == Answer::Yes;
        if filter.shadow_rules_stat_prefix == ShadowPrefix::ExtAuthz
            && let Some(policy) = decision.policy
        {
            *for_authorizers = Some(policy.name.clone());
        }
        counters.filter(FilterStat::of_shadow(filter.shadow_rules_stat_prefix, allowed));
        let [of_allow, of_deny] = tried;
        let place = match filter.shadow_rules_stat_prefix {
            ShadowPrefix::DryRunAllow => Some(of_allow),
            ShadowPrefix::DryRunDeny => Some(of_deny),
            ShadowPrefix::None | ShadowPrefix::ExtAuthz => None,
        };
        if let Some(place) = place.filter(|_| config.tracing_provider().is_some()) {
            *place =
                Some(Tried { policy: decision.policy.map(|policy| policy.name.clone()), passes: allowed });
        }
    }
    let Some(rules) = &filter.rules else { return Ok(()) };
    let decision = rules.decide(&request);
    if decision.allowed == Answer::Yes {
        counters.filter(FilterStat::RbacAllowed);
        return Ok(());
    }
    counters.filter(FilterStat::RbacDenied);
    connection.pod.counters.refuse(Refusal::Policy);
    Err(Box::new(LocalReply::text(StatusCode::FORBIDDEN, denied_by(decision.policy), ACCESS_DENIED).into()))
}

/// Envoy's words for who was not let in.
pub(crate) fn denied_by(policy: Option<&Policy>) -> String {
    let name = policy.map_or("none", |policy| policy.name.as_str());
    format!("rbac_access_denied_matched_policy[{}]", name.replace(' ', "_"))
}
