//! `envoy.filters.http.ext_authz`: an authorizer is asked whether a request may pass. Where it cannot be asked, the request does
//! not pass unless the configuration says so.

mod grpc;
mod http_service;

use std::collections::HashMap;
use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use orlop_plan::resource::ext_authz::{
    Authorizer, BufferSettings, CheckSettings, ExtAuthz, ExtAuthzPerRoute, RouteBody,
};
use orlop_plan::resource::header::{AppendAction, HeaderTarget};
use orlop_plan::resource::matcher::StringMatcher;
use orlop_plan::resource::route::FilterConfig;
use tokio::time::timeout;

use super::{FilterContext, Stopped};
use crate::http::body::RequestBody;
use crate::http::head::RequestHead;
use crate::http::header_mutation;
use crate::http::local_reply::LocalReply;
use crate::stats::{FilterStat, Refusal, ResponseFlag};

/// Tells the authorizer whether it sees all of the body.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// Tells the endpoint that nobody has been asked.
const FAILURE_MODE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");

/// What says where a message ends is not an authorizer's to change, also where its configuration has all of its headers taken.
const FRAMING: [HeaderName; 3] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING];

/// What an authorizer is asked about.
struct Question<'a> {
    head: &'a RequestHead,
    context: FilterContext<'a>,
    /// As much of it as is shown.
    body: Option<ShownBody>,
    levels: Levels<'a>,
}

struct ShownBody {
    bytes: Bytes,
    partial: bool,
    pack_as_bytes: bool,
}

/// What an authorizer answers.
enum Verdict {
    Allowed(Box<Changes>),
    Denied(Answer),
    /// What it wants changed cannot be.
    Invalid,
}

/// What an authorizer has a client told.
struct Answer {
    /// `None` leaves it to the configuration.
    status: Option<StatusCode>,
    headers: HeaderMap,
    body: Bytes,
}

/// What it changes of a request that passes, and of its answer.
#[derive(Debug, Default)]
struct Changes {
    /// Done first.
    request: Vec<Change>,
    remove: Vec<HeaderName>,
    respond: Vec<Change>,
}

/// One change of a header.
#[derive(Debug)]
struct Change {
    target: HeaderTarget,
    value: HeaderValue,
    action: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Do(AppendAction),
    /// `append`: behind what is there, in one value; nothing where nothing is.
    Join,
}

impl How {
    const SET: Self = Self::Do(AppendAction::OverwriteIfExistsOrAdd);
    const ADD: Self = Self::Do(AppendAction::AppendIfExistsOrAdd);

    fn apply(self, headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
        match self {
            _ if FRAMING.contains(name) => {}
            Self::Do(action) => header_mutation::set(headers, name, value, action),
            Self::Join => {
                if let Some(present) = headers.get(name)
                    && let Ok(joined) =
                        HeaderValue::try_from([present.as_bytes(), b",", value.as_bytes()].concat())
                {
                    headers.insert(name, joined);
                }
            }
        }
    }
}

/// There is no verdict: nobody answers, or nothing that makes sense. Perhaps the service says what a client is told of it.
struct NoVerdict(Option<Box<Answer>>);

/// What is changed of the answer to a request that passed.
#[derive(Debug)]
pub(super) struct Granted(Vec<Change>);

impl Granted {
    pub(super) fn encode(self, headers: &mut HeaderMap) {
        for Change { target, value, action } in self.0 {
            if let HeaderTarget::Name(name) = target {
                action.apply(headers, &name, value);
            }
        }
    }
}

/// Who is to be asked.
pub(super) struct Asked<'a> {
    pub(super) filter: &'a ExtAuthz,
    /// The filter's, by which routes know it.
    pub(super) name: &'a str,
    /// What an RBAC filter has found for authorizers.
    pub(super) policy: Option<&'a str>,
}

