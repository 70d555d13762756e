//! HTTP/2 connections to one host.

use std::time::Instant;

/// The pool.
#[derive(Debug, Default)]
pub(crate) struct Http2Pool {}

impl Http2Pool {
    /// Closes what was idle for too long or was closed by the peer.
    pub(super) fn sweep(&self, _now: Instant) {}
}
