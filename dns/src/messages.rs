//! Messages over TCP: each with its length before it (RFC 1035 section 4.2.2).

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LENGTH: usize = 2;

/// Takes messages out of a stream. Nothing is lost when [`next`](Self::next) is cancelled.
#[derive(Debug)]
pub(crate) struct Messages<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Messages<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next message; `None` at the end, also if it is in the middle of one.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.buffered() {
                return Ok(Some(message));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn buffered(&mut self) -> Option<Bytes> {
        let length = self.buffer.get(..LENGTH).map(|mut length| usize::from(length.get_u16()))?;
        if self.buffer.len() < LENGTH + length {
            return None;
        }
        self.buffer.advance(LENGTH);
        Some(self.buffer.split_to(length).freeze())
    }
}

/// Writes one message.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await
}