/// Says whether the request is to be routed anew.
pub(super) async fn decode(
    Asked { filter, name, policy }: Asked<'_>,
    head: &mut RequestHead,
    body: &mut RequestBody,
    context: FilterContext<'_>,
    granted: &mut Option<Granted>,
) -> Result<bool, Box<Stopped>> {
    let levels = Levels::of(context, name);
    if levels.are_disabled() {
        return Ok(false);
    }
    let counters = context.counters;
    let is_policys =
        |enabled: &StringMatcher| policy.is_some_and(|policy| enabled.matches(policy.as_bytes()));
    if fastrand::u32(..1_000_000) >= filter.enabled_per_million
        || !filter.enabled_by_policy.as_ref().is_none_or(is_policys)
    {
        counters.filter(FilterStat::ExtAuthzDisabled);
        return Ok(false);
    }
    let shown = match levels.body(filter) {
        // What follows an upgrade is not the request's.
        Some(settings) if !body.is_empty() && head.upgrade.is_none() => {
            Some(read(body, settings, context).await?)
        }
        _ => None,
    };
    let question = Question { head, context, body: shown, levels };
    let verdict = match &filter.service {
        Authorizer::Grpc { authority, initial_metadata } => {
            grpc::ask(filter, authority, initial_metadata, &question).await
        }
        Authorizer::Http(service) => http_service::ask(filter, service, &question).await,
    };
    match verdict {
        Ok(Verdict::Allowed(changes)) => {
            counters.filter(FilterStat::ExtAuthzOk);
            let Changes { request, remove, respond } = *changes;
            let is_changed = !request.is_empty() || !remove.is_empty();
            change(head, request, &remove);
            if !respond.is_empty() {
                granted.get_or_insert_with(|| Granted(Vec::new())).0.extend(respond);
            }
            Ok(filter.clear_route_cache && is_changed)
        }
        Ok(Verdict::Denied(answer)) => {
            counters.filter(FilterStat::ExtAuthzDenied);
            context.connection.pod.counters.refuse(Refusal::Authorizer);
            Err(unauthorized(answer, filter.status_on_error, "ext_authz_denied"))
        }
        Ok(Verdict::Invalid) => {
            counters.filter(FilterStat::ExtAuthzInvalid);
            context.connection.pod.counters.refuse(Refusal::Authorizer);
            Err(Box::new(LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "ext_authz_invalid").into()))
        }
        Err(NoVerdict(answer)) => {
            counters.filter(FilterStat::ExtAuthzError);
            if filter.failure_mode_allow {
                counters.filter(FilterStat::ExtAuthzFailureModeAllowed);
                if filter.failure_mode_allow_header_add {
                    head.headers.insert(FAILURE_MODE_ALLOWED, HeaderValue::from_static("true"));
                }
                return Ok(false);
            }
            context.connection.pod.counters.refuse(Refusal::NoAuthorizer);
            let answer = answer.map_or_else(Answer::none, |answer| *answer);
            Err(unauthorized(answer, filter.status_on_error, "ext_authz_error"))
        }
    }
}

impl Answer {
    fn none() -> Self {
        Self { status: None, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

fn unauthorized(answer: Answer, on_error: StatusCode, details: &'static str) -> Box<Stopped> {
    let Answer { status, headers, body } = answer;
    let reply = LocalReply {
        headers,
        body: body.to_vec().into(),
        ..LocalReply::new(status.unwrap_or(on_error), details)
    };
    let flag = Some(ResponseFlag::UnauthorizedExternalService);
    Box::new(Stopped { flag, ..Stopped::from(reply) })
}

/// What the request's route and virtual host say, the more specific one first.
#[derive(Clone, Copy)]
struct Levels<'a>([Option<&'a ExtAuthzPerRoute>; 2]);

impl<'a> Levels<'a> {
    fn of(context: FilterContext<'a>, name: &str) -> Self {
        Self(context.said_to(name).map(|said| match said {
            Some(FilterConfig::ExtAuthz(said)) => Some(&**said),
            _ => None,
        }))
    }

    fn are_disabled(self) -> bool {
        matches!(self.0.iter().flatten().next(), Some(ExtAuthzPerRoute::Disabled))
    }

    fn settings(self) -> impl DoubleEndedIterator<Item = &'a CheckSettings> {
        self.0.into_iter().flatten().filter_map(|level| match level {
            ExtAuthzPerRoute::Disabled => None,
            ExtAuthzPerRoute::CheckSettings(settings) => Some(settings),
        })
    }

    fn body(self, filter: &ExtAuthz) -> Option<BufferSettings> {
        match self.settings().next().map_or(RouteBody::OfFilter, |settings| settings.body) {
            RouteBody::OfFilter => filter.with_request_body,
            RouteBody::None => None,
            RouteBody::Own(settings) => Some(settings),
        }
    }
}

