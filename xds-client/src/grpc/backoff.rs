//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Bounds of the delay between attempts. Each delay is chosen evenly between zero and a ceiling that starts at
/// `initial`, doubles with every failure and ends at `max`; an answer from the control plane starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffBounds {
    /// Ceiling of the first delay.
    pub initial: Duration,
    /// Ceiling of every late delay.
    pub max: Duration,
}

impl Default for BackoffBounds {
    /// Envoy's bounds for its xDS streams (`RetryInitialDelayMs` and `RetryMaxDelayMs`, 500 ms and 30 s).
    fn default() -> Self {
        Self { initial: Duration::from_millis(500), max: Duration::from_secs(30) }
    }
}

#[derive(Debug)]
pub(super) struct Backoff {
    bounds: BackoffBounds,
    ceiling: Duration,
}

impl Backoff {
    pub(super) fn new(bounds: BackoffBounds) -> Self {
        Self { bounds, ceiling: bounds.initial }
    }

    pub(super) fn reset(&mut self) {
        self.ceiling = self.bounds.initial;
    }

    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.bounds.max);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: BackoffBounds =
        BackoffBounds { initial: Duration::from_millis(100), max: Duration::from_millis(400) };

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_up_to_its_bound() {
        let mut backoff = Backoff::new(BOUNDS);

        for ceiling in [100, 200, 400, 400] {
            assert!(backoff.next_delay() <= Duration::from_millis(ceiling));
        }
    }

    #[test]
    fn an_answer_starts_over() {
        let mut backoff = Backoff::new(BOUNDS);
        backoff.next_delay();
        backoff.next_delay();

        backoff.reset();

        assert!(backoff.next_delay() <= BOUNDS.initial);
    }
}
