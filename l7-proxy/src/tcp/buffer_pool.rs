//! Buffers of a worker, lent to connections only while they have bytes in flight: an idle connection has none.

use std::cell::RefCell;

/// The size of a buffer: what one direction of one connection can hold while its receiver is slow.
const BUFFER_SIZE: usize = 64 * 1024;
/// How many buffers are kept for later. More connections than that can have bytes in flight at once; theirs are freed.
const KEPT: usize = 16;

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(RefCell<Vec<Box<[u8]>>>);

impl BufferPool {
    /// A buffer with whatever was in it before.
    pub(super) fn take(&self) -> Box<[u8]> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice())
    }

    /// Gives a buffer back.
    pub(super) fn give(&self, buffer: Box<[u8]>) {
        let mut free = self.0.borrow_mut();
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}
