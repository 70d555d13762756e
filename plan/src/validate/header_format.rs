//! The `%...%` operators of header values.

use http::HeaderValue;

use super::at::At;
use super::header::header_source;
use crate::resource::header::{FormatOperator, FormatPart, HeaderFormat};

/// Text with operators; `%%` is a percent sign. An operator that is not honoured is refused by name.
pub(super) fn header_format(text: &str, at: &At<'_>) -> Option<HeaderFormat> {
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
        parts.push(FormatPart::Operator(format_operator(operator, at)?));
        rest = after;
    }
    literal.push_str(rest);
    let invalid = || at.refuse("has characters that a header's value must not have");
    if parts.is_empty() {
        return HeaderValue::from_str(&literal).map(HeaderFormat::Literal).ok().or_else(invalid);
    }
    if HeaderValue::from_str(text).is_err() {
        return invalid();
    }
    if !literal.is_empty() {
        parts.push(FormatPart::Text(literal));
    }
    Some(HeaderFormat::Parts(parts))
}

fn format_operator(operator: &str, at: &At<'_>) -> Option<FormatOperator> {
    Some(match operator {
        "DOWNSTREAM_REMOTE_ADDRESS" => FormatOperator::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => FormatOperator::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_LOCAL_ADDRESS" => FormatOperator::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => FormatOperator::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_LOCAL_PORT" => FormatOperator::DownstreamLocalPort,
        "UPSTREAM_REMOTE_ADDRESS" => FormatOperator::UpstreamRemoteAddress,
        "UPSTREAM_CLUSTER" => FormatOperator::UpstreamCluster,
        "PROTOCOL" => FormatOperator::Protocol,
        "RESPONSE_CODE" => FormatOperator::ResponseCode,
        "RESPONSE_FLAGS" => FormatOperator::ResponseFlags,
        other => return request_header(other, at),
    })
}

/// `REQ(X?Y):Z`
fn request_header(operator: &str, at: &At<'_>) -> Option<FormatOperator> {
    let parsed = operator.strip_prefix("REQ(").and_then(|arguments| arguments.split_once(')'));
    let Some((names, length)) = parsed else {
        return at.unsupported(format!("the operator %{operator}% is not supported"));
    };
    let max_length = match length.strip_prefix(':') {
        None if length.is_empty() => None,
        Some(length) if length.parse::<usize>().is_ok() => length.parse().ok(),
        _ => return at.refuse(format!("the length of %{operator}% is not a number")),
    };
    let (name, otherwise) =
        names.split_once('?').map_or((names, None), |(name, otherwise)| (name, Some(otherwise)));
    let name = header_source(name, at)?;
    let otherwise = match otherwise {
        Some(otherwise) => Some(header_source(otherwise, at)?),
        None => None,
    };
    Some(FormatOperator::RequestHeader { name, otherwise, max_length })
}
