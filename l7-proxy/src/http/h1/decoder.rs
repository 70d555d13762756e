//! Bodies of HTTP/1.1 messages as they come in.

use bytes::{Buf, Bytes, BytesMut};

use super::chunked::ChunkedDecoder;
use super::parse::ProtocolError;

/// How a body ends (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// After so many bytes, at least one.
    Length(u64),
    /// After its last chunk.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

impl Framing {
    pub(super) fn of_length(length: u64) -> Self {
        if length == 0 { Self::None } else { Self::Length(length) }
    }
}

/// Takes a body out of a read buffer.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks are to come.
    Chunked(ChunkedDecoder),
    /// Bytes are to come until the connection closes.
    UntilClose,
    /// The body has ended.
    Done,
}

/// What a decoder made of the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Some of the body.
    Data(Bytes),
    /// More has to be read.
    NeedMore,
    /// The body has ended.
    End,
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(ChunkedDecoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How much of the body is known to be missing.
    pub(super) fn expects(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunked) => chunked.expects(),
            Self::UntilClose => u64::MAX,
            Self::Done => 0,
        }
    }

    pub(super) fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, ProtocolError> {
        match self {
            Self::Done => Ok(Decoded::End),
            Self::UntilClose if read.is_empty() => Ok(Decoded::NeedMore),
            Self::UntilClose => Ok(Decoded::Data(read.split().freeze())),
            Self::Length(left) => {
                if read.is_empty() {
                    return Ok(Decoded::NeedMore);
                }
                let data = take(read, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Decoded::Data(data))
            }
            Self::Chunked(chunked) => {
                let decoded = chunked.decode(read)?;
                if decoded == Decoded::End {
                    *self = Self::Done;
                }
                Ok(decoded)
            }
        }
    }

    /// The connection has ended: whether that is where the body ends too.
    pub(super) fn end_of_stream(&mut self) -> bool {
        let ends = matches!(self, Self::UntilClose | Self::Done);
        *self = Self::Done;
        ends
    }
}

/// Up to `limit` bytes of what was read. A short piece is copied, so that the read buffer stays whole and is used again
/// without an allocation.
pub(super) fn take(read: &mut BytesMut, limit: u64) -> Bytes {
    const COPY_LIMIT: usize = 4096;
    let length = usize::try_from(limit).unwrap_or(usize::MAX).min(read.len());
    if length > COPY_LIMIT {
        return read.split_to(length).freeze();
    }
    let data = Bytes::copy_from_slice(read.get(..length).unwrap_or_default());
    read.advance(length);
    data
}
