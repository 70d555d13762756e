//! How many messages a gRPC body has.

/// Counts length-prefixed messages as their bytes pass (gRPC over HTTP/2, "Length-Prefixed-Message").
#[derive(Debug, Default)]
pub(crate) struct GrpcFrames {
    /// Messages whose prefix has passed.
    messages: u64,
    /// How much of the prefix has passed: a flag, and four bytes of length.
    prefix: u8,
    length: u32,
    /// What is still to come of the message.
    left: u32,
}

const PREFIX: u8 = 5;

impl GrpcFrames {
    /// Some bytes pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u32::try_from(skipped).unwrap_or(self.left);
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.length = if self.prefix == 0 { 0 } else { self.length << 8 | u32::from(*first) };
            self.prefix += 1;
            if self.prefix == PREFIX {
                self.messages += 1;
                self.prefix = 0;
                self.left = self.length;
            }
            bytes = rest;
        }
    }

    /// Whether what has passed ends with a message.
    pub(crate) fn is_whole(&self) -> bool {
        self.left == 0 && self.prefix == 0
    }

    /// How many there were.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(length.to_be_bytes());
        message.resize(5 + length as usize, 7);
        message
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let body = [message(0), message(3), message(70_000), message(0)].concat();
        for size in [1, 2, 5, 7, 4096, body.len()] {
            let mut frames = GrpcFrames::default();
            body.chunks(size).for_each(|chunk| frames.pass(chunk));
            assert_eq!(frames.messages(), 4, "in pieces of {size}");
        }
    }
}
