//! When a refusal may be sent: a server that sends what was refused again at once, as go-control-plane does, would otherwise
//! be refused as fast as both sides can.

use std::time::{Duration, Instant};

/// The second refusal in a row waits so long; each further one twice as long as the one before it.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// After so long without one, the next is the first again.
const FORGOTTEN: Duration = Duration::from_secs(90);

/// The refusals of one type since a response was accepted.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    in_a_row: u32,
    last: Option<Instant>,
    /// Nothing is answered before this.
    until: Option<Instant>,
}

impl Refusals {
    /// A response was accepted: what is due goes out.
    pub(super) fn accepted(&mut self) {
        *self = Self::default();
    }

    /// A response was refused. The first refusal goes out at once.
    pub(super) fn refused(&mut self, now: Instant) {
        if self.last.is_some_and(|last| last + FORGOTTEN < now) {
            *self = Self::default();
        }
        let delay = match self.in_a_row {
            0 => None,
            before => Some(FIRST_DELAY.saturating_mul(1 << (before - 1).min(5)).min(LONGEST_DELAY)),
        };
        // What waits already does not wait longer for another.
        self.until = self.until.or(delay.map(|delay| now + delay));
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = Some(now);
    }

    /// Until when what is due waits.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Nothing waits any more.
    pub(super) fn released(&mut self) {
        self.until = None;
    }
}
