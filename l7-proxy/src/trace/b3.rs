//! Zipkin's B3: `x-b3-*`, or all in one header, `b3`. What has no B3 at all may say the same as W3C has it.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{Malformed, Parent, Told, hex, short_hex, text};
use super::span::Span;
use super::w3c;

const SINGLE: &str = "b3";
const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");

/// What a request says.
pub(super) fn extract(headers: &HeaderMap, with_w3c: bool) -> Result<Told, Malformed> {
    if let Some(value) = text(headers, SINGLE) {
        return single(value);
    }
    let of = |name: &HeaderName| text(headers, name.as_str());
    let sampled = of(&SAMPLED).map(|value| matches!(value, "1" | "true"));
    let (Some(trace_id), Some(span_id)) = (of(&TRACE_ID), of(&SPAN_ID)) else {
        return if with_w3c && sampled.is_none() {
            w3c::extract(headers)
        } else {
            Ok(Told { sampled, ..Told::default() })
        };
    };
    let trace_id = match trace_id.len() {
        32 => hex(trace_id)?,
        _ => short_hex(trace_id)?.into(),
    };
    let grandparent = match of(&PARENT_SPAN_ID) {
        None | Some("") => None,
        Some(id) => Some(short_hex(id)?),
    };
    let parent = Parent { trace_id, span_id: short_hex(span_id)?, grandparent, state: None };
    Ok(Told { sampled, parent: Some(parent), in_one: false })
}

/// `0`, `1` or `d` alone, or trace, span, and perhaps one of these and the span's parent.
fn single(value: &str) -> Result<Told, Malformed> {
    let sampled = |part: &str| match part {
        "0" => Ok(false),
        "1" | "d" => Ok(true),
        _ => Err(Malformed),
    };
    let mut parts = value.split('-');
    let first = parts.next().unwrap_or_default();
    let Some(span_id) = parts.next() else {
        return Ok(Told { sampled: Some(sampled(first)?), parent: None, in_one: true });
    };
    let trace_id = match first.len() {
        16 => short_hex(first)?.into(),
        32 => hex(first)?,
        _ => return Err(Malformed),
    };
    let sampled = parts.next().map(sampled).transpose()?;
    let grandparent = parts.next().map(span).transpose()?;
    if parts.next().is_some() {
        return Err(Malformed);
    }
    let parent = Parent { trace_id, span_id: span(span_id)?, grandparent, state: None };
    Ok(Told { sampled, parent: Some(parent), in_one: true })
}

fn span(digits: &str) -> Result<u64, Malformed> {
    if digits.len() == 16 { short_hex(digits) } else { Err(Malformed) }
}

/// Tells the next hop, as it was told itself.
pub(super) fn inject(span: &Span, with_w3c: bool, headers: &mut HeaderMap) {
    let mut insert = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    let trace_id = trace_id_text(span.trace_id);
    let sampled = if span.sampled { "1" } else { "0" };
    if span.in_one {
        let parent = span.parent.map(|parent| format!("-{parent:016x}")).unwrap_or_default();
        insert(HeaderName::from_static(SINGLE), format!("{trace_id}-{:016x}-{sampled}{parent}", span.id));
    } else {
        insert(TRACE_ID, trace_id);
        insert(SPAN_ID, format!("{:016x}", span.id));
        if let Some(parent) = span.parent {
            insert(PARENT_SPAN_ID, format!("{parent:016x}"));
        }
        headers.insert(SAMPLED, HeaderValue::from_static(sampled));
    }
    if with_w3c {
        w3c::inject_parent(span, headers);
    }
}

/// As Zipkin writes it: of 64 bits where it has no more.
pub(super) fn trace_id_text(id: u128) -> String {
    if id >> 64 == 0 { format!("{id:016x}") } else { format!("{id:032x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn many_headers_and_one_say_the_same() {
        let many = headers(&[
            ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
            ("x-b3-spanid", "a2fb4a1d1a96d312"),
            ("x-b3-parentspanid", "0020000000000001"),
            ("x-b3-sampled", "1"),
        ]);
        let one = headers(&[("b3", "463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-1-0020000000000001")]);
        let (many, one) = (extract(&many, false).unwrap(), extract(&one, false).unwrap());
        assert!(many.parent.is_some());
        assert_eq!(one, Told { in_one: true, ..many });
    }

    #[test]
    fn a_decision_may_stand_alone() {
        for (value, sampled) in [("0", false), ("1", true), ("d", true)] {
            let told = extract(&headers(&[("b3", value)]), false).unwrap();
            assert_eq!(told, Told { sampled: Some(sampled), parent: None, in_one: true }, "{value}");
        }
    }

    #[test]
    fn w3c_is_read_where_it_is_wanted_and_b3_says_nothing() {
        let w3c = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert!(extract(&headers(&[w3c]), true).unwrap().parent.is_some());
        assert_eq!(extract(&headers(&[w3c]), false), Ok(Told::default()));
    }

    #[test]
    fn what_is_no_b3_is_malformed() {
        for value in ["", "x", "463ac35c9f6413ad-", "463ac35c9f6413ad-a2fb4a1d1a96d31", "1-2-3-4-5"] {
            assert_eq!(extract(&headers(&[("b3", value)]), false), Err(Malformed), "{value}");
        }
        let many = headers(&[("x-b3-traceid", "-1"), ("x-b3-spanid", "1")]);
        assert_eq!(extract(&many, false), Err(Malformed));
    }
}
