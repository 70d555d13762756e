//! The bytes of a resource as they came, packed: they are read for dumps and for the disk alone, and a large mesh has
//! many.

use std::fmt;
use std::sync::Arc;

/// Bytes, packed by LZ4. Clones share them.
#[derive(Clone)]
pub struct Packed(Arc<[u8]>);

impl Packed {
    /// Packs them.
    pub fn new(bytes: &[u8]) -> Self {
        Self(lz4_flex::compress_prepend_size(bytes).into())
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> Vec<u8> {
        let bytes = lz4_flex::decompress_size_prepended(&self.0);
        debug_assert!(bytes.is_ok(), "`new` alone makes one");
        bytes.unwrap_or_default()
    }

    /// Whether these are the bytes.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        self.bytes() == bytes
    }

    /// Tells clones of it from others: equal as long as both live, if and only if they share their bytes.
    pub fn identity(&self) -> usize {
        self.0.as_ptr().addr()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, packed", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Packed;

    proptest! {
        #[test]
        fn what_was_packed_comes_out_again(bytes: Vec<u8>) {
            prop_assert_eq!(Packed::new(&bytes).bytes(), bytes);
        }
    }
}
