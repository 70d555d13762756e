//! HTTP/1.1 on both sides: our own codec, because each malformed request has to get the answer that Envoy gives it, and
//! because nothing else of the proxy is executed as often.
//!
//! One task drives a downstream connection and the upstream connection that its request is on, so that a request costs no
//! channel and no other task's wake-up. Parsing of heads is `httparse`'s.

mod chunked;
mod client;
mod decoder;
mod encode;
mod parse;
mod request_line;
mod server;
mod write_buffer;

pub(crate) use client::{Exchange, ExchangeError, Http1ResponseBody};
pub(crate) use parse::ProtocolError;
pub(crate) use server::{Http1RequestBody, serve};
pub(crate) use write_buffer::WriteBuffer;

/// How much is read from a socket at once where nothing larger is expected.
const READ_SIZE: usize = 8 * 1024;
/// How much is read at once within a long body.
const BODY_READ_SIZE: usize = 64 * 1024;
