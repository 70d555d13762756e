//! An authorizer of Envoy's `envoy.service.auth.v3.Authorization`, as a path of the HTTP server. What it decides the request
//! itself says, in its header `x-authz`. What it was told is in the answer.

use std::convert::Infallible;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue as ProtoHeader, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::rpc::Status;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response};
use prost::Message;

/// Where it is asked.
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const PERMISSION_DENIED: i32 = 7;

/// The answer to a call.
pub(crate) fn answer(mut body: Bytes) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    // A flag, and the length of the one message.
    body.advance(body.len().min(5));
    let request = CheckRequest::decode(body).unwrap_or_default();
    let attributes = request.attributes.unwrap_or_default();
    let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
    let decided = decide(&http, attributes.context_extensions.get("place").map(String::as_str));
    let mut trailers = HeaderMap::new();
    let status = if decided.is_some() { "0" } else { "13" };
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let mut message = BytesMut::new();
    if let Some(decided) = decided {
        message.put_u8(0);
        message.put_u32(u32::try_from(decided.encoded_len()).unwrap_or_default());
        // A buffer grows as it has to.
        let _encoded = decided.encode(&mut message);
    }
    let body = Full::new(message.freeze()).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(UnsyncBoxBody::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn decide(http: &HttpRequest, place: Option<&str>) -> Option<CheckResponse> {
    let told = format!(
        "{} {} {} {} {} {} {:?} {}",
        http.method,
        http.path,
        http.host,
        http.protocol,
        http.body.len(),
        http.raw_body.len(),
        http.headers.get("x-envoy-auth-partial-body"),
        place.unwrap_or_default(),
    );
    let header = |key: &str, value: &str| HeaderValueOption {
        header: Some(ProtoHeader { key: key.to_owned(), value: value.to_owned(), ..ProtoHeader::default() }),
        ..HeaderValueOption::default()
    };
    let action = |key: &str, action: HeaderAppendAction| HeaderValueOption {
        append_action: action.into(),
        ..header(key, "by-authorizer")
    };
    let denied = |code: i32, headers| DeniedHttpResponse {
        status: Some(HttpStatus { code }),
        headers,
        body: told.clone(),
    };
    let (code, http_response) = match http.headers.get("x-authz").map(String::as_str) {
        Some("allow") => {
            let response = OkHttpResponse {
                headers: vec![
                    header("x-set", "by-authorizer"),
                    header("x-add", &told),
                    action("x-kept", HeaderAppendAction::AddIfAbsent),
                    action("x-absent", HeaderAppendAction::OverwriteIfExists),
                ],
                headers_to_remove: vec!["x-rm".to_owned()],
                response_headers_to_add: vec![
                    header("x-resp", "allowed"),
                    action("x-echo-server", HeaderAppendAction::OverwriteIfExists),
                    action("vary", HeaderAppendAction::AddIfAbsent),
                ],
                ..OkHttpResponse::default()
            };
            (0, HttpResponse::OkResponse(response))
        }
        Some("deny") => {
            (PERMISSION_DENIED, HttpResponse::DeniedResponse(denied(401, vec![header("x-resp", "denied")])))
        }
        Some("explain") => {
            (PERMISSION_DENIED, HttpResponse::ErrorResponse(denied(502, vec![header("x-resp", "error")])))
        }
        Some("invalid") => {
            let headers = vec![header("x-set", "in\nvalid")];
            (0, HttpResponse::OkResponse(OkHttpResponse { headers, ..OkHttpResponse::default() }))
        }
        Some("deny-invalid") => (
            PERMISSION_DENIED,
            HttpResponse::DeniedResponse(denied(401, vec![header("x-resp", "in\nvalid")])),
        ),
        Some("both") => (0, HttpResponse::DeniedResponse(denied(401, vec![]))),
        _ => return None,
    };
    let status = Some(Status { code, ..Status::default() });
    Some(CheckResponse { status, http_response: Some(http_response), ..CheckResponse::default() })
}
