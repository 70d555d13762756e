//! HTTP/2 with prior knowledge on both sides, by `hyper`. Here is what turns its messages into ours and back.

mod abandoned;
mod client;
mod server;
mod tasks;
mod upload;

pub(crate) use client::{SendError, connect, respond};
pub(crate) use server::serve;
pub(crate) use upload::Upload;

/// Envoy's defaults (`initial_stream_window_size`, `initial_connection_window_size`) are 16 and 24 MiB, which let a slow
/// reader make the proxy hold as much. These keep a fast connection busy within a data centre.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Envoy's default `max_concurrent_streams`.
const MAX_CONCURRENT_STREAMS: u32 = 1024;
