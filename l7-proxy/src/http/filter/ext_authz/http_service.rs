//! Authorizers that are asked by HTTP: by the request itself, without its body unless that is wanted, under another path. A
//! status of 200 lets it pass; any other but those of a failure is the answer.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, LOCATION, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use orlop_plan::resource::ext_authz::{ExtAuthz, HttpService};
use orlop_plan::resource::header::HeaderTarget;
use orlop_plan::resource::matcher::StringMatcher;

use super::{Answer, Change, Changes, FRAMING, How, NoVerdict, Question, Verdict};
use crate::http::call::{Called, call};
use crate::http::head::RequestHead;

/// By this the authorizer has headers taken from the request.
const REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

pub(super) async fn ask(
    filter: &ExtAuthz,
    service: &HttpService,
    question: &Question<'_>,
) -> Result<Verdict, NoVerdict> {
    let body = question.body.as_ref().map_or_else(Bytes::new, |body| body.bytes.clone());
    let head = request(filter, service, question, body.len());
    let connection = question.context.connection;
    let asked = Box::pin(call(connection, &filter.cluster, &head, body, filter.timeout)).await;
    let answer = asked.map_err(|error| {
        tracing::debug!(pod = %connection.pod.name, cluster = %filter.cluster, %error, "no authorizer");
        NoVerdict(None)
    })?;
    if answer.status.is_server_error() {
        return Err(NoVerdict(None));
    }
    Ok(verdict(service, answer))
}

fn request(filter: &ExtAuthz, service: &HttpService, question: &Question<'_>, length: usize) -> RequestHead {
    let original = question.head;
    let mut head = RequestHead {
        method: original.method.clone(),
        authority: original.authority.clone(),
        path: format!("{}{}", service.path_prefix, original.path),
        has_authority: true,
        ..RequestHead::default()
    };
    for (name, value) in question.headers(filter) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            head.headers.append(name, value);
        }
    }
    head.headers.remove(TRANSFER_ENCODING);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    for (name, value) in &service.headers_to_add {
        head.headers.append(name, value.clone());
    }
    head
}

fn verdict(service: &HttpService, answer: Called) -> Verdict {
    let Called { status, mut headers, body, .. } = answer;
    let is_among = |name: &HeaderName, matchers: &[StringMatcher]| {
        matchers.iter().any(|matcher| matcher.matches(name.as_str().as_bytes()))
    };
    if status == StatusCode::OK {
        let removed = headers.get_all(REMOVE).iter().filter_map(|value| value.to_str().ok());
        let remove = removed.flat_map(|names| names.split(',')).filter_map(|name| name.trim().parse().ok());
        let mut changes = Changes { remove: remove.collect(), ..Changes::default() };
        for (name, value) in &headers {
            let change = |action| Change {
                target: match *name {
                    HOST => HeaderTarget::Authority,
                    _ => HeaderTarget::Name(name.clone()),
                },
                value: value.clone(),
                action,
            };
            if is_among(name, &service.upstream_headers) {
                changes.request.push(change(How::SET));
            }
            if is_among(name, &service.upstream_headers_to_append) {
                changes.request.push(change(How::Join));
            }
            if is_among(name, &service.client_headers_on_success) {
                changes.respond.push(change(How::ADD));
            }
        }
        return Verdict::Allowed(changes.into());
    }
    if let Some(allowed) = &service.client_headers {
        let refused: Vec<_> =
            headers.keys().filter(|name| !is_told(name) && !is_among(name, allowed)).cloned().collect();
        for name in refused {
            headers.remove(name);
        }
    }
    // Those of the connection to the authorizer.
    for name in FRAMING {
        headers.remove(name);
    }
    Verdict::Denied(Answer { status: Some(status), headers, body })
}

/// What the client gets in any case.
fn is_told(name: &HeaderName) -> bool {
    [WWW_AUTHENTICATE, LOCATION].contains(name)
}
