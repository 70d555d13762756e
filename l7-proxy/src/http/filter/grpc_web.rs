//! `envoy.filters.http.grpc_web`: a browser's gRPC, which has its trailers in the body and may be in base64, becomes gRPC, and
//! its answer becomes gRPC-Web again (gRPC's `PROTOCOL-WEB.md`).

use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TE};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;

use crate::http::body::{BodyError, PolledFrame, RequestBody};
use crate::http::head::{RequestHead, is_grpc};
use crate::telemetry::GrpcFrames;

const BINARY: &str = "application/grpc-web";
const BINARY_PROTO: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";
const TEXT_PROTO: &str = "application/grpc-web-text+proto";
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The flag of the message that the trailers are.
const TRAILERS: u8 = 0x80;

/// A request that was gRPC-Web.
#[derive(Debug, Clone, Copy)]
pub(super) struct GrpcWeb {
    text_request: bool,
    text_response: bool,
}

/// Makes gRPC of a gRPC-Web request; any other is none of the filter's business.
pub(super) fn decode(head: &mut RequestHead) -> Option<GrpcWeb> {
    let headers = &mut head.headers;
    let content_type = headers.get(CONTENT_TYPE)?;
    let is_text = |value: &HeaderValue| value == TEXT || value == TEXT_PROTO;
    let text_request = is_text(content_type);
    if !text_request && content_type != BINARY && content_type != BINARY_PROTO {
        return None;
    }
    let text_response = headers.get(ACCEPT).is_some_and(is_text);
    // It is the length of what came, and gRPC delimits its messages itself.
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Some(GrpcWeb { text_request, text_response })
}

impl GrpcWeb {
    /// The body as gRPC has it.
    pub(super) fn request(self, body: RequestBody) -> RequestBody {
        if self.text_request && !body.is_empty() {
            return RequestBody::Base64(Base64Body { source: Box::new(body), pending: BytesMut::new() });
        }
        body
    }

    /// The answer's headers as gRPC-Web has them, and what makes its body so. An answer that is not gRPC stays as it is.
    pub(super) fn response(self, headers: &mut HeaderMap) -> Option<GrpcWebEncoder> {
        if !is_grpc(headers) {
            return None;
        }
        let content_type = if self.text_response { TEXT_PROTO } else { BINARY_PROTO };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.remove(CONTENT_LENGTH);
        Some(GrpcWebEncoder { text: self.text_response.then(Text::default) })
    }
}

/// A request's body in base64, as the bytes that it means.
#[derive(Debug)]
pub(crate) struct Base64Body {
    source: Box<RequestBody>,
    /// Fewer than the four characters that make bytes.
    pending: BytesMut,
}

impl Base64Body {
    /// Whether nothing is to come.
    pub(crate) fn is_end(&self) -> bool {
        self.source.is_empty() && self.pending.is_empty()
    }

    /// The next piece. What is no base64 breaks the body off.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let malformed = || Poll::Ready(Some(Err(BodyError::DownstreamProtocol)));
        loop {
            let data = match ready!(self.source.poll_next(cx)) {
                None if self.pending.is_empty() => return Poll::Ready(None),
                None => return malformed(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            };
            self.pending.extend_from_slice(&data);
            let whole = self.pending.len() / 4 * 4;
            if whole == 0 {
                continue;
            }
            return match STANDARD.decode(self.pending.split_to(whole)) {
                Ok(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                Err(_) => malformed(),
            };
        }
    }
}

/// Makes the body of a gRPC answer one of gRPC-Web.
#[derive(Debug)]
pub(crate) struct GrpcWebEncoder {
    text: Option<Text>,
}

/// The state of base64.
#[derive(Debug, Default)]
struct Text {
    messages: GrpcFrames,
    /// Fewer than the three bytes that make characters.
    pending: BytesMut,
}

impl GrpcWebEncoder {
    /// The same piece for a browser: trailers are a message of their own.
    pub(crate) fn encode(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        Frame::data(match frame.into_data() {
            Ok(data) => self.data(data),
            Err(frame) => self.trailers(&frame.into_trailers().unwrap_or_default()),
        })
    }

