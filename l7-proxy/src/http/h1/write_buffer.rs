//! Bytes on their way to a socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Pieces longer than this are written from where they lie; shorter ones are copied behind the head, so that a message
/// is one piece in one packet.
const COPY_LIMIT: usize = 16 * 1024;

/// Encoded bytes: a buffer, and behind it at most one long piece with what ends it.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    buffer: BytesMut,
    piece: Bytes,
    tail: &'static [u8],
    /// TLS may hold some back.
    unflushed: bool,
}

impl WriteBuffer {
    /// Where to encode to. Only while [`Self::takes_more`].
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Adds a piece of a body, and what ends it. Only while [`Self::takes_more`].
    pub(super) fn push(&mut self, piece: Bytes, tail: &'static [u8]) {
        if piece.len() <= COPY_LIMIT {
            self.buffer.extend_from_slice(&piece);
            self.buffer.extend_from_slice(tail);
        } else {
            self.piece = piece;
            self.tail = tail;
        }
    }

    /// Whether there is room, so that what a slow reader has not taken yet stays bounded.
    pub(super) fn takes_more(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.buffer.len() < COPY_LIMIT
    }

    pub(super) fn is_empty(&self) -> bool {
        self.has_no_bytes() && !self.unflushed
    }

    fn has_no_bytes(&self) -> bool {
        self.buffer.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Writes everything. An end of the stream within is an error.
    pub(super) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.has_no_bytes() {
            let written = if self.piece.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.buffer))?
            } else {
                let slices = [IoSlice::new(&self.buffer), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            let of_buffer = written.min(self.buffer.len());
            self.buffer.advance(of_buffer);
            let of_piece = (written - of_buffer).min(self.piece.len());
            self.piece.advance(of_piece);
            self.tail = self.tail.get(written - of_buffer - of_piece..).unwrap_or_default();
        }
        // Lets go of a long piece's memory.
        self.piece = Bytes::new();
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