/// Takes from the body what is to be shown, and puts it back for whoever gets the request.
async fn read(
    body: &mut RequestBody,
    settings: BufferSettings,
    context: FilterContext<'_>,
) -> Result<ShownBody, Box<Stopped>> {
    let BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes } = settings;
    let mut bytes = BytesMut::new();
    let mut rest = std::mem::replace(body, RequestBody::Empty);
    while bytes.len() < max_request_bytes || !allow_partial_message {
        let next = poll_fn(|cx| rest.poll_next(cx));
        let next = match context.config.stream_idle_timeout {
            None => Ok(next.await),
            Some(limit) => timeout(limit, next).await,
        };
        match next {
            Err(_elapsed) => {
                let reply =
                    LocalReply::text(StatusCode::REQUEST_TIMEOUT, "stream_idle_timeout", "stream timeout");
                let flag = Some(ResponseFlag::StreamIdleTimeout);
                return Err(Stopped { flag, ..Stopped::from(reply.closing()) }.into());
            }
            Ok(None) => {
                let bytes = bytes.freeze();
                *body = RequestBody::Whole(bytes.clone());
                return Ok(ShownBody { bytes, partial: false, pack_as_bytes });
            }
            Ok(Some(Ok(frame))) => {
                // Trailers of requests are not passed on.
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(Some(Err(error))) => {
                let reply = LocalReply::text(StatusCode::BAD_REQUEST, "http1.codec_error", "Bad Request");
                return Err(Stopped { flag: Some(error.flag()), ..Stopped::from(reply.closing()) }.into());
            }
        }
        if bytes.len() > max_request_bytes && !allow_partial_message {
            let details = "request_payload_too_large";
            let reply = LocalReply::text(StatusCode::PAYLOAD_TOO_LARGE, details, "Payload Too Large");
            return Err(Box::new(reply.closing().into()));
        }
    }
    let bytes = bytes.freeze();
    let shown = bytes.slice(..max_request_bytes.min(bytes.len()));
    let partial = !rest.is_empty() || shown.len() < bytes.len();
    *body = RequestBody::Begun(bytes, Box::new(rest));
    Ok(ShownBody { bytes: shown, partial, pack_as_bytes })
}

fn change(head: &mut RequestHead, changes: Vec<Change>, remove: &[HeaderName]) {
    for Change { target, value, action } in changes {
        match (target, action) {
            (HeaderTarget::Name(name), action) => action.apply(&mut head.headers, &name, value),
            (HeaderTarget::Authority, How::Do(action)) => {
                header_mutation::overwrite(&mut head.authority, &value, action);
            }
            (HeaderTarget::Path, How::Do(action)) => {
                header_mutation::overwrite(&mut head.path, &value, action);
            }
            // There is one path and one authority, behind which nothing can be added.
            (HeaderTarget::Authority | HeaderTarget::Path, How::Join) => {}
        }
    }
    for name in remove.iter().filter(|name| !FRAMING.contains(name)) {
        head.headers.remove(name);
    }
}

impl Question<'_> {
    /// What routes tell the service.
    fn context_extensions(&self) -> HashMap<String, String> {
        let said = self.levels.settings().rev().flat_map(|settings| &settings.context_extensions);
        said.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What the service sees of the request's headers, as Envoy names them.
    fn headers(&self, filter: &ExtAuthz) -> Vec<(String, String)> {
        let request = self.head;
        let pseudo = [
            (":method", request.method.as_str()),
            (":path", &request.path),
            (":authority", &request.authority),
            (":scheme", request.scheme),
        ];
        let mut all: Vec<(String, String)> =
            pseudo.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for name in request.headers.keys().filter(|name| **name != PARTIAL_BODY) {
            if let Some(value) = orlop_plan::route_match::header_value(&request.headers, name) {
                all.push((name.as_str().to_owned(), String::from_utf8_lossy(&value).into_owned()));
            }
        }
        let of_http = matches!(filter.service, Authorizer::Http(_));
        all.retain(|(name, _)| match &filter.allowed_headers {
            _ if of_http && ALWAYS_SHOWN.contains(&name.as_str()) => true,
            Some(allowed) => allowed.iter().any(|matcher| matcher.matches(name.as_bytes())),
            None => !of_http,
        });
        all.retain(|(name, _)| {
            !filter.disallowed_headers.iter().any(|matcher| matcher.matches(name.as_bytes()))
        });
        if let Some(body) = &self.body {
            all.push((PARTIAL_BODY.as_str().to_owned(), body.partial.to_string()));
        }
        all
    }
}

/// What services of HTTP see in any case.
const ALWAYS_SHOWN: [&str; 4] = [":method", ":path", ":authority", "authorization"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorizer_does_not_say_where_a_message_ends() {
        let mut head = RequestHead::default();
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(4));
        let set = |name: HeaderName, value: u32| Change {
            target: HeaderTarget::Name(name),
            value: HeaderValue::from(value),
            action: How::SET,
        };
        let other = HeaderName::from_static("x-other");
        let changes = vec![set(CONTENT_LENGTH, 9), set(other.clone(), 9)];
        change(&mut head, changes, &[CONTENT_LENGTH]);
        assert_eq!(head.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes), Some(&b"4"[..]));
        assert_eq!(head.headers.get(other).map(HeaderValue::as_bytes), Some(&b"9"[..]));
    }
}
