//! Authorizers that are asked by gRPC: `envoy.service.auth.v3.Authorization/Check`.

use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderValueOption, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::google::protobuf::Timestamp;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use orlop_plan::resource::ext_authz::ExtAuthz;
use orlop_plan::resource::header::{AppendAction, HeaderTarget};
use prost::Message;

use super::{Answer, Change, Changes, How, NoVerdict, Question, Verdict};
use crate::http::call::{Called, call};
use crate::http::grpc_status;
use crate::http::head::{RequestHead, Version};
use crate::http::request_headers::X_REQUEST_ID;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Of a message of gRPC: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

pub(super) async fn ask(
    filter: &ExtAuthz,
    authority: &str,
    initial_metadata: &[(HeaderName, HeaderValue)],
    question: &Question<'_>,
) -> Result<Verdict, NoVerdict> {
    let message = attributes(filter, question);
    let mut body = BytesMut::with_capacity(PREFIX + message.encoded_len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).map_err(|_| NoVerdict(None))?);
    message.encode(&mut body).map_err(|_| NoVerdict(None))?;
    let mut head = RequestHead {
        method: Method::POST,
        authority: authority.to_owned(),
        path: CHECK.to_owned(),
        version: Version::Http2,
        has_authority: true,
        ..RequestHead::default()
    };
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers.insert(TE, HeaderValue::from_static("trailers"));
    head.headers.extend(initial_metadata.iter().cloned());
    let connection = question.context.connection;
    let asked = Box::pin(call(connection, &filter.cluster, &head, body.freeze(), filter.timeout)).await;
    let answer = asked.map_err(|error| {
        tracing::debug!(pod = %connection.pod.name, cluster = %filter.cluster, %error, "no authorizer");
        NoVerdict(None)
    })?;
    verdict(response(answer).ok_or(NoVerdict(None))?)
}

/// The one message of an answer that went well.
fn response(answer: Called) -> Option<CheckResponse> {
    let Called { status, headers, mut body, trailers } = answer;
    let ended = grpc_status::of(&trailers).or_else(|| grpc_status::of(&headers));
    if status != StatusCode::OK || ended != Some(0) || body.len() < PREFIX || body.get_u8() != 0 {
        return None;
    }
    let length = usize::try_from(body.get_u32()).ok()?;
    (body.len() == length).then(|| CheckResponse::decode(body).ok())?
}

fn attributes(filter: &ExtAuthz, question: &Question<'_>) -> CheckRequest {
    let head = question.head;
    let facts = question.context.connection.facts();
    let tls = question.context.connection.tls.get();
    let own = tls.and_then(|tls| tls.own.principal.clone());
    let peer = tls.and_then(|tls| tls.peer.as_ref()?.principal.clone());
    let mut request = HttpRequest {
        id: head.headers.get(X_REQUEST_ID).map_or_else(String::new, lossy),
        method: head.method.to_string(),
        headers: question.headers(filter).into_iter().collect(),
        path: head.path.clone(),
        host: head.authority.clone(),
        scheme: head.scheme.to_owned(),
        // Envoy's value of what is not known.
        size: head.headers.get(CONTENT_LENGTH).and_then(|length| lossy(length).parse().ok()).unwrap_or(-1),
        protocol: head.version.as_str().to_owned(),
        ..HttpRequest::default()
    };
    if let Some(body) = &question.body {
        if body.pack_as_bytes {
            request.raw_body = body.bytes.to_vec();
        } else {
            request.body = String::from_utf8_lossy(&body.bytes).into_owned();
        }
    }
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: since_1970.as_secs().try_into().unwrap_or_default(),
        nanos: since_1970.subsec_nanos().try_into().unwrap_or_default(),
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(end(facts.source, peer.as_deref())),
            destination: Some(end(facts.destination, own.as_deref())),
            request: Some(Request { time: Some(time), http: Some(request) }),
            context_extensions: question.context_extensions(),
            ..AttributeContext::default()
        }),
    }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// One end of the connection.
fn end(address: SocketAddr, principal: Option<&str>) -> Peer {
    let address = SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..SocketAddress::default()
    };
    Peer {
        address: Some(Address { address: Some(AddressKind::SocketAddress(address)) }),
        principal: principal.unwrap_or_default().to_owned(),
        ..Peer::default()
    }
}

