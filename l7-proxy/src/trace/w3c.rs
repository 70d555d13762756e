//! W3C's `traceparent` and `tracestate` (Trace Context, 3).

use http::{HeaderMap, HeaderValue};

use super::context::{Malformed, Parent, Told, hex, text};
use super::span::Span;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// A version, a trace, a span and flags, in hexadecimal digits.
const LENGTHS: [usize; 4] = [2, 32, 16, 2];

/// What a request says.
pub(super) fn extract(headers: &HeaderMap) -> Result<Told, Malformed> {
    let Some(value) = text(headers, TRACEPARENT) else { return Ok(Told::default()) };
    let mut parts = value.split('-');
    let mut fields = [0_u128; 4];
    for (field, length) in fields.iter_mut().zip(LENGTHS) {
        let part = parts.next().filter(|part| part.len() == length).ok_or(Malformed)?;
        *field = hex(part)?;
    }
    let [_version, trace_id, span_id, flags] = fields;
    if parts.next().is_some() || trace_id == 0 || span_id == 0 {
        return Err(Malformed);
    }
    let span_id = u64::try_from(span_id).map_err(|_| Malformed)?;
    let parent = Parent { trace_id, span_id, grandparent: None, state: state(headers) };
    Ok(Told { sampled: Some(flags & 1 == 1), parent: Some(parent), in_one: false })
}

/// Tells the next hop where it is.
pub(super) fn inject_parent(span: &Span, headers: &mut HeaderMap) {
    let flags = u8::from(span.sampled);
    let value = format!("00-{:032x}-{:016x}-{flags:02x}", span.trace_id, span.id);
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(TRACEPARENT, value);
    }
}

/// Tells it what vendors say as well: an empty header where they say nothing, as Envoy does.
pub(super) fn inject(span: &Span, headers: &mut HeaderMap) {
    inject_parent(span, headers);
    headers.insert(TRACESTATE, span.state.clone().unwrap_or(HeaderValue::from_static("")));
}

/// All of them as one.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACESTATE).iter();
    let first = values.next()?;
    let mut joined = first.as_bytes().to_vec();
    for value in values {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    HeaderValue::try_from(joined).ok().filter(|state| !state.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: &str) -> Result<Told, Malformed> {
        extract(&HeaderMap::from_iter([(http::HeaderName::from_static(TRACEPARENT), value.parse().unwrap())]))
    }

    #[test]
    fn a_parent_is_read() {
        let told = told("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let parent = told.parent.unwrap();
        assert_eq!(parent.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((parent.span_id, told.sampled), (0xb7ad_6b71_6920_3331, Some(true)));
    }

    #[test]
    fn nothing_said_is_nothing() {
        assert_eq!(extract(&HeaderMap::new()), Ok(Told::default()));
    }

    #[test]
    fn what_is_no_traceparent_is_malformed() {
        for value in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319x-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(told(value), Err(Malformed), "{value}");
        }
    }
}
