//! The bytes of the work: one request, one answer, and the check that an answer is the right one.

use std::sync::LazyLock;

/// Length of the body of every answer.
pub(super) const BODY_BYTES: usize = 1024;

/// Most header lines that either side reads; Envoy and its peers add a handful to ours.
const MAX_HEADERS: usize = 32;

/// The body of every answer: bytes without a period, so that lost, repeated or shifted pieces are noticed.
static BODY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state: u32 = 0x6f72_6c6f;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()
    })
    .flatten()
    .take(BODY_BYTES)
    .collect()
});

/// The request as it is sent, for the `Host` given.
pub(super) fn request(host: &str) -> Vec<u8> {
    format!("GET /bench/1k HTTP/1.1\r\nhost: {host}\r\nuser-agent: orlop-bench\r\naccept: */*\r\n\r\n")
        .into_bytes()
}

/// The answer as the backend sends it.
pub(super) fn response() -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {BODY_BYTES}\r\n\r\n"
    );
    [head.as_bytes(), &BODY].concat()
}

/// Length of the request at the start of `bytes`; `None` while it is incomplete. Requests have no body here.
pub(super) fn request_length(bytes: &[u8]) -> Result<Option<usize>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    Ok(match httparse::Request::new(&mut headers).parse(bytes)? {
        httparse::Status::Complete(length) => Some(length),
        httparse::Status::Partial => None,
    })
}

/// Why an answer is not the expected one.
#[derive(Debug, thiserror::Error)]
pub(super) enum WrongAnswer {
    #[error("not HTTP/1.1: {0}")]
    Malformed(#[from] httparse::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("no content-length of {BODY_BYTES}")]
    Length,
    #[error("another body than the backend sent")]
    Body,
}

/// Whether `bytes` is the whole expected answer; `Ok(false)` while it is incomplete.
///
/// Status, length and every byte of the body are compared: stronger than a hash of them, and cheaper.
pub(super) fn is_whole_answer(bytes: &[u8]) -> Result<bool, WrongAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(false) };
    match response.code {
        Some(200) => {}
        code => return Err(WrongAnswer::Status(code.unwrap_or_default())),
    }
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|h| std::str::from_utf8(h.value).ok()).and_then(|v| v.parse().ok());
    if length != Some(BODY_BYTES) {
        return Err(WrongAnswer::Length);
    }
    let body = bytes.get(head..).unwrap_or_default();
    if body.len() < BODY_BYTES {
        return Ok(false);
    }
    if body == BODY.as_slice() { Ok(true) } else { Err(WrongAnswer::Body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backends_answer_is_whole_only_with_its_last_byte() {
        let answer = response();
        assert!(is_whole_answer(&answer).unwrap());
        assert!(!is_whole_answer(&answer[..answer.len() - 1]).unwrap());
    }

    #[test]
    fn one_changed_byte_is_a_wrong_answer() {
        let mut answer = response();
        *answer.last_mut().unwrap() ^= 1;
        assert!(matches!(is_whole_answer(&answer), Err(WrongAnswer::Body)));
    }

    #[test]
    fn another_status_is_a_wrong_answer() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(is_whole_answer(answer), Err(WrongAnswer::Status(503))));
    }
}