fn verdict(response: CheckResponse) -> Result<Verdict, NoVerdict> {
    let CheckResponse { status, dynamic_metadata: _, http_response } = response;
    // The status decides; a response of the other kind says nothing.
    let allowed = status.is_none_or(|status| status.code == 0);
    match http_response {
        Some(HttpResponse::OkResponse(response)) if allowed => {
            Ok(ok(response).map_or(Verdict::Invalid, |changes| Verdict::Allowed(changes.into())))
        }
        _ if allowed => Ok(Verdict::Allowed(Box::default())),
        Some(HttpResponse::ErrorResponse(response)) => Err(NoVerdict(denied(response, None).map(Box::new))),
        Some(HttpResponse::DeniedResponse(response)) => {
            Ok(denied(response, Some(StatusCode::FORBIDDEN)).map_or(Verdict::Invalid, Verdict::Denied))
        }
        Some(HttpResponse::OkResponse(_)) | None => Ok(Verdict::Denied(Answer {
            status: Some(StatusCode::FORBIDDEN),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        })),
    }
}

/// `None` for what cannot be done.
#[expect(deprecated, reason = "taken apart, field by field")]
fn ok(response: OkHttpResponse) -> Option<Changes> {
    let OkHttpResponse {
        headers,
        headers_to_remove,
        dynamic_metadata: _,
        response_headers_to_add,
        query_parameters_to_set,
        query_parameters_to_remove,
    } = response;
    if !query_parameters_to_set.is_empty() || !query_parameters_to_remove.is_empty() {
        // Not done, and not to be left out: the service may rely on it.
        return None;
    }
    let remove = headers_to_remove.into_iter().filter(|name| !name.starts_with(':'));
    Some(Changes {
        request: headers.into_iter().map(of_request).collect::<Option<_>>()?,
        remove: remove.map(|name| name.parse().ok()).collect::<Option<_>>()?,
        respond: response_headers_to_add.into_iter().map(change).collect::<Option<_>>()?,
    })
}

/// `None` for what is not an answer.
fn denied(response: DeniedHttpResponse, unless_said: Option<StatusCode>) -> Option<Answer> {
    let DeniedHttpResponse { status, headers, body } = response;
    let status = match status.map_or(0, |status| status.code) {
        0 => unless_said,
        code => Some(StatusCode::from_u16(u16::try_from(code).ok()?).ok()?),
    };
    let mut told = HeaderMap::new();
    for option in headers {
        if let Change { target: HeaderTarget::Name(name), value, action } = change(option)? {
            action.apply(&mut told, &name, value);
        }
    }
    Some(Answer { status, headers: told, body: Bytes::from(body) })
}

/// Of a request's headers Envoy 1.40 takes `append_action` for nothing, and replaces where `append` is not set.
fn of_request(option: HeaderValueOption) -> Option<Change> {
    #[expect(deprecated, reason = "what the service goes by")]
    let appends = option.append.is_some_and(|append| append.value);
    Some(Change { action: if appends { How::Join } else { How::SET }, ..change(option)? })
}

#[expect(deprecated, reason = "taken apart, field by field")]
fn change(option: HeaderValueOption) -> Option<Change> {
    let HeaderValueOption { header, append, append_action, keep_empty_value: _ } = option;
    let header = header?;
    let action = match append {
        Some(append) if append.value => How::ADD,
        Some(_) => How::SET,
        None => match HeaderAppendAction::try_from(append_action).ok()? {
            HeaderAppendAction::AppendIfExistsOrAdd => How::ADD,
            HeaderAppendAction::AddIfAbsent => How::Do(AppendAction::AddIfAbsent),
            HeaderAppendAction::OverwriteIfExistsOrAdd => How::SET,
            HeaderAppendAction::OverwriteIfExists => How::Do(AppendAction::OverwriteIfExists),
        },
    };
    let target = match header.key.to_ascii_lowercase().as_str() {
        // Envoy knows `host` as `:authority`.
        ":authority" | "host" => HeaderTarget::Authority,
        ":path" => HeaderTarget::Path,
        name => HeaderTarget::Name(name.parse().ok()?),
    };
    let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
    Some(Change { target, value: HeaderValue::try_from(value).ok()?, action })
}
