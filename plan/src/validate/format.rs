//! Envoy's format strings: the `%...%` operators of header values and access logs.

use http::HeaderValue;

use super::at::At;
use super::header::{header_name, header_source};
use crate::resource::format::{EndOperator, FormatOperator, FormatPart};
use crate::resource::header::HeaderFormat;

/// A header's value: text with operators; `%%` is a percent sign. An operator that is not honoured is refused by name.
pub(super) fn header_format(text: &str, at: &At<'_>) -> Option<HeaderFormat> {
    let invalid = || at.refuse("has characters that a header's value must not have");
    let parts = parts(text, at, format_operator)?;
    match parts.as_slice() {
        [] => Some(HeaderFormat::Literal(HeaderValue::from_static(""))),
        [FormatPart::Text(literal)] => {
            HeaderValue::from_str(literal).map(HeaderFormat::Literal).ok().or_else(invalid)
        }
        _ if HeaderValue::from_str(text).is_err() => invalid(),
        _ => Some(HeaderFormat::Parts(parts)),
    }
}

/// What an access log writes: text and operators in turn, no text empty.
pub(super) fn format_parts(text: &str, at: &At<'_>) -> Option<Vec<FormatPart>> {
    parts(text, at, |operator, at| match end_operator(operator, at)? {
        Some(operator) => Some(FormatOperator::AtTheEnd(operator)),
        None => format_operator(operator, at),
    })
}

fn parts(
    text: &str,
    at: &At<'_>,
    parse: impl Fn(&str, &At<'_>) -> Option<FormatOperator>,
) -> Option<Vec<FormatPart>> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let Some((operator, after)) = after.split_once('%') else {
            return at.refuse(format!("{text:?} has a % without its counterpart"));
        };
        if !literal.is_empty() {
            parts.push(FormatPart::Text(std::mem::take(&mut literal)));
        }
        parts.push(FormatPart::Operator(parse(operator, at)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(FormatPart::Text(literal));
    }
    Some(parts)
}

fn format_operator(operator: &str, at: &At<'_>) -> Option<FormatOperator> {
    Some(match operator {
        "DOWNSTREAM_REMOTE_ADDRESS" => FormatOperator::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => FormatOperator::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_LOCAL_ADDRESS" => FormatOperator::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => FormatOperator::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => FormatOperator::DownstreamLocalPort,
        "UPSTREAM_REMOTE_ADDRESS" | "UPSTREAM_HOST" => FormatOperator::UpstreamRemoteAddress,
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => FormatOperator::UpstreamCluster,
        "PROTOCOL" => FormatOperator::Protocol,
        "RESPONSE_CODE" => FormatOperator::ResponseCode,
        "RESPONSE_FLAGS" => FormatOperator::ResponseFlags,
        other => {
            let (name, otherwise, max_length) = header_operator("REQ", other, at, header_source)?;
            FormatOperator::RequestHeader { name, otherwise, max_length }
        }
    })
}

/// `None` inside for one that is not of logs alone.
fn end_operator(operator: &str, at: &At<'_>) -> Option<Option<EndOperator>> {
    Some(Some(match operator {
        "START_TIME" => EndOperator::StartTime,
        "RESPONSE_CODE_DETAILS" => EndOperator::ResponseCodeDetails,
        "CONNECTION_TERMINATION_DETAILS" => EndOperator::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => EndOperator::UpstreamTransportFailureReason,
        "BYTES_RECEIVED" => EndOperator::BytesReceived,
        "BYTES_SENT" => EndOperator::BytesSent,
        "DURATION" => EndOperator::Duration,
        "UPSTREAM_LOCAL_ADDRESS" => EndOperator::UpstreamLocalAddress,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => EndOperator::UpstreamRequestAttemptCount,
        "REQUESTED_SERVER_NAME" => EndOperator::RequestedServerName,
        "ROUTE_NAME" => EndOperator::RouteName,
        "DOWNSTREAM_PEER_URI_SAN" => EndOperator::DownstreamPeerUriSan,
        other if other.starts_with("RESP(") => {
            let name = |name: &str, at: &At<'_>| header_name(&name.to_ascii_lowercase(), at);
            let (name, otherwise, max_length) = header_operator("RESP", other, at, name)?;
            EndOperator::ResponseHeader { name, otherwise, max_length }
        }
        _ => return Some(None),
    }))
}

/// `REQ(X?Y):Z`, say: X, Y and Z.
fn header_operator<T>(
    what: &str,
    operator: &str,
    at: &At<'_>,
    parse: impl Fn(&str, &At<'_>) -> Option<T>,
) -> Option<(T, Option<T>, Option<usize>)> {
    let arguments = operator.strip_prefix(what).and_then(|rest| rest.strip_prefix('(')?.split_once(')'));
    let Some((names, length)) = arguments else {
        return at.unsupported(format!("the operator %{operator}% is not supported"));
    };
    let max_length = match length.strip_prefix(':') {
        None if length.is_empty() => None,
        Some(length) if length.parse::<usize>().is_ok() => length.parse().ok(),
        _ => return at.refuse(format!("the length of %{operator}% is not a number")),
    };
    let (name, otherwise) =
        names.split_once('?').map_or((names, None), |(name, otherwise)| (name, Some(otherwise)));
    let name = parse(name, at)?;
    let otherwise = match otherwise {
        Some(otherwise) => Some(parse(otherwise, at)?),
        None => None,
    };
    Some((name, otherwise, max_length))
}