    fn data(&mut self, data: Bytes) -> Bytes {
        let Some(Text { messages, pending }) = &mut self.text else { return data };
        messages.pass(&data);
        pending.extend_from_slice(&data);
        // A message is not held back for the next one's first bytes.
        let ready = if messages.is_whole() { pending.len() } else { pending.len() / 3 * 3 };
        STANDARD.encode(pending.split_to(ready)).into()
    }

    fn trailers(&mut self, trailers: &HeaderMap) -> Bytes {
        let mut message = BytesMut::from(&[TRAILERS, 0, 0, 0, 0][..]);
        for (name, value) in trailers {
            message.extend_from_slice(name.as_str().as_bytes());
            message.put_u8(b':');
            message.extend_from_slice(value.as_bytes());
            message.extend_from_slice(b"\r\n");
        }
        let length = u32::try_from(message.len() - 5).unwrap_or(u32::MAX);
        message.iter_mut().skip(1).zip(length.to_be_bytes()).for_each(|(place, byte)| *place = byte);
        let message = message.freeze();
        if self.text.is_some() { STANDARD.encode(message).into() } else { message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content_type: &'static str, accept: &'static str) -> RequestHead {
        let mut head = RequestHead::default();
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        head.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("8"));
        head
    }

    fn encoder(accept: &'static str) -> GrpcWebEncoder {
        let web = decode(&mut request("application/grpc-web", accept)).unwrap();
        let mut headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        web.response(&mut headers).unwrap()
    }

    fn encoded(encoder: &mut GrpcWebEncoder, frame: Frame<Bytes>) -> Bytes {
        encoder.encode(frame).into_data().unwrap()
    }

    fn status() -> Frame<Bytes> {
        Frame::trailers(HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]))
    }

    #[test]
    fn a_request_becomes_grpc() {
        let mut head = request("application/grpc-web-text+proto", "*/*");
        assert!(decode(&mut head).unwrap().text_request);
        assert!(head.is_grpc() && !head.headers.contains_key(CONTENT_LENGTH));
        assert!(decode(&mut request("application/grpc", "*/*")).is_none());
        assert!(decode(&mut request("application/json", "*/*")).is_none());
    }

    #[test]
    fn trailers_end_the_body() {
        let mut binary = encoder("*/*");
        assert_eq!(encoded(&mut binary, Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), b"\0\0\0\0\0"[..]);
        assert_eq!(encoded(&mut binary, status()), b"\x80\0\0\0\x0fgrpc-status:0\r\n"[..]);
    }

    #[test]
    fn text_has_every_message_whole_however_it_is_cut() {
        let mut text = encoder("application/grpc-web-text");
        let piece =
            |text: &mut _, bytes: &'static [u8]| encoded(text, Frame::data(Bytes::from_static(bytes)));
        assert_eq!(piece(&mut text, b"\0\0\0\0"), STANDARD.encode(b"\0\0\0").as_bytes());
        assert_eq!(piece(&mut text, b"\x01a"), STANDARD.encode(b"\0\x01a").as_bytes());
        assert_eq!(piece(&mut text, b"\0\0\0\0\0"), STANDARD.encode(b"\0\0\0\0\0").as_bytes());
        let trailers = STANDARD.encode(b"\x80\0\0\0\x0fgrpc-status:0\r\n");
        assert_eq!(encoded(&mut text, status()), trailers.as_bytes());
    }

    #[test]
    fn an_answer_that_is_not_grpc_stays_as_it_is() {
        let web = decode(&mut request("application/grpc-web", "*/*")).unwrap();
        let html = HeaderValue::from_static("text/html");
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, html.clone())]);
        assert!(web.response(&mut headers).is_none());
        assert_eq!(headers.get(CONTENT_TYPE), Some(&html));
    }
}
