//! Requests that their clients give up before they are answered. Each costs its client two small frames and the proxy, and
//! whoever is behind it, a request ("rapid reset", CVE-2023-44487).

use std::cell::Cell;

/// Envoy's `overload.premature_reset_total_stream_count`: so many requests say nothing yet of a client.
const LENIENT_UNTIL: u32 = 500;

/// How the requests of one connection ended.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    requests: Cell<u32>,
    abandoned: Cell<u32>,
}

/// A request that waits for its answer's head.
pub(super) struct Waiting<'a> {
    of: &'a Abandoned,
    answered: bool,
}

impl Abandoned {
    /// A request begins to wait. Dropped before it is answered, it has been given up.
    pub(super) fn begin(&self) -> Waiting<'_> {
        Waiting { of: self, answered: false }
    }

    /// Whether the connection is to be closed, by Envoy's rule: most of a large number were given up.
    pub(super) fn are_too_many(&self) -> bool {
        let (requests, abandoned) = (self.requests.get(), self.abandoned.get());
        requests > LENIENT_UNTIL && abandoned > requests / 2
    }
}

impl Waiting<'_> {
    /// There is an answer.
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.of.requests.update(|count| count.saturating_add(1));
        if !self.answered {
            self.of.abandoned.update(|count| count.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_gives_up_most_of_its_requests_is_one_too_many() {
        let abandoned = Abandoned::default();
        for number in 0..LENIENT_UNTIL {
            drop(abandoned.begin());
            assert!(!abandoned.are_too_many(), "after {number}");
        }
        drop(abandoned.begin());
        assert!(abandoned.are_too_many());
    }

    #[test]
    fn one_that_gives_up_half_of_them_goes_on() {
        let abandoned = Abandoned::default();
        for _ in 0..10 * LENIENT_UNTIL {
            drop(abandoned.begin());
            abandoned.begin().answered();
            assert!(!abandoned.are_too_many());
        }
    }
}
