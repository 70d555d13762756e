//! `envoy.filters.http.cors`: answers the preflights of pages of other origins, and tells browsers what such pages may see.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use orlop_plan::resource::cors::CorsPolicy;
use orlop_plan::resource::route::Action;

use super::{FilterContext, Stopped};
use crate::http::head::RequestHead;
use crate::http::local_reply::LocalReply;
use crate::stats::FilterStat;

/// What the answer to a page of an allowed origin says.
#[derive(Debug)]
pub(super) struct Allowed {
    origin: HeaderValue,
    credentials: bool,
    expose_headers: Option<HeaderValue>,
}

impl Allowed {
    pub(super) fn encode(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(exposed) = self.expose_headers {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// What the route says, and its virtual host where the route does not.
struct Policies<'a>([Option<&'a CorsPolicy>; 2]);

impl<'a> Policies<'a> {
    fn of(context: FilterContext<'a>) -> Option<Self> {
        let route = context.route.filter(|route| matches!(route.route.action, Action::Route(_)))?;
        let policies = [route.route.filters.cors.as_deref(), route.virtual_host.filters.cors.as_deref()];
        let enabled = policies.iter().flatten().next()?.enabled_per_million;
        (fastrand::u32(..1_000_000) < enabled).then_some(Self(policies))
    }

    fn first<T>(&self, said: impl Fn(&'a CorsPolicy) -> Option<T>) -> Option<T> {
        self.0.iter().flatten().find_map(|policy| said(policy))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let origins = self.first(|policy| Some(&policy.allow_origins).filter(|list| !list.is_empty()));
        let mut origins = origins.into_iter().flatten();
        origins.any(|allowed| allowed.matches(b"*") || allowed.matches(origin.as_bytes()))
    }
}

/// What is to be said in the answer, whoever gives it.
pub(super) fn decode(
    head: &RequestHead,
    context: FilterContext<'_>,
    allowed: &mut Option<Box<Allowed>>,
) -> Result<(), Box<Stopped>> {
    let Some(policies) = Policies::of(context) else { return Ok(()) };
    let Some(origin) = present(head, &ORIGIN) else { return Ok(()) };
    let credentials = policies.first(|policy| policy.allow_credentials).unwrap_or(false);
    let is_allowed = policies.allows(origin);
    if is_allowed {
        context.counters.filter(FilterStat::CorsOriginValid);
        let expose_headers = policies.first(|policy| policy.expose_headers.clone());
        *allowed = Some(Allowed { origin: origin.clone(), credentials, expose_headers }.into());
    } else {
        context.counters.filter(FilterStat::CorsOriginInvalid);
    }
    let Some(method) = present(head, &ACCESS_CONTROL_REQUEST_METHOD) else { return Ok(()) };
    if head.method != Method::OPTIONS {
        return Ok(());
    }
    let forwards = policies.first(|policy| policy.forward_not_matching_preflights).unwrap_or(true);
    if !is_allowed && forwards {
        return Ok(());
    }
    let mut reply = LocalReply::new(StatusCode::OK, "cors_response");
    if credentials {
        reply.headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    let asked_headers = present(head, &ACCESS_CONTROL_REQUEST_HEADERS);
    for (name, allowed, asked) in [
        (ACCESS_CONTROL_ALLOW_METHODS, policies.first(|policy| policy.allow_methods.as_ref()), Some(method)),
        (ACCESS_CONTROL_ALLOW_HEADERS, policies.first(|policy| policy.allow_headers.as_ref()), asked_headers),
    ] {
        // A star allows what is asked for.
        let value = allowed.and_then(|allowed| if allowed == "*" { asked } else { Some(allowed) });
        reply.headers.extend(value.map(|value| (name, value.clone())));
    }
    let max_age = policies.first(|policy| policy.max_age.as_ref());
    reply.headers.extend(max_age.map(|seconds| (ACCESS_CONTROL_MAX_AGE, seconds.clone())));
    Err(Stopped { is_local_reply: false, ..Stopped::from(reply) }.into())
}

fn present<'a>(head: &'a RequestHead, name: &HeaderName) -> Option<&'a HeaderValue> {
    head.headers.get(name).filter(|value| !value.is_empty())
}
