//! The chunked transfer coding (RFC 9112, 7.1). Trailers are read and dropped, as by Envoy unless `enable_trailers` is set.

use bytes::{Buf, BytesMut};
use httparse::Status;

use super::decoder::{Decoded, take};
use super::parse::ProtocolError;

/// The longest line between chunks: a size with its extensions.
const MAX_SIZE_LINE: usize = 4096;
/// The longest trailer section, Envoy's limit for headers.
const MAX_TRAILERS: usize = 60 * 1024;

/// Where in a chunked body the read buffer begins.
#[derive(Debug, Default)]
pub(super) enum ChunkedDecoder {
    /// At a chunk's size.
    #[default]
    Size,
    /// Within a chunk of which so much is left.
    Data(u64),
    /// At the line break after a chunk's data.
    DataEnd,
    /// After the last chunk.
    Trailers,
}

impl ChunkedDecoder {
    pub(super) fn expects(&self) -> u64 {
        if let Self::Data(left) = self { *left } else { 1 }
    }

    pub(super) fn decode(&mut self, read: &mut BytesMut) -> Result<Decoded, ProtocolError> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(read) {
                    Ok(Status::Complete((length, size))) => {
                        // An extension may not hold what others take for the line's end.
                        if read.get(..length - 1).is_some_and(|line| line.contains(&b'\n')) {
                            return Err(ProtocolError::Malformed);
                        }
                        read.advance(length);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    Ok(Status::Partial) if read.len() <= MAX_SIZE_LINE => return Ok(Decoded::NeedMore),
                    Ok(Status::Partial) | Err(_) => return Err(ProtocolError::Malformed),
                },
                Self::Data(left) => {
                    if read.is_empty() {
                        return Ok(Decoded::NeedMore);
                    }
                    let data = take(read, *left);
                    *left -= data.len() as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Decoded::Data(data));
                }
                Self::DataEnd => match read.as_ref() {
                    [b'\r', b'\n', ..] => {
                        read.advance(2);
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(Decoded::NeedMore),
                    _ => return Err(ProtocolError::Malformed),
                },
                Self::Trailers => {
                    let mut slots = [httparse::EMPTY_HEADER; 100];
                    return match httparse::parse_headers(read, &mut slots) {
                        Ok(Status::Complete((length, _))) => {
                            read.advance(length);
                            Ok(Decoded::End)
                        }
                        Ok(Status::Partial) if read.len() <= MAX_TRAILERS => Ok(Decoded::NeedMore),
                        Ok(Status::Partial) | Err(_) => Err(ProtocolError::Malformed),
                    };
                }
            }
        }
    }
}
