//! `envoy.filters.listener.http_inspector`: whether the first bytes are HTTP, and which.
//!
//! Pure: in are all bytes so far, out is what they are or that more are needed. As in Envoy, HTTP/1 is a request line with any
//! token as its method (the codec refuses those that it does not know), and HTTP/2 is the connection preface of RFC 9113
//! §3.4.

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpInspection {
    /// A prefix of something that may still be HTTP.
    NeedMore,
    /// Something else.
    NotHttp,
    /// `http/1.0`
    Http10,
    /// `http/1.1`
    Http11,
    /// `h2c`
    Http2,
}

/// RFC 9113 §3.4.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks at the bytes that the client sent so far.
pub(super) fn inspect(bytes: &[u8]) -> HttpInspection {
    if bytes.starts_with(HTTP2_PREFACE) {
        return HttpInspection::Http2;
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return HttpInspection::NeedMore;
    }
    let Some(line_end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if may_be_request_line(bytes) { HttpInspection::NeedMore } else { HttpInspection::NotHttp };
    };
    let line = bytes.get(..line_end).unwrap_or_default();
    request_version(line.strip_suffix(b"\r").unwrap_or(line)).unwrap_or(HttpInspection::NotHttp)
}

/// Whether the start of a line may become a request line: the method decides as early as it can.
fn may_be_request_line(bytes: &[u8]) -> bool {
    let mut words = bytes.split(|byte| matches!(byte, b' ' | b'\t'));
    let method = words.next().unwrap_or_default();
    is_method(method) && bytes.iter().all(|byte| is_line_byte(*byte))
}

/// `method SP request-target SP HTTP/1.x` (RFC 9112 §3). How many blanks there are is left for the codec to judge.
fn request_version(line: &[u8]) -> Option<HttpInspection> {
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let (method, _target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some()
        || !line.starts_with(method)
        || !is_method(method)
        || !line.iter().all(|b| is_line_byte(*b))
    {
        return None;
    }
    match version {
        b"HTTP/1.1" => Some(HttpInspection::Http11),
        b"HTTP/1.0" => Some(HttpInspection::Http10),
        _ => None,
    }
}

/// A token (RFC 9110 §5.6.2).
fn is_method(word: &[u8]) -> bool {
    !word.is_empty()
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// No control characters; bytes above ASCII are let through, as lenient clients send them in targets.
fn is_line_byte(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || matches!(byte, b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_line_tells_its_version() {
        assert_eq!(inspect(b"GET / HTTP/1.1\r\n"), HttpInspection::Http11);
        assert_eq!(inspect(b"M-SEARCH * HTTP/1.1\nhost: a"), HttpInspection::Http11);
        assert_eq!(inspect(b"POST http://a/b?c=d%20e HTTP/1.0\r\nhost"), HttpInspection::Http10);
    }

    #[test]
    fn a_method_that_nobody_knows_is_left_for_the_codec_to_refuse() {
        assert_eq!(inspect(b"BREW /pot HTTP/1.1\r\n"), HttpInspection::Http11);
        assert_eq!(inspect(b"get / HTTP/1.1\r\n"), HttpInspection::Http11);
    }

    #[test]
    fn a_request_line_with_other_blanks_is_left_for_the_codec_to_refuse() {
        for line in [&b"GET\t/ HTTP/1.1\r\n"[..], b"GET / HTTP/1.1 \r\n", b"GET  /  HTTP/1.1\r\n"] {
            assert_eq!(inspect(line), HttpInspection::Http11, "{:?}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn the_preface_is_http2() {
        assert_eq!(inspect(HTTP2_PREFACE), HttpInspection::Http2);
        assert_eq!(inspect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"), HttpInspection::Http2);
    }

    #[test]
    fn other_protocols_are_told_by_their_first_bytes() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"*1\r\n$4\r\nPING\r\n",
            b"G(T / HTTP/1.1\r\n",
            b" GET / HTTP/1.1\r\n",
            b"GET  HTTP/1.1\r\n",
            b"GET / / HTTP/1.1\r\n",
            b"GET /\x01",
            b"GET / HTTP/2.0\r\n",
            b"GET /\r\n",
            b"PRI * HTTP/2.0\r\n\r\nXX",
            b"\n",
        ] {
            assert_eq!(inspect(bytes), HttpInspection::NotHttp, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    fn first_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(HTTP2_PREFACE.to_vec()),
            ("(GET|PUT|PURGE|PATCH|UNSUBSCRIBE)", "/[a-z0-9?&=%]{0,40}", "1\\.[0-2]", "\r?\n").prop_map(
                |(method, target, version, end)| format!("{method} {target} HTTP/{version}{end}x: y").into()
            ),
            "[A-Z]{1,12}[ -~]{0,30}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..64),
        ]
    }

    proptest! {
        /// However the bytes arrive, the verdict is the same, and once there it stays.
        #[test]
        fn the_verdict_does_not_depend_on_how_the_bytes_arrive(bytes in first_bytes()) {
            let verdicts: Vec<_> = (0..=bytes.len()).map(|split| inspect(&bytes[..split])).collect();
            let first = verdicts.iter().position(|verdict| *verdict != HttpInspection::NeedMore);
            let first = first.unwrap_or(verdicts.len());
            prop_assert!(verdicts[first..].windows(2).all(|pair| pair[0] == pair[1]), "{verdicts:?}");
        }
    }
}
